"""The engine's thread: takes submissions, steps the engine, hands every event to its job.

Knows neither text nor asyncio. A `Job` turns engine events into whatever its caller wants; it runs
on this thread and must not block. `run_once` is the whole loop body, so tests need no thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from llamakit.core.errors import EngineStopped, LlamakitError
from llamakit.engine.engine import Engine
from llamakit.engine.request import EngineEvent, ErrorEvent, Request

log = logging.getLogger(__name__)

T = TypeVar("T")


class Job(Protocol):
    """One request on its way through the engine."""

    request: Request

    def on_events(self, events: list[EngineEvent]) -> None:
        """Take the events of one step, in order."""
        ...

    def on_error(self, error: BaseException) -> None:
        """The request failed; nothing follows."""
        ...


class EngineLoop:
    """Owns an engine: every call on it happens on the loop's thread."""

    def __init__(self, engine: Engine, *, name: str = "engine") -> None:
        self._engine = engine
        self._name = name
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._failure: BaseException | None = None
        self._after_step: list[Callable[[], None]] = []
        self._gate = threading.Lock()
        self._stopped: BaseException | None = None
        """Set once nobody reads the inbox any more."""

    # -- from any thread ---------------------------------------------------------------------------

    def start(self) -> None:
        """Run on a thread of its own until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"llamakit-{self._name}", daemon=True)
            self._thread.start()

    @property
    def failure(self) -> BaseException | None:
        """What stopped the engine, if something did; a failed loop serves nothing more."""
        return self._failure

    def submit(self, job: Job) -> None:
        """Queue `job`; refusals arrive through its `on_error`."""
        if not self._post(lambda: self._submit(job)):
            assert self._stopped is not None
            job.on_error(self._stopped)

    def cancel(self, request_id: str) -> None:
        """Stop a request; its blocks are free before the next step, and no further event reaches its job."""
        self._post(lambda: self._cancel(request_id))

    def call(self, function: Callable[[Engine], T]) -> Future[T]:
        """Run `function(engine)` between two steps."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(self._engine))
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits on the future
                future.set_exception(error)

        if not self._post(run):
            assert self._stopped is not None
            future.set_exception(self._stopped)
        return future

    def after_step(self, flush: Callable[[], None]) -> None:
        """Call `flush` after every step that delivered events: doors batch their wake-ups with it."""
        self._after_step.append(flush)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the thread; running requests end with an error."""
        self._closing = True
        self._post(lambda: None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        if self._thread is None:
            self._stop(EngineStopped(f"the engine of {self._name} was shut down"))
        self._after_step.clear()  # doors hold the loop: without this the weights would wait for the garbage collector

    # -- on the loop's thread ----------------------------------------------------------------------

    def run_once(self, *, wait: bool = False) -> bool:
        """Take what is in the inbox, do one step, deliver its events; True if there was work."""
        self._drain(wait=wait and not self._engine.has_work)
        if not self._engine.has_work:
            return False
        self._deliver(self._engine.step())
        return True

    def _run(self) -> None:
        try:
            while not self._closing:
                self.run_once(wait=True)
            stopped: BaseException = EngineStopped(f"the engine of {self._name} was shut down")
        except BaseException as error:
            log.exception("the engine of %s failed", self._name)
            self._failure = error
            stopped = EngineStopped(f"the engine of {self._name} failed: {error}")
            stopped.__cause__ = error
        self._stop(stopped)

    def _post(self, command: Callable[[], None]) -> bool:
        """Queue a command; False when nobody will read it."""
        with self._gate:
            if self._stopped is None:
                self._inbox.put(command)
            return self._stopped is None

    def _drain(self, *, wait: bool) -> None:
        try:
            command = self._inbox.get(block=wait)
            while True:
                command()
                command = self._inbox.get(block=False)
        except queue.Empty:
            pass

    def _submit(self, job: Job) -> None:
        if self._closing:
            job.on_error(EngineStopped(f"the engine of {self._name} was shut down"))
            return
        try:
            self._engine.submit(job.request)
        except LlamakitError as error:
            job.on_error(error)
        else:
            self._jobs[job.request.id] = job

    def _cancel(self, request_id: str) -> None:
        if self._jobs.pop(request_id, None) is not None:
            self._engine.cancel(request_id)

    def _deliver(self, events: list[EngineEvent]) -> None:
        grouped: dict[str, list[EngineEvent]] = {}
        for event in events:
            grouped.setdefault(event.request_id, []).append(event)
        for request_id, own in grouped.items():
            job = self._jobs.get(request_id)
            if job is None:
                continue
            last = own[-1]
            if last.is_last:
                self._jobs.pop(request_id, None)
            if isinstance(last, ErrorEvent):
                job.on_error(last.error)
            else:
                job.on_events(own)
        for flush in self._after_step:
            flush()

    def _stop(self, error: BaseException) -> None:
        """End every job with `error`, and refuse what comes after."""
        with self._gate:
            self._stopped = error
        self._closing = True
        jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.on_error(error)
        while True:
            try:
                self._inbox.get(block=False)()
            except queue.Empty:
                break
        for flush in self._after_step:
            flush()
