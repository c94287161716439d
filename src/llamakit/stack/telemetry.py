"""Traces in the database, for whoever made them to look at: opt-in, bounded, written behind.

A span is a row of its owner. Rows are written in batches shortly after a request ended, so a kill loses the last
second of them; they are observations and not what a client was promised. The oldest leave when there are too many.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.core.errors import InvalidRequest, LlamakitError, NotFound
from llamakit.core.tracing import Span
from llamakit.stack.storage import Storage
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Database, Executor, Row
from llamakit.storage.tables import Table, create_owned

log = logging.getLogger(__name__)

SPAN = IdKind("span_", "span")
COLUMNS = ("trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "end_ns", "fault", "attributes")
SPANS = Table("spans", COLUMNS, ids=SPAN)

MAX_WAITING = 10_000
"""Spans that wait to be written; more are dropped and counted."""
MAX_BATCH = 500
WRITE_S = 0.5
TRIM_EVERY = 2_000
"""Spans written between two looks at whether the oldest must go."""
MAX_READ = 5_000
"""Spans that one question looks at."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)

Op = Literal["eq", "ne", "gt", "lt"]


async def create_spans(transaction: Executor) -> None:
    """The migration that makes the table of spans."""
    for sql in create_owned(
        "spans",
        "trace_id TEXT NOT NULL",
        "span_id TEXT NOT NULL",
        "parent_id TEXT",
        "name TEXT NOT NULL",
        "kind TEXT NOT NULL",
        "start_ns BIGINT NOT NULL",
        "end_ns BIGINT NOT NULL",
        "fault TEXT",
        "attributes TEXT NOT NULL",
    ):
        await transaction.execute(sql)
    await transaction.execute("CREATE INDEX spans_by_trace ON spans (owner, trace_id, start_ns)")
    await transaction.execute("CREATE INDEX spans_by_time ON spans (owner, start_ns)")
    await transaction.execute("CREATE INDEX spans_by_age ON spans (created_ns)")


@dataclass(frozen=True, slots=True)
class Filter:
    """A wish about one attribute of a span; `name`, `kind` and `fault` are attributes too."""

    key: str
    op: Op
    value: str | int | float | bool

    def takes(self, span: Mapping[str, Any]) -> bool:
        """Whether a span is wanted; one without the attribute only by `ne`."""
        found = span["attributes"].get(self.key, span.get(self.key))
        if self.op == "ne":
            return found != self.value
        if found is None:
            return False
        if self.op == "eq":
            return found == self.value
        if not isinstance(found, int | float) or not isinstance(self.value, int | float):
            return False
        return found > self.value if self.op == "gt" else found < self.value


class Traces:
    """The traces that a server keeps."""

    def __init__(self, storage: Storage, *, max_spans: int = 0) -> None:
        """`max_spans`: of all owners together; 0 keeps none."""
        self._storage = storage
        self._max_spans = max_spans
        self._waiting: deque[tuple[str, Span]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._num_dropped = 0
        self._num_written = TRIM_EVERY

    @property
    def is_on(self) -> bool:
        """Whether traces are kept."""
        return self._max_spans > 0

    def record(self, owner: str, spans: Sequence[Span]) -> None:
        """Have ended spans written soon; returns at once."""
        if not self.is_on:
            return
        room = MAX_WAITING - len(self._waiting)
        self._num_dropped += max(0, len(spans) - room)
        self._waiting.extend((owner, span) for span in spans[: max(0, room)])
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_soon(), name="traces")

    async def traces(
        self, owner: str, filters: Sequence[Filter] = (), limit: int = 100, offset: int = 0, *, newest: bool = True
    ) -> list[dict[str, Any]]:
        """Traces of which a span matches every filter, by the time they began."""
        if not 1 <= limit <= MAX_READ or not 0 <= offset <= MAX_READ:
            raise InvalidRequest(f"limit must be in [1, {MAX_READ}] and offset in [0, {MAX_READ}]", param="limit")
        rows = await self._rows(owner, "ORDER BY start_ns DESC LIMIT ?1", MAX_READ)
        wanted = [span["trace_id"] for span in rows if all(wish.takes(span) for wish in filters)]
        found = [_trace([span for span in rows if span["trace_id"] == id]) for id in dict.fromkeys(wanted)]
        found.sort(key=lambda trace: trace["start_time_ns"], reverse=newest)
        return found[offset : offset + limit]

    async def trace(self, owner: str, trace_id: str) -> dict[str, Any]:
        """One trace; `NotFound` where the owner has none of that id."""
        return _trace(await self._of_trace(owner, trace_id))

    async def span(self, owner: str, trace_id: str, span_id: str) -> dict[str, Any]:
        """One span; `NotFound` where the trace has none of that id."""
        for span in await self._of_trace(owner, trace_id):
            if span["span_id"] == span_id:
                return span
        raise NotFound(f"no span {span_id[:80]!r} in this trace")

    async def spans(self, owner: str, filters: Sequence[Filter] = (), *, limit: int = MAX_READ) -> list[dict[str, Any]]:
        """Spans that match every filter, the oldest first, of the last `MAX_READ`."""
        rows = await self._rows(owner, "ORDER BY start_ns DESC LIMIT ?1", MAX_READ)
        found = [span for span in rows if all(wish.takes(span) for wish in filters)]
        return found[:limit][::-1]

    async def span_tree(self, owner: str, span_id: str, max_depth: int | None = None) -> dict[str, dict[str, Any]]:
        """A span and those below it, by their ids, each with its `depth`; `NotFound` where there is none."""
        if not _SPAN_ID.fullmatch(span_id):
            raise NotFound(f"no span {span_id[:80]!r}; list spans first")
        rows = await self._rows(owner, "AND span_id = ?1 LIMIT 1", span_id)
        if not rows:
            raise NotFound(f"no span {span_id!r}; list spans first")
        below: dict[str | None, list[dict[str, Any]]] = {}
        for span in await self._of_trace(owner, rows[0]["trace_id"]):
            below.setdefault(span["parent_id"], []).append(span)
        tree: dict[str, dict[str, Any]] = {}
        level, depth = rows, 0
        while level and (max_depth is None or depth <= max_depth):
            # A trace is what clients say it is: a span that is its own ancestor is met once.
            fresh = [span for span in level if span["span_id"] not in tree]
            tree |= {span["span_id"]: span | {"depth": depth} for span in fresh}
            level = [child for span in fresh for child in below.get(span["span_id"], ())]
            depth += 1
        return tree

    async def flush(self) -> None:
        """Write what waits."""
        while self._waiting:
            database = await self._storage.database()
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            await database.run(*(SPANS.of(database, owner).inserting(SPAN.new(), _row(span)) for owner, span in batch))
            self._num_written += len(batch)
            await self._trim(database)

    async def aclose(self) -> None:
        """Write what waits, and stop."""
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        try:
            await self.flush()
        except LlamakitError as fault:
            log.warning("the last traces could not be written: %s", fault)

    async def _write_soon(self) -> None:
        while self._waiting:
            await asyncio.sleep(WRITE_S)
            try:
                await self.flush()
            except LlamakitError as fault:
                log.warning("traces could not be written and are dropped: %s", fault)
            if self._num_dropped:
                log.warning("%d spans were dropped because too many waited to be written", self._num_dropped)
                self._num_dropped = 0

    async def _trim(self, database: Database) -> None:
        """Let the oldest go, of all owners, so that the table stays bounded."""
        if self._num_written < TRIM_EVERY:
            return
        self._num_written = 0
        await database.execute(
            "DELETE FROM spans WHERE created_ns < "
            "(SELECT created_ns FROM spans ORDER BY created_ns DESC LIMIT 1 OFFSET ?1)",
            self._max_spans - 1,
        )

    async def _of_trace(self, owner: str, trace_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if _TRACE_ID.fullmatch(trace_id):
            found = await self._rows(owner, "AND trace_id = ?1 ORDER BY start_ns LIMIT ?2", trace_id, MAX_READ)
        if not found:
            raise NotFound(f"no trace {trace_id[:80]!r}; list traces first")
        return found

    async def _rows(self, owner: str, rest: str, *args: str | int) -> list[dict[str, Any]]:
        """The owner's spans, what waits among them; `rest` is written in code."""
        await self.flush()
        database = await self._storage.database()
        rows = await database.fetch(f"SELECT * FROM spans WHERE owner = ?{len(args) + 1} {rest}", *args, owner)
        return [_span(row) for row in rows]


def _row(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.context.trace_id,
        "span_id": span.context.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns or span.start_ns,
        "fault": span.fault,
        "attributes": json.dumps(span.attributes),
    }


def _span(row: Row) -> dict[str, Any]:
    """A span as plain values."""
    made = {name: row[name] for name in COLUMNS}
    return made | {"attributes": json.loads(row["attributes"]), "status": "ok" if row["fault"] is None else "error"}


def _trace(spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A trace from its spans: the root is the one whose parent is not here."""
    ids = {span["span_id"] for span in spans}
    first = min(spans, key=lambda span: span["start_ns"])
    root = next((span for span in spans if span["parent_id"] not in ids), first)
    return {
        "trace_id": first["trace_id"],
        "root_span_id": root["span_id"],
        "start_time_ns": first["start_ns"],
        "end_time_ns": max(span["end_ns"] for span in spans),
    }
