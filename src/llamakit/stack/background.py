"""Work that goes on without its client: handlers by kind, and the one runner of a server that calls them.

The runner starts with the server, so that what a dead process left is taken up at once, or within the lease where
servers share no machine; or with the first job where nobody started it. Work whose key was revoked or has
expired is not begun, and stopped where it runs.
"""

from __future__ import annotations

import asyncio
import contextlib

from llamakit.stack.keys import KeyBook
from llamakit.stack.storage import Storage
from llamakit.storage.job_runner import Handler, JobRunner, Permissions, Refused, RunnerSettings
from llamakit.storage.jobs import JobQueue
from llamakit.storage.roll import Roll

NEVER = 1_000_000
SETTINGS = RunnerSettings(concurrency=64, max_attempts=NEVER)
"""Handlers count attempts themselves, because what they work on must be told when there are no more."""
KEY_ENDED = "key_ended"
"""Code of the error of what was refused."""
REASON = "the API key that asked for this was revoked or has expired before it was done"


class Background:
    """The background work of one server."""

    def __init__(self, storage: Storage, settings: RunnerSettings = SETTINGS) -> None:
        self._storage = storage
        self._settings = settings
        self._handlers: dict[str, Handler] = {}
        self._refused: dict[str, Refused] = {}
        self._queue: JobQueue | None = None
        self._task: asyncio.Task[None] | None = None

    def handle(self, kind: str, handler: Handler, refused: Refused | None = None) -> None:
        """Let `handler` do the jobs of a kind, those that wait already among them.

        `refused` ends what a job works on whose key has ended; without it, jobs of the kind run in any case.
        """
        self._handlers[kind] = handler
        if refused is not None:
            self._refused[kind] = refused

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
            permissions = Permissions(ended=KeyBook(self._storage).ended, refused=self._refused, reason=REASON)
            roll = None if database.dialect == "postgres" else Roll(self._storage.folder("workers"))
            runner = JobRunner(
                database, self._queue, self._handlers, self._settings, permissions=permissions, roll=roll
            )
            self._task = asyncio.create_task(runner.run(), name="background work")

    async def aclose(self) -> None:
        """Stop the running jobs; they are taken up again at the next start."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
