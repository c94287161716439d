"""The tables of vector stores, and their rows as OpenAI spells them.

A store holds attachments: one row for each file in it, with an id of its own that is also the id of the document
in the library. A file attached anew is another attachment, so what is left of the old one never mixes with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamakit.api.vector_stores import chunking_body, counts_body
from llamakit.storage.ids import FILE_BATCH, VECTOR_STORE, IdKind
from llamakit.storage.sql import Database, Executor, Row, Value
from llamakit.storage.tables import Table, create_owned

ATTACHMENT = IdKind("vsf_", "vector store file")
DAY_NS = 86_400 * 10**9

STORES = Table(
    "vector_stores",
    ("name", "description", "metadata", "embedder", "dimension", "expires_days", "active_ns", "is_expired"),
    ids=VECTOR_STORE,
)
ATTACHMENTS = Table(
    "vector_store_files",
    ("store", "file", "name", "batch", "status", "error_code", "error", "usage", "size", "overlap", "attributes"),
    ids=ATTACHMENT,
)
BATCHES = Table("vector_store_batches", ("store", "is_cancelled"), ids=FILE_BATCH)


async def create_vector_stores(transaction: Executor) -> None:
    """The migration that makes the tables of vector stores."""
    statements = [
        *create_owned(
            "vector_stores",
            "name TEXT NOT NULL",
            "description TEXT",
            "metadata TEXT NOT NULL",
            "embedder TEXT NOT NULL",
            "dimension BIGINT NOT NULL",
            "expires_days BIGINT",
            "active_ns BIGINT NOT NULL",
            "is_expired BIGINT NOT NULL",
        ),
        *create_owned(
            "vector_store_files",
            "store TEXT NOT NULL",
            "file TEXT NOT NULL",
            "name TEXT NOT NULL",
            "batch TEXT",
            "status TEXT NOT NULL",
            "error_code TEXT",
            "error TEXT",
            "usage BIGINT NOT NULL",
            "size BIGINT NOT NULL",
            "overlap BIGINT NOT NULL",
            "attributes TEXT NOT NULL",
        ),
        "CREATE UNIQUE INDEX vector_store_files_once ON vector_store_files (owner, store, file)",
        "CREATE INDEX vector_store_files_by_batch ON vector_store_files (owner, batch)",
        *create_owned("vector_store_batches", "store TEXT NOT NULL", "is_cancelled BIGINT NOT NULL"),
    ]
    for sql in statements:
        await transaction.execute(sql)


class Tally:
    """The files of a store or a batch: how many in which state, and the bytes they take."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.usage = 0

    @property
    def waiting(self) -> int:
        """Those not at an end."""
        return self.counts.get("in_progress", 0)


async def tallies(database: Database, owner: str, column: str, ids: Sequence[str]) -> Mapping[str, Tally]:
    """One tally for each store or batch, by `column` of the attachments."""
    made = {id: Tally() for id in ids}
    if not ids:
        return made
    numbers = ", ".join(f"?{n}" for n in range(2, 2 + len(ids)))
    args: Iterable[Value] = (owner, *ids)
    rows = await database.fetch(
        f"SELECT {column} AS id, status, count(*) AS n, sum(usage) AS bytes FROM vector_store_files "
        f"WHERE owner = ?1 AND {column} IN ({numbers}) GROUP BY {column}, status",
        *args,
    )
    for row in rows:
        made[row["id"]].counts[row["status"]] = row["n"]
        made[row["id"]].usage += int(row["bytes"])
    return made


def expires_ns(row: Row) -> int | None:
    """When a store goes, if nobody uses it until then."""
    days = row["expires_days"]
    return None if days is None else row["active_ns"] + days * DAY_NS


def store_body(row: Row, tally: Tally) -> dict[str, Any]:
    """A store as OpenAI spells it."""
    expires, days = expires_ns(row), row["expires_days"]
    status = "expired" if row["is_expired"] else "in_progress" if tally.waiting else "completed"
    return {
        "id": row["id"],
        "object": "vector_store",
        "created_at": row["created_ns"] // 10**9,
        "name": row["name"],
        "description": row["description"],
        "usage_bytes": 0 if row["is_expired"] else tally.usage,
        "file_counts": counts_body(tally.counts),
        "status": status,
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if expires is None else expires // 10**9,
        "last_active_at": row["active_ns"] // 10**9,
        "metadata": json.loads(row["metadata"]),
        "embedding_model": row["embedder"],
        "embedding_dimension": row["dimension"],
    }


def attachment_body(row: Row) -> dict[str, Any]:
    """A file of a store as OpenAI spells it: its id is the file's."""
    failed = row["error_code"] is not None
    return {
        "id": row["file"],
        "object": "vector_store.file",
        "created_at": row["created_ns"] // 10**9,
        "vector_store_id": row["store"],
        "status": row["status"],
        "last_error": {"code": row["error_code"], "message": row["error"]} if failed else None,
        "usage_bytes": row["usage"],
        "attributes": json.loads(row["attributes"]),
        "chunking_strategy": chunking_body(row["size"], row["overlap"]),
    }


def batch_body(row: Row, tally: Tally) -> dict[str, Any]:
    """A batch as OpenAI spells it; it failed where every file of it did."""
    counts = counts_body(tally.counts)
    if row["is_cancelled"]:
        status = "cancelled"
    elif tally.waiting:
        status = "in_progress"
    else:
        status = "failed" if counts["total"] and counts["failed"] == counts["total"] else "completed"
    return {
        "id": row["id"],
        "object": "vector_store.files_batch",
        "created_at": row["created_ns"] // 10**9,
        "vector_store_id": row["store"],
        "status": status,
        "file_counts": counts,
    }
