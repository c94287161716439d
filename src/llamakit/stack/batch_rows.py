"""The rows of batches: the batch itself, and one row for each of its lines that was answered.

The rows of the lines stand until their files are written; while there are any, the counts are theirs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.api.batches import usage_body
from llamakit.storage.ids import BATCH, IdKind
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Owned, Table, create_owned

BATCHES = Table("batches", ("status", "body", "job", "salt", "request_key", "output_expiry_s"), ids=BATCH)
LINE = IdKind("breq_", "batch line")
LINES = Table("batch_lines", ("batch", "line", "is_error", "result", "given", "cached", "made"), ids=LINE)
RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
READ_AT_ONCE = 100


async def create_batches(transaction: Executor) -> None:
    """The migration that makes the tables of batches."""
    for sql in (
        *create_owned(
            "batches",
            "status TEXT NOT NULL",
            "body TEXT NOT NULL",
            "job TEXT NOT NULL",
            "salt TEXT NOT NULL",
            "request_key TEXT",
            "output_expiry_s BIGINT",
        ),
        *create_owned(
            "batch_lines",
            "batch TEXT NOT NULL",
            "line BIGINT NOT NULL",
            "is_error BIGINT NOT NULL",
            "result TEXT NOT NULL",
            "given BIGINT NOT NULL",
            "cached BIGINT NOT NULL",
            "made BIGINT NOT NULL",
        ),
        "CREATE UNIQUE INDEX batches_once ON batches (owner, request_key)",
        "CREATE UNIQUE INDEX batch_lines_once ON batch_lines (owner, batch, line)",
    ):
        await transaction.execute(sql)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of a line."""

    line: int
    is_error: bool
    text: str
    """The line of the output or error file."""
    usage: tuple[int, int, int] = (0, 0, 0)
    """Input, cached and output tokens."""


class BatchRows:
    """One owner's batches."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self.batches: Owned = BATCHES.of(database, owner)
        self._lines = LINES.of(database, owner)

    async def row(self, id: str) -> Row:
        """The row of a batch, or `NotFound`."""
        BATCH.check(id)
        return await self.batches.get(id)

    async def resource(self, row: Row) -> dict[str, Any]:
        """The batch as its reader sees it now."""
        body = json.loads(row["body"])
        if row["status"] in RUNNING:
            counts, usage = await self.counts(row["id"])
            body["request_counts"] |= counts
            body["usage"] = usage
        return body

    def inserting(self, body: Mapping[str, Any], row: Mapping[str, Any]) -> Statement:
        """The statement that adds a batch."""
        return self.batches.inserting(body["id"], {"status": body["status"], "body": json.dumps(body), **row})

    def changing(self, body: Mapping[str, Any], *, when: str | Sequence[str]) -> Statement:
        """The statement that gives a batch this body, if its status is still one of those."""
        changes = {"status": body["status"], "body": json.dumps(body)}
        return self.batches.updating(body["id"], changes, when={"status": when})

    def keeping(self, batch: str, result: Result) -> Statement:
        """The statement that keeps what became of a line; a second one for a line undoes its whole batch."""
        given, cached, made = result.usage
        row = {
            "batch": batch,
            "line": result.line,
            "is_error": int(result.is_error),
            "result": result.text,
            "given": given,
            "cached": cached,
            "made": made,
        }
        return self._lines.inserting(LINE.new(), row)

    async def done(self, batch: str) -> set[int]:
        """Numbers of the lines that were answered."""
        rows = await self._lines.select("batch = ?1", batch, columns=("line",))
        return {row["line"] for row in rows}

    async def counts(self, batch: str) -> tuple[dict[str, int], dict[str, Any]]:
        """How many lines were answered well and how many failed, and the tokens of all."""
        rows = await self._database.fetch(
            "SELECT is_error, count(*) AS n, sum(given) AS given, sum(cached) AS cached, sum(made) AS made "
            "FROM batch_lines WHERE owner = ?1 AND batch = ?2 GROUP BY is_error",
            self._owner,
            batch,
        )
        by_kind = {bool(row["is_error"]): row["n"] for row in rows}
        sums = (sum(int(row[name]) for row in rows) for name in ("given", "cached", "made"))
        return {"completed": by_kind.get(False, 0), "failed": by_kind.get(True, 0)}, usage_body(*sums)

    async def results(self, batch: str, *, is_error: bool) -> AsyncIterator[bytes]:
        """The lines of the output or error file, in the order of the input."""
        last = 0
        while rows := await self._database.fetch(
            "SELECT line, result FROM batch_lines WHERE owner = ?1 AND batch = ?2 AND is_error = ?3 AND line > ?4 "
            "ORDER BY line LIMIT ?5",
            self._owner,
            batch,
            int(is_error),
            last,
            READ_AT_ONCE,
        ):
            yield b"".join(f"{row['result']}\n".encode() for row in rows)
            last = rows[-1]["line"]

    def clearing(self, batch: str) -> Statement:
        """The statement that removes the rows of the lines."""
        return Statement("DELETE FROM batch_lines WHERE owner = ?1 AND batch = ?2", (self._owner, batch))
