"""The one thread that writes to a SQLite file: it groups what waits into one commit, then answers all.

A caller is answered after the commit returned, and with `synchronous=FULL` that is after the fsync.
Each batch runs in its own savepoint, so one that fails leaves its neighbours alone. An error of the
disk that cannot be trusted (a failed fsync, a short write) closes the store for writing for good.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from llamakit.core.errors import (
    Conflict,
    InvalidRequest,
    LlamakitError,
    Overloaded,
    StorageError,
    StorageFull,
    StorageReadOnly,
)
from llamakit.core.faults import fault
from llamakit.storage.sql import Outcome, Statement, Value

MAX_GROUP = 256
"""Batches that share one commit; more would make the first wait for the last."""

_UNIQUE = (
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
)
_UNTRUSTED = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY)


def translated(error: Exception) -> Exception:
    """The error in our own words; one that is our own bug passes unchanged."""
    if isinstance(error, OverflowError):
        return InvalidRequest("a whole number does not fit 64 bits; send a smaller one")
    if isinstance(error, UnicodeEncodeError):
        return InvalidRequest("a text holds half a surrogate pair, which is not a character; send valid Unicode")
    if not isinstance(error, sqlite3.Error) or not hasattr(error, "sqlite_errorcode"):
        return error
    code = error.sqlite_errorcode
    primary = code & 0xFF
    if code in _UNIQUE:
        return Conflict(f"an object of that id or name exists, or one it refers to does not ({error})")
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full: nothing was written; free some space and send it again")
    if primary in _UNTRUSTED:
        return StorageReadOnly(
            f"the disk or the database file failed ({error}, {error.sqlite_errorname}); nothing more is written until "
            "it is looked at and the server is started again"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Overloaded("another process holds the database; try again in a moment", retry_after_s=1.0)
    if primary == sqlite3.SQLITE_TOOBIG:
        return InvalidRequest("a value is larger than the database holds in one column; send less")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT):
        return StorageError(f"the database could not be used: {error}")
    return error


@dataclass(slots=True, eq=False)
class Batch:
    """Statements that stand or fall together, and who waits for them."""

    statements: tuple[Statement, ...]
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[list[Outcome]]


@dataclass(slots=True, eq=False)
class Session:
    """An open transaction: the thread serves its batches alone until it ends or idles too long."""

    loop: asyncio.AbstractEventLoop
    begun: asyncio.Future[None]
    idle_s: float
    work: queue.SimpleQueue[Batch | End] = field(default_factory=queue.SimpleQueue)


@dataclass(slots=True, eq=False)
class End:
    """The last word of a session."""

    commit: bool
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[None]


def _settle(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for waiter, result in results:
        if waiter.done():
            continue
        if isinstance(result, BaseException):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)


def _answer(loop: asyncio.AbstractEventLoop, results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    try:
        loop.call_soon_threadsafe(_settle, results)
    except RuntimeError:
        pass  # the loop is closed, so nobody waits any more


class Writer(threading.Thread):
    """Owns the writing connection; `opened` is done once it stands or has failed to."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, max_waiting: int, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.opened: Future[None] = Future()
        self.failure: StorageReadOnly | None = None
        self._connect = connect
        self._queue: queue.SimpleQueue[Batch | Session | None] = queue.SimpleQueue()
        self._max_waiting = max_waiting
        self._stopping = False
        self._gate = threading.Lock()

    def submit(self, work: Batch | Session) -> None:
        """Queue work, or refuse it at once: closed, failed for good, or too much waiting."""
        with self._gate:
            if self._stopping:
                raise StorageError("the database is closed; open it again")
            if self.failure is not None:
                raise self.failure
            if self._queue.qsize() >= self._max_waiting:
                raise Overloaded(f"{self._max_waiting} writes wait for the disk; try again in a moment")
            self._queue.put(work)

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        with self._gate:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)

    def run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - handed to the one who opens
            self.opened.set_exception(translated(error))
            return
        self.opened.set_result(None)
        try:
            self._serve(connection)
        finally:
            connection.close()

    def _serve(self, connection: sqlite3.Connection) -> None:
        held: Batch | Session | None = None
        while True:
            work, held = held or self._queue.get(), None
            if work is None:
                return
            if isinstance(work, Session):
                self._serve_session(connection, work)
                continue
            group = [work]
            ended = False
            while len(group) < MAX_GROUP:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if isinstance(following, Batch):
                    group.append(following)
                    continue
                held, ended = following, following is None
                break
            self._commit_group(connection, group)
            if ended:
                return

    def _commit_group(self, connection: sqlite3.Connection, group: Sequence[Batch]) -> None:
        live = [batch for batch in group if not batch.waiter.cancelled()]
        try:
            self._begin(connection)
            results = [self._attempt(connection, batch.statements) for batch in live]
            self._commit(connection)
        except Exception as error:  # noqa: BLE001 - every waiter gets it
            failure = self._give_up(connection, error)
            results = [failure for _ in live]
        loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for batch, result in zip(live, results, strict=True):
            loops.setdefault(batch.loop, []).append((batch.waiter, result))
        for loop, settled in loops.items():
            _answer(loop, settled)

    def _serve_session(self, connection: sqlite3.Connection, session: Session) -> None:
        try:
            self._begin(connection)
        except Exception as error:  # noqa: BLE001 - handed to the waiter
            _answer(session.loop, [(session.begun, self._give_up(connection, error))])
            return
        _answer(session.loop, [(session.begun, None)])
        while True:
            try:
                work = session.work.get(timeout=session.idle_s)
            except queue.Empty:
                connection.execute("ROLLBACK")
                self._refuse_rest(session)
                return
            result: object = None
            try:
                if isinstance(work, Batch):
                    result = self._attempt(connection, work.statements)
                elif work.commit:
                    self._commit(connection)
                else:
                    connection.execute("ROLLBACK")
            except Exception as error:  # noqa: BLE001 - handed to the waiter
                result = self._give_up(connection, error)
            _answer(work.loop, [(work.waiter, result)])
            if isinstance(work, End):
                return
            if not connection.in_transaction:
                self._refuse_rest(session)
                return

    def _refuse_rest(self, session: Session) -> None:
        """The transaction is gone; tell whoever still speaks to it, without holding the writer."""

        def refuse() -> None:
            while True:
                work = session.work.get()
                if isinstance(work, End) and not work.commit:
                    _answer(work.loop, [(work.waiter, None)])
                else:
                    lost = StorageError(f"the transaction was undone (it idled {session.idle_s} s, or the disk failed)")
                    _answer(work.loop, [(work.waiter, lost)])
                if isinstance(work, End):
                    return

        threading.Thread(target=refuse, name=f"{self.name}-undone", daemon=True).start()

    def _begin(self, connection: sqlite3.Connection) -> None:
        if self.failure is not None:
            raise self.failure
        connection.execute("BEGIN IMMEDIATE")

    def _commit(self, connection: sqlite3.Connection) -> None:
        fault("sqlite.before_commit")
        connection.execute("COMMIT")
        fault("sqlite.after_commit")

    def _attempt(self, connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[Outcome] | Exception:
        """Outcomes, or the error of a batch whose savepoint was undone; raises when the whole transaction is lost."""
        connection.execute("SAVEPOINT batch")
        try:
            outcomes = [_run(connection, statement) for statement in statements]
        except (sqlite3.Error, OverflowError, UnicodeEncodeError, LlamakitError) as error:
            failure = translated(error)
            if isinstance(failure, StorageError) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO batch")
            connection.execute("RELEASE batch")
            return failure
        connection.execute("RELEASE batch")
        return outcomes

    def _give_up(self, connection: sqlite3.Connection, error: Exception) -> Exception:
        failure = translated(error)
        if isinstance(failure, StorageReadOnly):
            self.failure = failure
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error as second:
                self.failure = StorageReadOnly(f"the disk failed while undoing a write: {second}")
        return failure


def _run(connection: sqlite3.Connection, statement: Statement) -> Outcome:
    rows, count = query(connection, statement.sql, statement.args)
    statement.check(count)
    return Outcome(count, rows)


def query(connection: sqlite3.Connection, sql: str, args: Sequence[Value]) -> tuple[list[dict[str, Any]], int]:
    """Rows (none for a statement that returns none) and the number of rows touched or returned."""
    cursor = connection.execute(sql, args)
    if cursor.description is None:
        return [], max(cursor.rowcount, 0)
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return rows, len(rows)
