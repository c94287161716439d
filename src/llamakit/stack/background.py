"""Work that goes on without its client: handlers by kind, and the one runner of a server that calls them.

The runner starts with the server, so that what a dead process left is taken up within the lease, or with
the first job where nobody started it.
"""

from __future__ import annotations

import asyncio
import contextlib

from llamakit.stack.storage import Storage
from llamakit.storage.jobs import Handler, JobQueue, JobRunner, RunnerSettings

NEVER = 1_000_000
SETTINGS = RunnerSettings(concurrency=64, max_attempts=NEVER)
"""Handlers count attempts themselves, because what they work on must be told when there are no more."""


class Background:
    """The background work of one server."""

    def __init__(self, storage: Storage, settings: RunnerSettings = SETTINGS) -> None:
        self._storage = storage
        self._settings = settings
        self._handlers: dict[str, Handler] = {}
        self._queue: JobQueue | None = None
        self._task: asyncio.Task[None] | None = None

    def handle(self, kind: str, handler: Handler) -> None:
        """Let `handler` do the jobs of a kind, those that wait already among them."""
        self._handlers[kind] = handler

    async def queue(self) -> JobQueue:
        """The queue of jobs, with a runner behind it."""
        await self.start()
        assert self._queue is not None, "a start makes the queue"
        return self._queue

    async def start(self) -> None:
        """Run jobs from now on, those of dead processes among them; a second call does nothing."""
        database = await self._storage.database()
        if self._queue is None:
            self._queue = JobQueue(database)
        if self._task is None or self._task.done():
            runner = JobRunner(database, self._queue, self._handlers, self._settings)
            self._task = asyncio.create_task(runner.run(), name="background work")

    async def aclose(self) -> None:
        """Stop the running jobs; they are taken up again at the next start."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
