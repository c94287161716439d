"""Work that outlives its process: jobs are rows, put in, asked after and cancelled. `job_runner` does them.

Each taking of a job raises its `attempts`, and every later write demands that number, so a runner that was only slow
cannot overwrite its successor. The owner is fixed when the job is enqueued, and so is what allowed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.core.errors import Conflict
from llamakit.storage.ids import JOB
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

State = Literal["queued", "running", "done", "failed", "cancelled"]

JOBS = Table(
    "jobs",
    ("kind", "state", "payload", "progress", "result", "error", "attempts", "beats", "worker", "permission"),
    ids=JOB,
)
ALLOWED_BY: ContextVar[str | None] = ContextVar("llamakit permission", default=None)
"""What lets in whoever enqueues now, such as the id of a key: kept with the job. None needs nobody's permission.

A job that enqueues others hands its own on.
"""


async def create_jobs(transaction: Executor) -> None:
    """The migration that makes the table of jobs."""
    for sql in create_owned(
        "jobs",
        "kind TEXT NOT NULL",
        "state TEXT NOT NULL",
        "payload TEXT NOT NULL",
        "progress TEXT",
        "result TEXT",
        "error TEXT",
        "attempts BIGINT NOT NULL",
        "beats BIGINT NOT NULL",
        "worker TEXT",
    ):
        await transaction.execute(sql)
    await transaction.execute("CREATE INDEX jobs_by_state ON jobs (state, created_ns)")


async def add_permissions(transaction: Executor) -> None:
    """The migration that lets a job name what allowed it."""
    await transaction.execute("ALTER TABLE jobs ADD COLUMN permission TEXT")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in its row."""

    id: str
    owner: str
    kind: str
    state: State
    payload: Any
    progress: Any
    """What the handler last saved, or None."""
    result: Any
    error: str | None
    attempts: int
    permission: str | None
    """What allowed it, as `ALLOWED_BY` was when it was enqueued."""

    @classmethod
    def of(cls, row: Row) -> Job:
        """The job of a row."""
        loaded = {name: None if row[name] is None else json.loads(row[name]) for name in ("progress", "result")}
        return cls(
            id=row["id"],
            owner=row["owner"],
            kind=row["kind"],
            state=row["state"],
            payload=json.loads(row["payload"]),
            error=row["error"],
            attempts=row["attempts"],
            permission=row["permission"],
            **loaded,
        )


class JobQueue:
    """Puts jobs in, asks after them, cancels them. Knows no handler."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[], None]] = []

    def enqueueing(self, owner: str, kind: str, payload: Any, *, id: str | None = None) -> tuple[str, Statement]:
        """The id and the statement, to be run in one batch with the rows the job works on; call `announce` after."""
        id = id or JOB.new()
        row = {"kind": kind, "state": "queued", "payload": json.dumps(payload), "attempts": 0, "beats": 0}
        row["permission"] = ALLOWED_BY.get()
        return id, JOBS.of(self._database, owner).inserting(id, row)

    async def enqueue(self, owner: str, kind: str, payload: Any) -> str:
        """Add a job; once this returns it will run, whatever happens to this process."""
        id, statement = self.enqueueing(owner, kind, payload)
        await self._database.run(statement)
        self.announce()
        return id

    async def get(self, owner: str, id: str) -> Job:
        """The job, or `NotFound`."""
        return Job.of(await JOBS.of(self._database, owner).get(id))

    async def cancel(self, owner: str, id: str) -> bool:
        """End a queued or running job; False when it had ended already. A running handler is stopped."""
        await self.get(owner, id)
        count = await self._database.execute(
            "UPDATE jobs SET state = 'cancelled' WHERE owner = ?1 AND id = ?2 AND state IN ('queued', 'running')",
            owner,
            id,
        )
        self.announce()
        return count == 1

    def announce(self) -> None:
        """Tell this process's runners to look now instead of at their next turn."""
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` on every announcement."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """No longer call it."""
        self._listeners.remove(listener)


class JobContext:
    """What a handler may know and do while its job runs."""

    def __init__(self, job: Job, database: Database) -> None:
        self.job = job
        self.progress: Any = job.progress
        self._database = database

    async def save(self, progress: Any) -> None:
        """Keep `progress` (JSON) for whoever takes the job up after a crash; `Conflict` once the job is not ours."""
        await self._database.run(self.saving(progress))
        self.progress = progress

    def saving(self, progress: Any) -> Statement:
        """The same as a statement, so that progress and the work it stands for commit together."""
        return Statement(
            "UPDATE jobs SET progress = ?1 WHERE id = ?2 AND owner = ?3 AND attempts = ?4 AND state = 'running'",
            (json.dumps(progress), self.job.id, self.job.owner, self.job.attempts),
            expect=1,
            otherwise=Conflict(f"job {self.job.id} was cancelled or taken up by another process"),
        )
