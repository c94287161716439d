"""Datasets of a server: rows by name, kept with their owner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.api.llama_stack_datasets import (
    LlamaStackDatasetRequest,
    LlamaStackRows,
    check_rows,
    dataset_body,
    rows_of,
    rows_of_url,
)
from llamakit.api.llama_stack_lists import Stretch
from llamakit.core.errors import Conflict, InvalidRequest
from llamakit.stack.files import Files
from llamakit.stack.storage import Storage
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

DATASET = IdKind("dataset_", "dataset")
DATASETS = Table("datasets", ("purpose", "source", "metadata", "num_rows"), ids=DATASET)
FILE_URI = "file://"
TOGETHER = 500
"""Rows that one statement writes."""


async def create_datasets(transaction: Executor) -> None:
    """The migration that makes the tables of datasets and their rows."""
    columns = ("purpose TEXT NOT NULL", "source TEXT NOT NULL", "metadata TEXT NOT NULL", "num_rows BIGINT NOT NULL")
    for sql in create_owned("datasets", *columns):
        await transaction.execute(sql)
    await transaction.execute(
        "CREATE TABLE dataset_rows (owner TEXT NOT NULL, dataset TEXT NOT NULL, position BIGINT NOT NULL, "
        "content TEXT NOT NULL, PRIMARY KEY (owner, dataset, position))"
    )


class Datasets:
    """The datasets of one server."""

    def __init__(self, storage: Storage, files: Files) -> None:
        self._storage = storage
        self._files = files

    async def register(self, owner: str, wire: LlamaStackDatasetRequest) -> dict[str, Any]:
        """Keep a dataset with its rows; `Conflict` where the name is taken."""
        id = wire.dataset_id or DATASET.new()
        if isinstance(wire.source, LlamaStackRows):
            rows, param = wire.source.rows, "source.rows"
            source: dict[str, Any] = {"type": "rows", "rows": []}
        else:
            rows, param = await self._fetched(owner, wire.source.uri), "source.uri"
            is_data = wire.source.uri.lower().startswith("data:")
            source = {"type": "uri", "uri": "data:" if is_data else wire.source.uri}
        check_rows(rows, wire.purpose, 0, param)
        return await self.create(owner, id, wire.purpose, source, wire.metadata or {}, rows)

    async def create(
        self,
        owner: str,
        id: str,
        purpose: str,
        source: Mapping[str, Any],
        metadata: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """The same from rows that are at hand and checked."""
        database = await self._storage.database()
        facts = {"purpose": purpose, "source": json.dumps(dict(source)), "metadata": json.dumps(dict(metadata))}
        inserting = DATASETS.of(database, owner).inserting(id, facts | {"num_rows": len(rows)})
        try:
            await database.run(inserting, *_inserting(owner, id, 0, rows))
        except Conflict:
            raise Conflict(f"a dataset {id[:80]!r} exists; unregister it first, or choose another name") from None
        return await self.get(owner, id)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A dataset, or `NotFound`."""
        return _body(await self._row(owner, id))

    async def list(self, owner: str) -> list[dict[str, Any]]:
        """Every dataset of an owner, the first made first."""
        return [_body(row) for row in await DATASETS.of(await self._storage.database(), owner).find()]

    async def delete(self, owner: str, id: str) -> None:
        """Remove a dataset with its rows."""
        database = await self._storage.database()
        rows = Statement("DELETE FROM dataset_rows WHERE owner = ?1 AND dataset = ?2", (owner, id))
        await database.run(DATASETS.of(database, owner).deleting(id), rows)

    async def rows(self, owner: str, id: str, stretch: Stretch) -> tuple[list[dict[str, Any]], bool]:
        """A stretch of the rows, and whether there are more behind it."""
        dataset = await self._row(owner, id)
        end = dataset["num_rows"] if stretch.limit is None else stretch.start + stretch.limit
        database: Database = await self._storage.database()
        found = await database.fetch(
            "SELECT content FROM dataset_rows WHERE owner = ?1 AND dataset = ?2 AND position >= ?3 AND position < ?4 "
            "ORDER BY position",
            owner,
            id,
            stretch.start,
            end,
        )
        return [json.loads(row["content"]) for row in found], end < dataset["num_rows"]

    async def append(self, owner: str, id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows at the end; `Conflict` where somebody else does so at the same time."""
        dataset = await self._row(owner, id)
        have = dataset["num_rows"]
        check_rows(rows, dataset["purpose"], have, "rows")
        database = await self._storage.database()
        counting = DATASETS.of(database, owner).updating(id, {"num_rows": have + len(rows)}, when={"num_rows": have})
        await database.run(counting, *_inserting(owner, id, have, rows))

    async def _fetched(self, owner: str, uri: str) -> list[dict[str, Any]]:
        if uri.lower().startswith("data:"):
            return rows_of_url(uri)
        if uri.startswith(FILE_URI):
            id = uri.removeprefix(FILE_URI)
            file = await self._files.get(owner, id)
            kind = "csv" if str(file["filename"]).lower().endswith(".csv") else "json"
            return rows_of(await self._files.read(owner, id), kind, "source.uri")
        raise InvalidRequest(
            "source.uri must be a data URL, or file:// and the id of a file that was sent to /v1/files; "
            "other addresses are not fetched",
            param="source.uri",
        )

    async def _row(self, owner: str, id: str) -> Row:
        return await DATASETS.of(await self._storage.database(), owner).get(id)


def _inserting(owner: str, id: str, start: int, rows: Sequence[Mapping[str, Any]]) -> list[Statement]:
    made = []
    for first in range(0, len(rows), TOGETHER):
        part = rows[first : first + TOGETHER]
        places = ", ".join(f"(?1, ?2, ?{3 + 2 * i}, ?{4 + 2 * i})" for i in range(len(part)))
        values: list[Any] = [owner, id]
        for offset, row in enumerate(part):
            values += [start + first + offset, json.dumps(dict(row))]
        sql = f"INSERT INTO dataset_rows (owner, dataset, position, content) VALUES {places}"
        made.append(Statement(sql, tuple(values), expect=len(part)))
    return made


def _body(row: Row) -> dict[str, Any]:
    return dataset_body(row["id"], row["purpose"], json.loads(row["source"]), json.loads(row["metadata"]))
