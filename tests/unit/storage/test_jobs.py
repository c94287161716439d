import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from llamakit.core.errors import Conflict, InvalidRequest, NotFound, StorageError, StorageFull
from llamakit.core.faults import injected
from llamakit.storage.job_runner import Handler, JobRunner, Permissions, RunnerSettings
from llamakit.storage.jobs import ALLOWED_BY, Job, JobContext, JobQueue, add_permissions, create_jobs
from llamakit.storage.migrations import migrate
from llamakit.storage.roll import Roll
from llamakit.storage.sql import Database

FAST = RunnerSettings(concurrency=4, heartbeat_s=0.03, lease_s=0.2, poll_s=0.03, retry_s=0.01)


@pytest.fixture
async def jobs(database: Database) -> Database:
    await migrate(database, [create_jobs, add_permissions])
    return database


@asynccontextmanager
async def running(
    database: Database,
    queue: JobQueue,
    permissions: Permissions | None = None,
    roll: Roll | None = None,
    settings: RunnerSettings = FAST,
    **handlers: Handler,
) -> AsyncIterator[JobRunner]:
    runner = JobRunner(database, queue, handlers, settings, permissions=permissions, roll=roll)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(queue: JobQueue, id: str, owner: str = "ann") -> Job:
    async with asyncio.timeout(10):
        while (job := await queue.get(owner, id)).state in ("queued", "running"):
            await asyncio.sleep(0.01)
        return job


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def double(context: JobContext) -> int:
    return context.job.payload * 2


async def test_jobs_run_to_their_results(jobs: Database):
    queue = JobQueue(jobs)
    ids = [await queue.enqueue("ann", "double", n) for n in range(20)]
    async with running(jobs, queue, double=double):
        results = [(await ended(queue, id)).result for id in ids]
    assert results == [2 * n for n in range(20)]


async def test_two_runners_never_share_a_job(jobs: Database):
    queue = JobQueue(jobs)
    started: list[str] = []

    async def note(context: JobContext) -> None:
        started.append(context.job.id)
        await asyncio.sleep(0.005)

    ids = [await queue.enqueue("ann", "note", None) for _ in range(30)]
    async with running(jobs, queue, note=note), running(jobs, queue, note=note):
        for id in ids:
            assert (await ended(queue, id)).state == "done"
    assert sorted(started) == sorted(ids)


async def test_a_job_belongs_to_who_enqueued_it(jobs: Database):
    queue = JobQueue(jobs)
    seen = {}

    async def note(context: JobContext) -> None:
        seen[context.job.id] = context.job.owner

    ids = {await queue.enqueue(f"owner{n % 5}", "note", None): f"owner{n % 5}" for n in range(40)}
    async with running(jobs, queue, note=note):
        for id, owner in ids.items():
            await ended(queue, id, owner)
            with pytest.raises(NotFound):
                await queue.get("somebody", id)
            with pytest.raises(NotFound):
                await queue.cancel("somebody", id)
    assert seen == ids


async def test_the_job_of_a_dead_process_is_taken_up_with_its_progress(jobs: Database):
    queue = JobQueue(jobs)
    id = await queue.enqueue("ann", "count", None)
    # What a kill -9 leaves: a running row nobody touches, with the progress it had saved.
    await jobs.execute("UPDATE jobs SET state = 'running', attempts = 1, beats = 7, worker = 'gone', progress = '41'")

    async def count(context: JobContext) -> int:
        await context.save(context.progress + 1)
        return context.progress

    async with running(jobs, queue, count=count):
        job = await ended(queue, id)
    assert (job.state, job.result, job.attempts) == ("done", 42, 2)


async def test_a_long_queue_does_not_keep_a_dead_processs_job_waiting(jobs: Database):
    queue = JobQueue(jobs)
    id = await queue.enqueue("ann", "short", None)
    await jobs.execute("UPDATE jobs SET state = 'running', attempts = 1, beats = 7, worker = 'gone'")

    async def short(context: JobContext) -> None:
        await asyncio.sleep(0.02)

    await jobs.run(*(queue.enqueueing("ann", "short", None)[1] for _ in range(400)))
    async with running(jobs, queue, short=short):
        assert (await ended(queue, id)).state == "done"
        waiting = await jobs.fetch("SELECT id FROM jobs WHERE state = 'queued'")
    assert waiting, "it was done only when nothing else was left"


async def test_a_slow_job_that_shows_life_is_left_alone(jobs: Database):
    queue = JobQueue(jobs)
    starts = 0

    async def slow(context: JobContext) -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(0.8)

    id = await queue.enqueue("ann", "slow", None)
    async with running(jobs, queue, slow=slow), running(jobs, queue, slow=slow):
        job = await ended(queue, id)
    assert (job.state, job.attempts, starts) == ("done", 1, 1)


async def test_who_lost_a_job_cannot_write_to_it(jobs: Database):
    queue = JobQueue(jobs)
    saved: list[object] = []
    lost = asyncio.Event()

    async def robbed(context: JobContext) -> str:
        await jobs.execute("UPDATE jobs SET attempts = attempts + 1, worker = 'other'")
        try:
            await context.save("mine")
        except Conflict as error:
            saved.append(error)
            lost.set()
        return "stolen result"

    id = await queue.enqueue("ann", "robbed", None)
    async with running(jobs, queue, robbed=robbed):
        await asyncio.wait_for(lost.wait(), 5)
        await asyncio.sleep(0.05)
        job = await queue.get("ann", id)
    assert len(saved) == 1
    assert (job.state, job.progress, job.result) == ("running", None, None)


async def test_failures_are_tried_again_then_told(jobs: Database):
    queue = JobQueue(jobs)
    tries = {"flaky": 0, "broken": 0, "wrong": 0}

    async def flaky(context: JobContext) -> str:
        tries["flaky"] += 1
        if tries["flaky"] < 3:
            raise ConnectionError("the other side hung up")
        return "at last"

    async def broken(context: JobContext) -> None:
        tries["broken"] += 1
        raise StorageFull("no room")

    async def wrong(context: JobContext) -> None:
        tries["wrong"] += 1
        raise InvalidRequest("the file is no JSONL")

    ids = {kind: await queue.enqueue("ann", kind, None) for kind in tries}
    async with running(jobs, queue, flaky=flaky, broken=broken, wrong=wrong):
        found = {kind: await ended(queue, id) for kind, id in ids.items()}
    assert (found["flaky"].state, found["flaky"].result, tries["flaky"]) == ("done", "at last", 3)
    assert (found["broken"].state, found["broken"].error, tries["broken"]) == ("failed", "no room", 3)
    assert (found["wrong"].state, found["wrong"].error, tries["wrong"]) == ("failed", "the file is no JSONL", 1)


async def test_a_job_that_kills_its_process_is_given_up(jobs: Database):
    queue = JobQueue(jobs)
    id = await queue.enqueue("ann", "deadly", None)
    await jobs.execute("UPDATE jobs SET state = 'running', attempts = 3, beats = 3, worker = 'gone'")

    async def deadly(context: JobContext) -> None:
        raise AssertionError("must not run a fourth time")

    async with running(jobs, queue, deadly=deadly):
        job = await ended(queue, id)
    assert job.state == "failed" and "given up after 3" in (job.error or "")


async def test_cancelling_stops_the_handler(jobs: Database):
    queue = JobQueue(jobs)
    started, stopped = asyncio.Event(), asyncio.Event()

    async def endless(context: JobContext) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    id = await queue.enqueue("ann", "endless", None)
    async with running(jobs, queue, endless=endless):
        await asyncio.wait_for(started.wait(), 5)
        assert await queue.cancel("ann", id)
        await asyncio.wait_for(stopped.wait(), 5)
        assert not await queue.cancel("ann", id)
    assert (await queue.get("ann", id)).state == "cancelled"


async def test_an_orderly_stop_gives_jobs_back_at_once(jobs: Database):
    queue = JobQueue(jobs)
    started = asyncio.Event()

    async def endless(context: JobContext) -> None:
        started.set()
        await asyncio.sleep(3600)

    id = await queue.enqueue("ann", "endless", None)
    async with running(jobs, queue, endless=endless):
        await asyncio.wait_for(started.wait(), 5)
    job = await queue.get("ann", id)
    assert (job.state, job.attempts) == ("queued", 0)


async def test_a_result_the_disk_refused_is_not_lost_for_ever(jobs: Database):
    queue = JobQueue(jobs)
    failures = iter([True, True, False, False, False])

    def disk() -> None:
        if next(failures, False):
            raise StorageFull("no room")

    id = await queue.enqueue("ann", "double", 21)
    with injected("jobs.before_done", disk):
        async with running(jobs, queue, double=double):
            job = await ended(queue, id)
    assert (job.state, job.result, job.attempts) == ("done", 42, 3)


async def test_unknown_kinds_wait_for_who_knows_them(jobs: Database):
    queue = JobQueue(jobs)
    id = await queue.enqueue("ann", "other", None)
    async with running(jobs, queue, double=double):
        await asyncio.sleep(0.1)
    assert (await queue.get("ann", id)).state == "queued"


async def test_a_job_ends_when_what_allowed_it_has_ended(jobs: Database):
    queue, ended_keys, told, begun = JobQueue(jobs), {"old"}, list[tuple[str, str]](), list[str]()
    is_running = asyncio.Event()

    async def work(context: JobContext) -> None:
        begun.append(context.job.payload)
        assert ALLOWED_BY.get() == context.job.permission, "what it enqueues is allowed by the same"
        if context.job.payload == "long":
            is_running.set()
            await asyncio.sleep(3600)

    async def refused(context: JobContext, reason: str) -> None:
        told.append((context.job.payload, reason))

    async def ended_of(names):
        return set(names) & ended_keys

    async def enqueue(kind: str, payload: str, key: str | None) -> str:
        token = ALLOWED_BY.set(key)
        try:
            return await queue.enqueue("ann", kind, payload)
        finally:
            ALLOWED_BY.reset(token)

    late, cleaning = await enqueue("work", "late", "old"), await enqueue("clean", "clean", "old")
    long, anybody = await enqueue("work", "long", "new"), await enqueue("work", "anybody", None)
    permissions = Permissions(ended=ended_of, refused={"work": refused}, reason="the key has ended")
    async with running(jobs, queue, permissions, work=work, clean=work):
        assert (await ended(queue, cleaning)).state == (await ended(queue, anybody)).state == "done"
        await asyncio.wait_for(is_running.wait(), 5)
        ended_keys.add("new")
        for id in (late, long):
            job = await ended(queue, id)
            assert (job.state, job.error) == ("failed", "the key has ended")
    assert "late" not in begun and sorted(told) == [("late", "the key has ended"), ("long", "the key has ended")]


async def test_who_is_gone_is_known_at_once_where_a_roll_is_kept(jobs: Database, tmp_path):
    queue, roll = JobQueue(jobs), Roll(tmp_path / "workers")
    id = await queue.enqueue("ann", "double", 4)
    await jobs.execute("UPDATE jobs SET state = 'running', attempts = 1, beats = 7, worker = 'gone'")
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "gone").touch()
    patient = RunnerSettings(poll_s=0.03, heartbeat_s=0.03, lease_s=3600)
    async with running(jobs, queue, roll=roll, settings=patient, double=double):
        job = await ended(queue, id)
        assert (job.state, job.result, job.attempts) == ("done", 8, 2)

        async def is_forgotten() -> bool:
            return len(os.listdir(tmp_path / "workers")) == 1

        await until(is_forgotten)
    assert os.listdir(tmp_path / "workers") == []


async def test_who_is_on_the_roll_is_not_gone(jobs: Database, tmp_path):
    queue, roll = JobQueue(jobs), Roll(tmp_path / "workers")
    starts = 0

    async def slow(context: JobContext) -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(0.3)

    ids = [await queue.enqueue("ann", "slow", None) for _ in range(6)]
    async with running(jobs, queue, roll=roll, slow=slow), running(jobs, queue, roll=roll, slow=slow):
        for id in ids:
            assert (await ended(queue, id)).attempts == 1
    assert starts == 6


async def test_a_turn_that_breaks_does_not_end_the_runner(jobs: Database, monkeypatch, caplog):
    queue, fetch, broken = JobQueue(jobs), jobs.fetch, [ZeroDivisionError("a bug"), StorageError("away")]

    async def failing(sql, *args):
        if "'running'" in sql and broken:
            raise broken.pop()
        return await fetch(sql, *args)

    monkeypatch.setattr(jobs, "fetch", failing)
    async with running(jobs, queue, double=double):
        while broken:
            await asyncio.sleep(0.01)
        assert (await ended(queue, await queue.enqueue("ann", "double", 2))).result == 4
    assert "a turn broke" in caplog.text and "jobs wait: away" in caplog.text


def test_a_roll_that_cannot_be_written_holds_nobody_up(tmp_path, caplog):
    (tmp_path / "workers").touch()
    with caplog.at_level("WARNING"), Roll(tmp_path / "workers").present("me"):
        assert "cannot be shown" in caplog.text
