import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llamakit.core.errors import Overloaded, StorageError, StorageReadOnly
from llamakit.core.faults import injected
from llamakit.storage.sql import Statement
from llamakit.storage.sqlite import SqliteDatabase

INSERT = "INSERT INTO t (k, v) VALUES (?1, ?2)"


@pytest.fixture
async def table(sqlite: SqliteDatabase) -> SqliteDatabase:
    await sqlite.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)")
    return sqlite


async def test_writes_that_wait_share_one_commit(table: SqliteDatabase):
    commits = []
    with injected("sqlite.before_commit", lambda: commits.append(1)):
        await asyncio.gather(*(table.execute(INSERT, n, "x") for n in range(200)))
    assert len(commits) < 100
    assert (await table.fetch("SELECT count(*) AS n FROM t"))[0]["n"] == 200


async def test_the_file_is_private_and_fully_synced(table: SqliteDatabase):
    assert stat.S_IMODE(table.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{table.path}-wal").stat().st_mode) == 0o600
    settings = [(await table.run(Statement(f"PRAGMA {name}")))[0].rows[0] for name in ("journal_mode", "synchronous")]
    assert settings == [{"journal_mode": "wal"}, {"synchronous": 2}]


async def test_readers_cannot_write(table: SqliteDatabase):
    with pytest.raises(StorageReadOnly):
        await table.fetch("DELETE FROM t")
    assert not table.is_read_only
    await table.execute(INSERT, 1, "x")


async def test_nothing_is_acknowledged_before_the_commit(table: SqliteDatabase):
    def break_off() -> None:
        raise OSError("the power went")

    with injected("sqlite.before_commit", break_off), pytest.raises(OSError, match="power"):
        await table.execute(INSERT, 1, "x")
    assert await table.fetch("SELECT * FROM t") == []
    await table.execute(INSERT, 1, "x")


async def test_a_write_cancelled_while_it_waits_is_not_made(table: SqliteDatabase):
    async with table.transaction():
        task = asyncio.create_task(table.execute(INSERT, 1, "x"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await table.execute(INSERT, 2, "x")
    assert await table.fetch("SELECT k FROM t") == [{"k": 2}]


async def test_a_transaction_that_idles_is_undone(tmp_path: Path):
    database = await SqliteDatabase.open(tmp_path / "idle.db", idle_s=0.05)
    await database.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)")
    with pytest.raises(StorageError, match="idled"):
        async with database.transaction() as transaction:
            await transaction.execute(INSERT, 1, "x")
            await asyncio.sleep(0.2)
            assert await asyncio.wait_for(database.execute(INSERT, 2, "x"), 5) == 1
            await transaction.execute(INSERT, 3, "x")
    assert await database.fetch("SELECT k FROM t") == [{"k": 2}]
    await database.close()


async def test_a_waiting_line_has_an_end(tmp_path: Path):
    database = await SqliteDatabase.open(tmp_path / "line.db", max_waiting=5)
    async with database.transaction():
        waiting = [asyncio.create_task(database.execute("SELECT 1")) for _ in range(20)]
        await asyncio.sleep(0.05)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 15
    await database.close()


async def test_another_process_that_holds_the_file_makes_us_wait_then_say_so(tmp_path: Path):
    database = await SqliteDatabase.open(tmp_path / "busy.db", busy_timeout_s=0.1)
    await database.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)")
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Overloaded, match="another process"):
        await database.execute(INSERT, 1, "x")
    other.execute("ROLLBACK")
    other.close()
    await database.execute(INSERT, 1, "x")
    await database.close()


async def test_two_databases_on_one_file_see_each_other(tmp_path: Path):
    first = await SqliteDatabase.open(tmp_path / "both.db")
    second = await SqliteDatabase.open(tmp_path / "both.db")
    await first.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)")
    await asyncio.gather(*((first, second)[n % 2].execute(INSERT, n, "x") for n in range(60)))
    assert (await second.fetch("SELECT count(*) AS n FROM t"))[0]["n"] == 60
    await first.close()
    await second.close()


async def test_a_closed_database_says_so(tmp_path: Path):
    database = await SqliteDatabase.open(tmp_path / "closed.db")
    await database.execute("CREATE TABLE t (k BIGINT)")
    last = [asyncio.create_task(database.execute("INSERT INTO t VALUES (?1)", n)) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*last) == [1] * 20
    with pytest.raises(StorageError, match="closed"):
        await database.execute("SELECT 1")
    await database.close()


async def test_what_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("not a database, " * 100)
    with pytest.raises(StorageError):
        await SqliteDatabase.open(tmp_path / "notes.txt")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StorageError):
        await SqliteDatabase.open(tmp_path / "folder.db")


async def test_a_backup_under_load_is_whole(table: SqliteDatabase, tmp_path: Path):
    writes = [asyncio.create_task(table.execute(INSERT, n, "x" * 1000)) for n in range(500)]
    await asyncio.sleep(0.005)
    await table.backup(tmp_path / "copy.db")
    await asyncio.gather(*writes)
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert 0 <= copy.execute("SELECT count(*) FROM t").fetchone()[0] <= 500
    copy.close()
    assert not list(tmp_path.glob(".*.tmp"))


_FAILING_WRITER = """
import asyncio, sys
from llamakit.core.errors import StorageError
from llamakit.storage.sqlite import SqliteDatabase

async def main():
    database = await SqliteDatabase.open(sys.argv[1])
    await database.execute("CREATE TABLE IF NOT EXISTS t (k BIGINT PRIMARY KEY, v TEXT)")
    for k in range(60):
        try:
            await database.execute("INSERT INTO t VALUES (?1, ?2)", k, "x" * 3000)
            print("ok", k, flush=True)
        except StorageError as error:
            print(type(error).__name__, k, flush=True)
    rows = await database.fetch("SELECT count(*) AS n FROM t")
    print("readable", rows[0]["n"], database.is_read_only, flush=True)
    await database.close()

asyncio.run(main())
"""


def _run_with_fault(path: Path, injection: str) -> list[list[str]]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, and nothing else makes a system call fail on demand")
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=fsync,fdatasync,pwrite64",
        "-e",
        f"inject={injection}",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", _FAILING_WRITER, str(path)], capture_output=True, text=True, timeout=120
    )
    if "Operation not permitted" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def _stored(path: Path) -> set[int]:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT k FROM t").fetchall()
    connection.close()
    return {row[0] for row in rows}


def test_a_failed_sync_ends_writing_and_keeps_reading(tmp_path: Path):
    lines = _run_with_fault(tmp_path / "sync.db", "fdatasync,fsync:error=EIO:when=25")
    acknowledged = {int(line[1]) for line in lines if line[0] == "ok"}
    failed = [line[0] for line in lines[:-1] if line[0] != "ok"]
    assert 0 < len(acknowledged) < 60
    assert failed == ["StorageReadOnly"] * (60 - len(acknowledged))
    assert lines[-1][0] == "readable" and lines[-1][2] == "True"
    assert int(lines[-1][1]) == len(acknowledged)
    assert acknowledged <= _stored(tmp_path / "sync.db")


def test_a_full_disk_refuses_then_works_again(tmp_path: Path):
    lines = _run_with_fault(tmp_path / "full.db", "pwrite64:error=ENOSPC:when=60..64")
    acknowledged = {int(line[1]) for line in lines if line[0] == "ok"}
    refused = {int(line[1]) for line in lines if line[0] == "StorageFull"}
    assert refused and acknowledged | refused == set(range(60))
    assert max(acknowledged) > max(refused), "writing goes on once there is room"
    assert lines[-1] == ["readable", str(len(acknowledged)), "False"]
    assert _stored(tmp_path / "full.db") == acknowledged
