"""Tables whose every row has an owner, and the only door to them: a view bound to one owner.

The owner is put into each INSERT and each WHERE here, in the same statement that acts, so that no
handler can forget it and nothing changes between a check and its use. Column names come from the
table's declaration, never from a request; values are always parameters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Executor, Row, Statement, Value

Where = Mapping[str, Value | Sequence[Value]]
"""Column to wanted value; None means NULL, a list or tuple means any of these."""

MAX_PAGE = 10_000
_OWN_COLUMNS = ("id", "owner", "created_ns")
_stamp_lock = threading.Lock()
_last_stamp = 0


def stamp() -> int:
    """Nanoseconds since 1970 that never repeat nor go back within this process, to order rows by."""
    global _last_stamp
    with _stamp_lock:
        _last_stamp = max(time.time_ns(), _last_stamp + 1)
        return _last_stamp


def create_owned(name: str, *columns: str) -> list[str]:
    """The statements that make an owned table: its key, its order, and the given column definitions."""
    defined = "".join(f", {column}" for column in columns)
    return [
        f"CREATE TABLE {name} (id TEXT NOT NULL, owner TEXT NOT NULL, created_ns BIGINT NOT NULL{defined}, "
        "PRIMARY KEY (owner, id))",
        f"CREATE INDEX {name}_in_order ON {name} (owner, created_ns, id)",
    ]


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list, in the order asked for."""

    rows: list[Row]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Table:
    """An owned table: its name, its columns beside id, owner and created_ns, and what a row is called."""

    name: str
    columns: tuple[str, ...]
    ids: IdKind

    def of(self, executor: Executor, owner: str) -> Owned:
        """The rows of one owner, read and written through `executor`."""
        if not owner:
            raise ValueError(f"table {self.name!r} was opened without an owner")
        return Owned(self, executor, owner)


class _Arguments:
    """Collects parameters and hands out their numbers."""

    def __init__(self) -> None:
        self.values: list[Value] = []

    def add(self, value: Value) -> str:
        self.values.append(value)
        return f"?{len(self.values)}"


class Owned:
    """One owner's rows of one table."""

    def __init__(self, table: Table, executor: Executor, owner: str) -> None:
        self._table = table
        self._executor = executor
        self._owner = owner

    def inserting(self, id: str, row: Mapping[str, Value], *, created_ns: int | None = None) -> Statement:
        """The statement that adds a row, for a batch."""
        self._check_columns(row)
        args = (id, self._owner, stamp() if created_ns is None else created_ns, *row.values())
        numbers = ", ".join(f"?{n}" for n in range(1, len(args) + 1))
        names = ", ".join((*_OWN_COLUMNS, *row))
        return Statement(f"INSERT INTO {self._table.name} ({names}) VALUES ({numbers})", args, expect=1)

    def updating(self, id: str, changes: Mapping[str, Value], *, when: Where | None = None) -> Statement:
        """The statement that changes a row, for a batch; `when` also demands these present values."""
        if not changes:
            raise ValueError(f"an update of {self._table.name!r} needs at least one column")
        self._check_columns(changes)
        args = _Arguments()
        sets = ", ".join(f"{column} = {args.add(value)}" for column, value in changes.items())
        condition = self._condition(args, {"id": id, **(when or {})})
        missing = None if when else self._table.ids.missing(id)
        return Statement(
            f"UPDATE {self._table.name} SET {sets} WHERE {condition}", tuple(args.values), expect=1, otherwise=missing
        )

    def deleting(self, id: str) -> Statement:
        """The statement that removes a row, for a batch."""
        args = _Arguments()
        condition = self._condition(args, {"id": id})
        missing = self._table.ids.missing(id)
        return Statement(
            f"DELETE FROM {self._table.name} WHERE {condition}", tuple(args.values), expect=1, otherwise=missing
        )

    async def insert(self, id: str, row: Mapping[str, Value], *, created_ns: int | None = None) -> None:
        """Add a row; `Conflict` where the owner has that id already."""
        await self._executor.run(self.inserting(id, row, created_ns=created_ns))

    async def get(self, id: str) -> Row:
        """The row, or `NotFound`."""
        rows = await self.find({"id": id})
        if not rows:
            raise self._table.ids.missing(id)
        return rows[0]

    async def update(self, id: str, changes: Mapping[str, Value], *, when: Where | None = None) -> None:
        """Change a row; `NotFound`, or `Conflict` where `when` does not hold."""
        try:
            await self._executor.run(self.updating(id, changes, when=when))
        except Conflict:
            await self.get(id)
            raise

    async def delete(self, id: str) -> None:
        """Remove a row, or `NotFound`."""
        await self._executor.run(self.deleting(id))

    async def delete_where(self, where: Where) -> int:
        """Remove every row that matches; how many there were."""
        args = _Arguments()
        condition = self._condition(args, where)
        return await self._executor.execute(f"DELETE FROM {self._table.name} WHERE {condition}", *args.values)

    async def find(self, where: Where | None = None, *, limit: int | None = None) -> list[Row]:
        """Rows that match, oldest first."""
        args = _Arguments()
        condition = self._condition(args, where or {})
        tail = "" if limit is None else f" LIMIT {args.add(limit)}"
        return await self._executor.fetch(
            f"SELECT * FROM {self._table.name} WHERE {condition} ORDER BY created_ns, id{tail}", *args.values
        )

    async def select(self, condition: str, *args: Value, columns: Sequence[str] = ("*",)) -> list[Row]:
        """Rows that match a condition written in code, whose parameters are `?1` on; unordered unless it says so."""
        for column in columns:
            if column != "*":
                self._check_columns({column: None}, own=True)
        owned = f"owner = ?{len(args) + 1} AND ({condition})"
        names = ", ".join(columns)
        return await self._executor.fetch(f"SELECT {names} FROM {self._table.name} WHERE {owned}", *args, self._owner)

    async def count(self, where: Where | None = None) -> int:
        """How many rows match."""
        args = _Arguments()
        condition = self._condition(args, where or {})
        rows = await self._executor.fetch(
            f"SELECT count(*) AS n FROM {self._table.name} WHERE {condition}", *args.values
        )
        return rows[0]["n"]

    async def page(
        self,
        *,
        where: Where | None = None,
        order: Literal["asc", "desc"] = "desc",
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
    ) -> Page:
        """The next `limit` rows after (or before) a row, by time of making; `NotFound` for an unknown cursor."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"limit must be in [1, {MAX_PAGE}], got {limit}", param="limit")
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"order must be asc or desc, got {order!r}", param="order")
        backwards = before is not None and after is None
        ascending = (order == "asc") != backwards
        args = _Arguments()
        conditions = [self._condition(args, where or {})]
        for cursor, forwards in ((after, True), (before, False)):
            if cursor is not None:
                conditions.append(await self._beyond(args, cursor, (order == "asc") == forwards))
        direction = "ASC" if ascending else "DESC"
        rows = await self._executor.fetch(
            f"SELECT * FROM {self._table.name} WHERE {' AND '.join(conditions)} "
            f"ORDER BY created_ns {direction}, id {direction} LIMIT {args.add(limit + 1)}",
            *args.values,
        )
        kept = rows[:limit]
        return Page(kept[::-1] if backwards else kept, len(rows) > limit)

    async def _beyond(self, args: _Arguments, cursor: str, later: bool) -> str:
        try:
            row = await self.get(cursor)
        except NotFound as error:
            raise InvalidRequest(f"the list has no {cursor[:80]!r} to go on from", param="after") from error
        sign = ">" if later else "<"
        return f"(created_ns, id) {sign} ({args.add(row['created_ns'])}, {args.add(row['id'])})"

    def _condition(self, args: _Arguments, where: Where) -> str:
        self._check_columns(where, own=True)
        parts = [f"owner = {args.add(self._owner)}"]
        for column, wanted in where.items():
            if wanted is None:
                parts.append(f"{column} IS NULL")
            elif isinstance(wanted, str | int | float | bytes):
                parts.append(f"{column} = {args.add(wanted)}")
            else:
                numbers = ", ".join(args.add(value) for value in wanted)
                parts.append(f"{column} IN ({numbers})" if numbers else "1 = 0")
        return " AND ".join(parts)

    def _check_columns(self, row: Mapping[str, object], *, own: bool = False) -> None:
        known = (*self._table.columns, "id", "created_ns") if own else self._table.columns
        for column in row:
            if column not in known:
                raise ValueError(f"table {self._table.name!r} has no column {column!r}; it has {known}")
