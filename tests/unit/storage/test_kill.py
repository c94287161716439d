"""kill -9 at random instants: nothing acknowledged is lost, nothing unacknowledged is half there."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamakit.storage.blobs import BlobStore
from llamakit.storage.job_runner import JobRunner, RunnerSettings
from llamakit.storage.jobs import JobQueue
from llamakit.storage.sqlite import SqliteDatabase

_WRITER = """
import asyncio, hashlib, os, sys
from llamakit.storage.blobs import BlobStore
from llamakit.storage.ids import FILE
from llamakit.storage.job_runner import JobRunner, RunnerSettings
from llamakit.storage.jobs import JobQueue, add_permissions, create_jobs
from llamakit.storage.migrations import migrate
from llamakit.storage.sqlite import SqliteDatabase
from llamakit.storage.tables import Table, create_owned
from pathlib import Path

FILES = Table("files", ("digest", "size"), ids=FILE)

async def create_files(transaction):
    for sql in create_owned("files", "digest TEXT NOT NULL", "size BIGINT NOT NULL"):
        await transaction.execute(sql)
    await transaction.execute("CREATE TABLE pairs (k TEXT NOT NULL, side BIGINT NOT NULL)")

def tell(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def count(context):
    for n in range(context.progress or 0, 5):
        await asyncio.sleep(0.01)
        await context.save(n + 1)
    return context.job.payload

async def write(root, database, store, queue, worker):
    owner = f"owner{worker % 3}"
    while True:
        content = os.urandom(2000)
        blob = await store.put(content, limit=4000)
        id = FILE.new()
        await FILES.of(database, owner).insert(id, {"digest": blob.digest, "size": blob.size})
        tell("file", owner, id, blob.digest)
        key = os.urandom(8).hex()
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO pairs VALUES (?1, 0)", key)
            await transaction.execute("INSERT INTO pairs VALUES (?1, 1)", key)
        tell("pair", key)
        tell("job", owner, await queue.enqueue(owner, "count", worker))

async def main():
    root = Path(sys.argv[1])
    database = await SqliteDatabase.open(root / "main.db")
    await migrate(database, [create_jobs, add_permissions, create_files])
    store = BlobStore(root / "blobs")
    queue = JobQueue(database)
    runner = JobRunner(database, queue, {"count": count}, RunnerSettings(heartbeat_s=0.1, lease_s=0.5, poll_s=0.1))
    tell("ready")
    await asyncio.gather(runner.run(), *(write(root, database, store, queue, n) for n in range(6)))

asyncio.run(main())
"""


def _one_life(root: Path, life_s: float) -> list[list[str]]:
    """Run a writer, kill it `life_s` after it is ready; the lines it had acknowledged."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(root)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(life_s)
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read()
    writer.stdout.close()
    writer.wait()
    lines = rest.split(b"\n")
    return [line.decode().split() for line in lines[:-1]]  # the last line is empty or torn


async def _check(root: Path, acknowledged: list[list[str]]) -> None:
    with sqlite3.connect(root / "main.db") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
    database = await SqliteDatabase.open(root / "main.db")
    store = BlobStore(root / "blobs")
    files = {(row["owner"], row["id"]): row["digest"] for row in await database.fetch("SELECT * FROM files")}
    pairs = await database.fetch("SELECT k, count(*) AS n FROM pairs GROUP BY k")
    jobs = {(row["owner"], row["id"]) for row in await database.fetch("SELECT owner, id FROM jobs")}
    whole = {row["k"] for row in pairs if row["n"] == 2}
    assert len(whole) == len(pairs), "a transaction is half there"
    for kind, *words in acknowledged:
        if kind == "file":
            assert files[words[0], words[1]] == words[2]
        elif kind == "pair":
            assert words[0] in whole
        else:
            assert (words[0], words[1]) in jobs
    for digest in set(files.values()):
        assert store.has(digest), "a row has no blob"
    await database.close()


async def _finish_jobs(root: Path) -> None:
    """No job hangs on a dead process 5 s after a start, and all are done in the end."""
    database = await SqliteDatabase.open(root / "main.db")
    dead = {row["worker"] for row in await database.fetch("SELECT worker FROM jobs WHERE state = 'running'")}

    async def count(context) -> None:
        await context.save(5)

    runner = JobRunner(database, JobQueue(database), {"count": count}, RunnerSettings(concurrency=64))
    started = time.monotonic()
    task = asyncio.create_task(runner.run())
    while rows := await database.fetch("SELECT state, worker FROM jobs WHERE state IN ('queued', 'running')"):
        if time.monotonic() - started > 5:
            assert not {row["worker"] for row in rows if row["state"] == "running"} & dead
        assert time.monotonic() - started < 300
        await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await database.fetch("SELECT id FROM jobs WHERE state <> 'done'") == []
    await database.close()


async def _survive(root: Path, cycles: int, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: list[list[str]] = []
    for _ in range(cycles):
        acknowledged += await asyncio.to_thread(_one_life, root, chance.uniform(0.0, 0.25))
        await _check(root, acknowledged)
    kinds = {line[0] for line in acknowledged}
    assert kinds == {"file", "pair", "job"}, f"the writers got nowhere: {len(acknowledged)} acknowledged"
    await _finish_jobs(root)


async def test_no_acknowledged_write_is_lost_over_20_kills(tmp_path: Path):
    await _survive(tmp_path, cycles=20, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_no_acknowledged_write_is_lost_over_200_kills(tmp_path: Path):
    await _survive(tmp_path, cycles=200, seed=2)
