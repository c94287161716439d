"""Work that outlives its process: jobs are rows, and a job whose process died is taken up by another.

A running job's row is touched every heartbeat. A runner that sees a row untouched for the lease, by
its own monotonic clock, puts it back into the queue; no wall clock is compared, so clock steps free
or hold nothing. Each taking raises `attempts`, and every later write demands that number, so a runner that
was only slow cannot overwrite its successor. The owner is fixed when the job is enqueued.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.core.errors import Conflict, InvalidRequest, LlamakitError
from llamakit.core.faults import fault
from llamakit.storage.ids import JOB
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]

JOBS = Table(
    "jobs", ("kind", "state", "payload", "progress", "result", "error", "attempts", "beats", "worker"), ids=JOB
)


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


def _freeing(id: str, attempts: int, beats: int) -> Statement:
    """Without effect where the row was touched since it was seen."""
    return Statement(
        "UPDATE jobs SET state = 'queued', worker = NULL, beats = beats + 1 "
        "WHERE id = ?1 AND attempts = ?2 AND beats = ?3 AND state = 'running'",
        (id, attempts, beats),
    )


Handler = Callable[[JobContext], Awaitable[Any]]
"""Does one job and returns its result (JSON). It may run again from the start, or from `progress`, after a crash."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """How eagerly jobs are taken and given up."""

    concurrency: int = 4
    """Jobs that run at once in this process."""
    heartbeat_s: float = 1.0
    lease_s: float = 3.0
    """A running job untouched for this long belongs to a dead process."""
    poll_s: float = 0.5
    """How often other processes' new jobs and dead processes are looked for."""
    max_attempts: int = 3
    """Takings after which a job that keeps failing, or killing its process, is failed for good."""
    retry_s: float = 0.5
    """Pause before the second attempt; doubles each time."""


class JobRunner:
    """Takes jobs of the kinds it has handlers for and sees each to an end. Run it as a task; cancel to stop."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        handlers: Mapping[str, Handler],
        settings: RunnerSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._queue = queue
        self._handlers = handlers  # may grow while the runner runs
        self._settings = settings or RunnerSettings()
        self._clock = clock
        self._worker = secrets.token_hex(16)
        self._tasks: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Take and do jobs until cancelled; then the running ones are stopped and left for the next start."""
        self._queue.listen(self._wake.set)
        beats = asyncio.create_task(self._keep_alive())
        try:
            while True:
                self._wake.clear()
                await self._survived(self._stop_lost())
                await self._survived(self._take_all())
                await self._survived(self._free_dead())
                await self._rest()
        finally:
            self._queue.unlisten(self._wake.set)
            tasks = [beats, *(task for _, task in self._tasks.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._survived(self._give_back())

    async def _rest(self) -> None:
        """Until something is announced, at most one poll. (`wait_for` would lose a cancellation before 3.12.)"""
        try:
            async with asyncio.timeout(self._settings.poll_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _survived(self, turn: Awaitable[None]) -> None:
        """A disk that refuses now may serve later: a turn that fails is told and the next one tried."""
        try:
            await turn
        except LlamakitError as error:
            log.warning("jobs wait: %s", error)

    async def _take_all(self) -> None:
        """Fill the places that are free now; those that come free meanwhile have to wait for the next turn,
        or a long queue of short jobs would keep the runner from everything else."""
        for _ in range(self._settings.concurrency - len(self._tasks)):
            row = await self._take_queued()
            if row is None:
                return
            self._start(row)

    async def _take_queued(self) -> Row | None:
        kinds = ", ".join(f"?{n}" for n in range(2, 2 + len(self._handlers)))
        # `=` and not IN: PostgreSQL may run the inner SELECT of an IN once a row, and take several jobs.
        skip = " FOR UPDATE SKIP LOCKED" if self._database.dialect == "postgres" else ""
        outcome = await self._database.run(
            Statement(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, beats = beats + 1, worker = ?1 "
                "WHERE state = 'queued' AND (owner, id) = (SELECT owner, id FROM jobs WHERE state = 'queued' "
                f"AND kind IN ({kinds}) ORDER BY created_ns LIMIT 1{skip}) RETURNING *",
                (self._worker, *self._handlers),
            )
        )
        rows = outcome[0].rows
        return rows[0] if rows else None

    async def _free_dead(self) -> None:
        """Put the jobs of dead processes back into the queue; the oldest come first there."""
        kinds = ", ".join(f"?{n}" for n in range(1, 1 + len(self._handlers)))
        rows = await self._database.fetch(
            f"SELECT id, attempts, beats FROM jobs WHERE state = 'running' AND kind IN ({kinds})", *self._handlers
        )
        now = self._clock()
        seen = {}
        for row in rows:
            if row["id"] in self._tasks:
                continue
            mark = (row["attempts"], row["beats"])
            before = self._seen.get(row["id"])
            since = before[2] if before is not None and before[:2] == mark else now
            seen[row["id"]] = (*mark, since)
        self._seen = seen
        dead = [(id, mark) for id, mark in seen.items() if now - mark[2] >= self._settings.lease_s]
        for id, _ in dead:
            log.warning("job %s waits again: the process that ran it is gone", id)
        if dead:
            await self._database.run(*(_freeing(id, attempts, beats) for id, (attempts, beats, _) in dead))
            self._wake.set()

    def _start(self, row: Row) -> None:
        job = Job.of(row)
        task = asyncio.create_task(self._do(job), name=f"job {job.id}")
        self._tasks[job.id] = (job.attempts, task)
        task.add_done_callback(lambda _: self._ended(job.id))

    def _ended(self, id: str) -> None:
        self._tasks.pop(id, None)
        self._wake.set()

    async def _do(self, job: Job) -> None:
        if job.attempts > self._settings.max_attempts:
            reason = f"given up after {self._settings.max_attempts} attempts: each ended its process"
            await self._survived(self._finish(job, "failed", error=reason))
            return
        context = JobContext(job, self._database)
        try:
            result = await self._handlers[job.kind](context)
            fault("jobs.before_done")
            await self._finish(job, "done", result=result)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes the job's reason
            await self._survived(self._failed(job, error))

    async def _failed(self, job: Job, error: Exception) -> None:
        """Try again later, or end it with the reason; without effect where the row is no longer ours."""
        if not isinstance(error, LlamakitError):
            log.error("job %s (%s) broke", job.id, job.kind, exc_info=error)
        reason = str(error) or type(error).__name__
        final = isinstance(error, InvalidRequest) or job.attempts >= self._settings.max_attempts
        if final:
            await self._finish(job, "failed", error=reason)
            return
        await asyncio.sleep(self._settings.retry_s * 2 ** (job.attempts - 1))
        await self._database.execute(
            "UPDATE jobs SET state = 'queued', error = ?1 "
            "WHERE id = ?2 AND owner = ?3 AND attempts = ?4 AND state = 'running'",
            reason,
            job.id,
            job.owner,
            job.attempts,
        )

    async def _finish(self, job: Job, state: State, *, result: Any = None, error: str | None = None) -> None:
        await self._database.execute(
            "UPDATE jobs SET state = ?1, result = ?2, error = ?3, worker = NULL "
            "WHERE id = ?4 AND owner = ?5 AND attempts = ?6 AND state = 'running'",
            state,
            json.dumps(result),
            error,
            job.id,
            job.owner,
            job.attempts,
        )

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            if self._tasks:
                await self._survived(self._beat())

    async def _beat(self) -> None:
        """Touch the rows of the jobs that run here."""
        ids = list(self._tasks)
        numbers = ", ".join(f"?{n}" for n in range(2, 2 + len(ids)))
        await self._database.execute(
            f"UPDATE jobs SET beats = beats + 1 WHERE worker = ?1 AND state = 'running' AND id IN ({numbers})",
            self._worker,
            *ids,
        )

    async def _stop_lost(self) -> None:
        """Stop the tasks whose rows were cancelled or taken up by another process."""
        tasks = dict(self._tasks)
        if not tasks:
            return
        rows = await self._database.fetch(
            "SELECT id, attempts FROM jobs WHERE worker = ?1 AND state = 'running'", self._worker
        )
        ours = {(row["id"], row["attempts"]) for row in rows}
        for id, (attempts, task) in tasks.items():
            if (id, attempts) not in ours:
                task.cancel()

    async def _give_back(self) -> None:
        """On an orderly stop the jobs go back at once, and the attempt does not count."""
        await self._database.execute(
            "UPDATE jobs SET state = 'queued', attempts = attempts - 1, worker = NULL "
            "WHERE worker = ?1 AND state = 'running'",
            self._worker,
        )
