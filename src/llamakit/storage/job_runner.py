"""Does jobs: takes them from their rows, sees each to an end, and takes up those whose process died.

A running job's row is touched every heartbeat. A runner that sees a row untouched for the lease, by its own
monotonic clock, puts it back into the queue; no wall clock is compared, so clock steps free or hold nothing. Where
the runners share a machine, a roll of those at work tells it at once. A job ends when what allowed it has ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from llamakit.core.errors import InvalidRequest, LlamakitError
from llamakit.core.faults import fault
from llamakit.storage.jobs import ALLOWED_BY, Job, JobContext, JobQueue, State
from llamakit.storage.roll import Roll
from llamakit.storage.sql import Database, Row, Statement

log = logging.getLogger(__name__)


Handler = Callable[[JobContext], Awaitable[Any]]
"""Does one job and returns its result (JSON). It may run again from the start, or from `progress`, after a crash."""


Refused = Callable[[JobContext, str], Awaitable[None]]
"""Ends what a job works on because it is no longer allowed, with the reason; the handler was stopped or never ran."""


async def _none_ended(permissions: Collection[str]) -> set[str]:
    return set()


@dataclass(frozen=True, kw_only=True, slots=True)
class Permissions:
    """Whether what allowed a job still does."""

    ended: Callable[[Collection[str]], Awaitable[set[str]]] = _none_ended
    """Which of these have ended."""
    refused: Mapping[str, Refused] = field(default_factory=dict)
    """Who ends what jobs of a kind work on; jobs of other kinds, such as cleaning up, run in any case."""
    reason: str = "what allowed this has ended"


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
        permissions: Permissions | None = None,
        roll: Roll | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._queue = queue
        self._handlers = handlers  # may grow while the runner runs
        self._settings = settings or RunnerSettings()
        self._permissions = permissions or Permissions()
        self._roll = roll
        self._clock = clock
        self._worker = secrets.token_hex(16)
        self._tasks: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._refusing: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Take and do jobs until cancelled; then the running ones are stopped and left for the next start."""
        with nullcontext() if self._roll is None else self._roll.present(self._worker):
            await self._run()

    async def _run(self) -> None:
        self._queue.listen(self._wake.set)
        beats = asyncio.create_task(self._keep_alive())
        try:
            while True:
                self._wake.clear()
                await self._survived(self._stop_lost())
                await self._survived(self._stop_refused())
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
        except Exception as error:
            log.error("jobs wait: a turn broke", exc_info=error)

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
        gone = set() if self._roll is None else self._roll.gone()  # before the rows: what they name now may go later
        rows = await self._database.fetch("SELECT id, kind, attempts, beats, worker FROM jobs WHERE state = 'running'")
        now = self._clock()
        seen, dead = dict[str, tuple[int, int, float]](), list[str]()
        for row in rows:
            if row["id"] in self._tasks or row["kind"] not in self._handlers:
                continue
            mark = (row["attempts"], row["beats"])
            before = self._seen.get(row["id"])
            since = before[2] if before is not None and before[:2] == mark else now
            seen[row["id"]] = (*mark, since)
            if row["worker"] in gone or now - since >= self._settings.lease_s:
                dead.append(row["id"])
        self._seen = seen
        for id in dead:
            log.warning("job %s waits again: the process that ran it is gone", id)
        if dead:
            await self._database.run(*(_freeing(id, *seen[id][:2]) for id in dead))
            self._wake.set()
        if self._roll is not None:
            self._roll.forget(gone - {row["worker"] for row in rows})

    def _start(self, row: Row) -> None:
        job = Job.of(row)
        task = asyncio.create_task(self._do(job), name=f"job {job.id}")
        self._tasks[job.id] = (job, task)
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
        ALLOWED_BY.set(job.permission)
        try:
            if await self._has_ended([job]):
                await self._refuse(context)
                return
            result = await self._handlers[job.kind](context)
            fault("jobs.before_done")
            await self._finish(job, "done", result=result)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if job.id not in self._refusing or task is None or task.uncancel():
                raise
            await self._survived(self._refuse(context))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes the job's reason
            await self._survived(self._failed(job, error))
        finally:
            self._refusing.discard(job.id)

    async def _has_ended(self, jobs: Collection[Job]) -> set[str]:
        """Ids of those jobs whose permission has ended."""
        asked = {job.id: job.permission for job in jobs if job.permission and job.kind in self._permissions.refused}
        if not asked:
            return set()
        ended = await self._permissions.ended({name for name in asked.values() if name is not None})
        return {id for id, name in asked.items() if name in ended}

    async def _stop_refused(self) -> None:
        """Stop the tasks of jobs that are no longer allowed; each is ended with the reason then."""
        for id in await self._has_ended([job for job, _ in self._tasks.values()]):
            if id in self._tasks and id not in self._refusing:
                self._refusing.add(id)
                self._tasks[id][1].cancel()

    async def _refuse(self, context: JobContext) -> None:
        """End the job, and before it what it works on."""
        job, reason = context.job, self._permissions.reason
        # A write that was on its way when the task was stopped is behind us once this one is.
        await context.save(context.progress)
        await self._permissions.refused[job.kind](context, reason)
        await self._finish(job, "failed", error=reason)

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
        for id, (job, task) in tasks.items():
            if (id, job.attempts) not in ours:
                task.cancel()

    async def _give_back(self) -> None:
        """On an orderly stop the jobs go back at once, and the attempt does not count."""
        await self._database.execute(
            "UPDATE jobs SET state = 'queued', attempts = attempts - 1, worker = NULL "
            "WHERE worker = ?1 AND state = 'running'",
            self._worker,
        )


def _freeing(id: str, attempts: int, beats: int) -> Statement:
    """Without effect where the row was touched since it was seen."""
    return Statement(
        "UPDATE jobs SET state = 'queued', worker = NULL, beats = beats + 1 "
        "WHERE id = ?1 AND attempts = ?2 AND beats = ?3 AND state = 'running'",
        (id, attempts, beats),
    )
