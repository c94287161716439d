"""SQLite as a `Database`: one writing thread with group commit, a few reading threads, a file in WAL mode.

`synchronous=FULL` makes a commit wait for the fsync of the log, so what was acknowledged survives a
kill and a power cut. Readers never wait for the writer. Several processes may open the same file:
they take turns by SQLite's own locks.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Self

from llamakit.core.errors import ConfigError, StorageError
from llamakit.storage.blobs import publish, sync_folder
from llamakit.storage.sql import Executor, Outcome, Row, Statement, Value
from llamakit.storage.writer import Batch, End, Session, Writer, query, translated

_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
)


def _connect(path: Path, busy_timeout_s: float, *, write: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    try:
        if write:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise ConfigError(
                    f"{path} cannot use a write-ahead log (SQLite answers {mode!r}); "
                    "put the database on a local disk, not on a network share"
                )
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if not write:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    """Make the file, readable by its user only: it will hold prompts and key hashes."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sync_folder(path.parent)


class SqliteDatabase:
    """A database in one file. Make it with `open`; every method may be called from any event loop."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, path: Path, writer: Writer, *, readers: int, busy_timeout_s: float, idle_s: float) -> None:
        self.path = path
        self._writer = writer
        self._idle_s = idle_s
        self._busy_timeout_s = busy_timeout_s
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix=f"{path.name}-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        readers: int = 2,
        busy_timeout_s: float = 10.0,
        idle_s: float = 10.0,
        max_waiting: int = 10_000,
    ) -> Self:
        """Open or make the file. `idle_s`: an interactive transaction idle for longer is undone.

        Raises `ConfigError` where the file system cannot hold a write-ahead log, `StorageError`
        or `StorageReadOnly` where the file cannot be opened or is no database.
        """
        path = Path(path).absolute()
        try:
            _make_private(path)
        except OSError as error:
            raise StorageError(f"cannot make the database {path}: {error.strerror}") from error
        writer = Writer(
            lambda: _connect(path, busy_timeout_s, write=True), max_waiting=max_waiting, name=f"{path.name}-write"
        )
        writer.start()
        await asyncio.wrap_future(writer.opened)
        return cls(path, writer, readers=readers, busy_timeout_s=busy_timeout_s, idle_s=idle_s)

    @property
    def is_read_only(self) -> bool:
        """Whether the disk failed in a way that ended writing."""
        return self._writer.failure is not None

    async def run(self, *statements: Statement) -> list[Outcome]:
        """Run all or none; returns after the commit has reached the disk."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[list[Outcome]] = loop.create_future()
        self._writer.submit(Batch(statements, loop, waiter))
        return await waiter

    async def execute(self, sql: str, *args: Value) -> int:
        """Run one changing statement; the number of rows it touched."""
        return (await self.run(Statement(sql, args)))[0].count

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Rows of one reading statement."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, sql, args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Executor]:
        """Several calls as one; holds the writer, so keep it short."""
        loop = asyncio.get_running_loop()
        session = Session(loop, loop.create_future(), self._idle_s)
        self._writer.submit(session)
        try:
            await session.begun
            yield _SqliteTransaction(session)
        except BaseException:
            # A cancelled caller may not have seen the beginning; the end is queued behind it all the same.
            if not (session.begun.done() and not session.begun.cancelled() and session.begun.exception()):
                session.work.put(End(False, loop, _unawaited(loop)))
            raise
        waiter: asyncio.Future[None] = loop.create_future()
        session.work.put(End(True, loop, waiter))
        await waiter

    async def backup(self, path: str | Path) -> None:
        """Write a consistent copy of the database, taken while it is in use, to `path`."""
        await asyncio.get_running_loop().run_in_executor(self._readers, self._backup, Path(path).absolute())

    async def close(self) -> None:
        """Finish accepted writes and close every connection."""
        self._writer.stop()
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _connect(self.path, self._busy_timeout_s, write=False)
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def _read(self, sql: str, args: tuple[Value, ...]) -> list[Row]:
        try:
            return query(self._reader(), sql, args)[0]
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            ours = translated(error)
            if ours is error:
                raise
            raise ours from error

    def _backup(self, path: Path) -> None:
        def fill(temporary: Path) -> None:
            target = sqlite3.connect(temporary)
            try:
                self._reader().backup(target)
            finally:
                target.close()

        publish(path, fill)


def _unawaited(loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    """A future whose error nobody asks for: the block that is being undone has its own."""
    future: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


class _SqliteTransaction:
    """The `Executor` of one open transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def run(self, *statements: Statement) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[list[Outcome]] = loop.create_future()
        self._session.work.put(Batch(statements, loop, waiter))
        return await waiter

    async def execute(self, sql: str, *args: Value) -> int:
        return (await self.run(Statement(sql, args)))[0].count

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        return list((await self.run(Statement(sql, args)))[0].rows)
