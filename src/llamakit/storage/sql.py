"""What a database is here: statements, results and the two protocols every store is written against.

SQL is the subset that SQLite and PostgreSQL share, with numbered parameters `?1`, `?2` and the types
BIGINT, TEXT, DOUBLE PRECISION and BLOB; `postgres.py` spells the rest. A write that returned is on
the disk. Knows no table: `tables.py` adds owners, the rooms above add meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llamakit.core.errors import Conflict, LlamakitError

Value = str | int | float | bytes | None
"""What a parameter may be; a truth is stored as 0 or 1, a time as integer nanoseconds."""

Row = dict[str, Any]
"""One result row by column name."""

Dialect = Literal["sqlite", "postgres"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with its parameters, and how many rows it must touch for the batch to stand."""

    sql: str
    args: tuple[Value, ...] = ()
    expect: int | None = None
    """Rows that must be changed or returned; another number undoes the whole batch."""
    otherwise: LlamakitError | None = field(default=None, compare=False)
    """What is raised then; None raises `Conflict`."""

    def check(self, count: int) -> None:
        """Raise unless `count` rows were touched as expected."""
        if self.expect is not None and count != self.expect:
            raise self.otherwise or Conflict(
                f"{self.expect} rows were to change, {count} did: the object changed meanwhile; read it and try again"
            )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one statement did."""

    count: int
    """Rows changed, or returned where the statement returns rows."""
    rows: Sequence[Row] = ()


class Executor(Protocol):
    """Runs statements: a database (each call stands alone) or one open transaction."""

    async def run(self, *statements: Statement) -> list[Outcome]:
        """Run all or none, in order; on a database it returns after the commit has reached the disk.

        Raises `Conflict` for a broken uniqueness or expectation, `InvalidRequest` for a value no
        column can hold, `StorageFull`, `StorageReadOnly`, `StorageError` and `Overloaded`.
        """
        ...

    async def execute(self, sql: str, *args: Value) -> int:
        """Run one changing statement; the number of rows it touched."""
        ...

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Rows of one reading statement; it sees every write acknowledged before the call."""
        ...


class Database(Executor, Protocol):
    """An open database. Statements of several callers may share one commit; none waits in memory after it."""

    @property
    def dialect(self) -> Dialect:
        """Which engine this is, for the few statements that differ."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Executor]:
        """Several calls as one: committed when the block ends, undone when it raises.

        On SQLite the block holds the only writer, so prefer `run` with expectations; the block is
        undone when it stays idle for longer than the database allows.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and release files, threads and connections."""
        ...


async def fetch_one(executor: Executor, sql: str, *args: Value) -> Row | None:
    """The first row, or None."""
    rows = await executor.fetch(sql, *args)
    return rows[0] if rows else None
