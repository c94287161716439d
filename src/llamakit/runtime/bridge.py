"""The async door: an engine thread on one side, any number of tasks on the other.

Events collect while a step delivers them and cross over with one wake-up a step, whatever the number
of streams; so the event loop stays responsive. Cancellation becomes one `EngineLoop.cancel`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable

from llamakit.core.errors import Overloaded
from llamakit.core.messages import AnswerEvent, Done
from llamakit.runtime.loop import EngineLoop, Job

MAX_UNREAD = 16_384
"""Events a reader may fall behind before its request is cancelled: some 256 KiB of text."""

_Item = AnswerEvent | BaseException


class _Mailbox:
    """Unread events of one answer; lives on the event loop's thread."""

    def __init__(self) -> None:
        self.items: deque[_Item] = deque()
        self.filled = asyncio.Event()

    def put(self, items: list[_Item]) -> None:
        self.items.extend(items)
        self.filled.set()


class AsyncDoor:
    """Runs jobs of one `EngineLoop` for asyncio tasks."""

    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._pending: list[tuple[asyncio.AbstractEventLoop, _Mailbox, list[_Item]]] = []
        loop.after_step(self._flush)

    async def run(
        self, job_of: Callable[[Callable[[list[AnswerEvent]], None], Callable[[BaseException], None]], Job]
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Submit a job and yield its events; leaving early cancels it.

        `job_of(deliver, fail)` makes the job around the two callables it reports to.
        """
        home = asyncio.get_running_loop()
        mailbox = _Mailbox()

        def fail(error: BaseException) -> None:
            self._flush()  # what was delivered before the failure arrives before it
            self._hand_over([(home, mailbox, [error])])

        job = job_of(lambda events: self._collect(home, mailbox, events), fail)
        self._loop.submit(job)
        finished = False
        try:
            while not finished:
                await mailbox.filled.wait()
                mailbox.filled.clear()
                if len(mailbox.items) > MAX_UNREAD:
                    raise Overloaded(f"the reader fell {len(mailbox.items)} events behind; read faster or ask for less")
                while mailbox.items:
                    item = mailbox.items.popleft()
                    if isinstance(item, BaseException):
                        finished = True
                        raise item
                    finished = isinstance(item, Done)
                    yield item
        finally:
            if not finished:
                self._loop.cancel(job.request.id)

    def _collect(self, home: asyncio.AbstractEventLoop, mailbox: _Mailbox, events: list[AnswerEvent]) -> None:
        with self._lock:
            self._pending.append((home, mailbox, list(events)))

    def _flush(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        if pending:
            self._hand_over(pending)

    @staticmethod
    def _hand_over(pending: list[tuple[asyncio.AbstractEventLoop, _Mailbox, list[_Item]]]) -> None:
        homes: dict[asyncio.AbstractEventLoop, list[tuple[_Mailbox, list[_Item]]]] = {}
        for home, mailbox, items in pending:
            homes.setdefault(home, []).append((mailbox, items))
        for home, parcels in homes.items():
            try:
                home.call_soon_threadsafe(_open, parcels)
            except RuntimeError:  # the event loop closed: nobody is left to read
                continue


def _open(parcels: list[tuple[_Mailbox, list[_Item]]]) -> None:
    for mailbox, items in parcels:
        mailbox.put(items)
