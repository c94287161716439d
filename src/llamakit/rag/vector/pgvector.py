"""Chunks in PostgreSQL with pgvector, for several server processes on one database.

Search is exact within a collection: owner and collection are in every WHERE, so ranking never sees
a foreign chunk. Words are ranked by `ts_rank_cd` over the `simple` configuration, in any language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from llamakit.core.errors import ConfigError, NotFound
from llamakit.rag.embed import Vectors
from llamakit.rag.filters import Filter, columns, sequence_sql, to_sql
from llamakit.rag.vector.local import MAX_WORDS, stored
from llamakit.rag.vector.store import Hit, NewChunk, Source, StoredChunk
from llamakit.storage.migrations import migrate
from llamakit.storage.sql import Database, Executor, Statement, Value
from llamakit.storage.tables import stamp

_WORD = re.compile(r"\w+")
_HERE = "c.owner = ?1 AND c.collection = ?2"
_CHUNKS = (
    "SELECT c.id, c.document, d.name, c.text, c.page, c.start_at, c.end_at, c.tokens, c.headings, c.metadata, "
    "d.attributes FROM rag_store_chunks c JOIN rag_store_documents d "
    "ON d.owner = c.owner AND d.collection = c.collection "
    f"AND d.id = c.document WHERE {_HERE}"
)


async def _create_tables(transaction: Executor) -> None:
    for sql in (
        "CREATE EXTENSION IF NOT EXISTS vector",
        "CREATE TABLE rag_store_collections (owner TEXT NOT NULL, id TEXT NOT NULL, dimension BIGINT NOT NULL, "
        "created_ns BIGINT NOT NULL, PRIMARY KEY (owner, id))",
        "CREATE TABLE rag_store_documents (owner TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, "
        "name TEXT NOT NULL, attributes TEXT NOT NULL, PRIMARY KEY (owner, collection, id), "
        "FOREIGN KEY (owner, collection) REFERENCES rag_store_collections ON DELETE CASCADE)",
        "CREATE TABLE rag_store_attributes (owner TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, "
        "name TEXT NOT NULL, text TEXT, number DOUBLE PRECISION, PRIMARY KEY (owner, collection, document, name), "
        "FOREIGN KEY (owner, collection, document) REFERENCES rag_store_documents ON DELETE CASCADE)",
        "CREATE TABLE rag_store_chunks (owner TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, "
        "document TEXT NOT NULL, position BIGINT NOT NULL, text TEXT NOT NULL, page BIGINT, "
        "start_at BIGINT NOT NULL, end_at BIGINT NOT NULL, "
        "tokens BIGINT NOT NULL, headings TEXT NOT NULL, metadata TEXT NOT NULL, embedding vector NOT NULL, "
        "words tsvector GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED, "
        "PRIMARY KEY (owner, collection, id), "
        "FOREIGN KEY (owner, collection, document) REFERENCES rag_store_documents ON DELETE CASCADE)",
        "CREATE INDEX rag_store_chunks_of_document ON rag_store_chunks (owner, collection, document, position)",
        "CREATE INDEX rag_store_chunks_by_word ON rag_store_chunks USING gin (words)",
    ):
        await transaction.execute(sql)


class PgvectorChunks:
    """Chunk stores in one PostgreSQL database; make it with `open`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, database: Database) -> PgvectorChunks:
        """Make or find the tables; `ConfigError` where the database is no PostgreSQL."""
        if database.dialect != "postgres":
            raise ConfigError(f"pgvector needs PostgreSQL, not {database.dialect}; use the local store there")
        await migrate(database, [_create_tables], subject="chunks")
        return cls(database)

    async def create(self, owner: str, collection: str, dimension: int) -> None:
        """Make an empty collection."""
        await self._database.execute(
            "INSERT INTO rag_store_collections (owner, id, dimension, created_ns) VALUES (?1, ?2, ?3, ?4)",
            owner,
            collection,
            dimension,
            stamp(),
        )

    async def drop(self, owner: str, collection: str) -> None:
        """Remove a collection and, by its references, all it holds."""
        sql = "DELETE FROM rag_store_collections WHERE owner = ?1 AND id = ?2"
        await self._database.run(Statement(sql, (owner, collection), expect=1, otherwise=_missing(collection)))

    async def put(
        self, owner: str, collection: str, source: Source, chunks: Sequence[NewChunk], vectors: Vectors
    ) -> None:
        """Replace a document's chunks."""
        await self._database.run(
            _there(owner, collection),
            Statement(
                "DELETE FROM rag_store_chunks c WHERE " + _HERE + " AND c.document = ?3", (owner, collection, source.id)
            ),
            *_describing(owner, collection, source),
            *(
                _inserting(owner, collection, source.id, n, new, vector)
                for n, (new, vector) in enumerate(zip(chunks, vectors, strict=True))
            ),
        )

    async def describe(self, owner: str, collection: str, source: Source) -> None:
        """Change a document's name and attributes."""
        await self._database.run(_there(owner, collection), *_describing(owner, collection, source))

    async def remove(self, owner: str, collection: str, document: str) -> None:
        """Remove a document."""
        sql = "DELETE FROM rag_store_documents WHERE owner = ?1 AND collection = ?2 AND id = ?3"
        await self._database.run(_there(owner, collection), Statement(sql, (owner, collection, document)))

    async def nearest(
        self, owner: str, collection: str, vector: Vectors, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """Exact cosine search; vectors have length one, so the inner product is the cosine."""
        await self._check(owner, collection)
        args: list[Value] = [owner, collection, _text(vector), k]
        rows = await self._database.fetch(
            f"SELECT c.id, -(c.embedding <#> CAST(CAST(?3 AS TEXT) AS vector)) AS score FROM rag_store_chunks c "
            f"WHERE {_HERE}{_allowed(owner, collection, filter, args)} ORDER BY score DESC, c.id LIMIT ?4",
            *args,
        )
        return [Hit(row["id"], row["score"]) for row in rows]

    async def matching(
        self, owner: str, collection: str, query: str, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """Chunks that hold any word of the query."""
        await self._check(owner, collection)
        words = " or ".join(f'"{word}"' for word in _WORD.findall(query)[:MAX_WORDS])
        if not words:
            return []
        args: list[Value] = [owner, collection, words, k]
        rows = await self._database.fetch(
            "SELECT c.id, ts_rank_cd(c.words, q) AS score "
            "FROM rag_store_chunks c, websearch_to_tsquery('simple', ?3) q "
            f"WHERE {_HERE} AND c.words @@ q{_allowed(owner, collection, filter, args)} "
            "ORDER BY score DESC, c.id LIMIT ?4",
            *args,
        )
        return [Hit(row["id"], row["score"]) for row in rows]

    async def load(self, owner: str, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """These chunks, in this order."""
        await self._check(owner, collection)
        if not ids:
            return []
        args: list[Value] = [owner, collection]
        rows = await self._database.fetch(f"{_CHUNKS} AND c.id IN {sequence_sql(ids, args)}", *args)
        found = {row["id"]: stored(row) for row in rows}
        return [found[id] for id in ids if id in found]

    async def chunks_of(self, owner: str, collection: str, document: str) -> list[StoredChunk]:
        """Every chunk of a document."""
        await self._check(owner, collection)
        sql = f"{_CHUNKS} AND c.document = ?3 ORDER BY c.position"
        return [stored(row) for row in await self._database.fetch(sql, owner, collection, document)]

    async def close(self) -> None:
        """Nothing of its own is open; the database belongs to who opened it."""

    async def _check(self, owner: str, collection: str) -> None:
        await self._database.run(_there(owner, collection))


def _there(owner: str, collection: str) -> Statement:
    sql = "SELECT 1 AS found FROM rag_store_collections WHERE owner = ?1 AND id = ?2"
    return Statement(sql, (owner, collection), expect=1, otherwise=_missing(collection))


def _allowed(owner: str, collection: str, filter: Filter | None, args: list[Value]) -> str:
    if filter is None:
        return ""
    scope: dict[str, Value] = {"owner": owner, "collection": collection}
    return " AND " + to_sql(filter, args, document="c.document", table="rag_store_attributes", scope=scope)


def _describing(owner: str, collection: str, source: Source) -> list[Statement]:
    here = (owner, collection, source.id)
    upsert = (
        "INSERT INTO rag_store_documents (owner, collection, id, name, attributes) VALUES (?1, ?2, ?3, ?4, ?5) "
        "ON CONFLICT (owner, collection, id) DO UPDATE SET name = excluded.name, attributes = excluded.attributes"
    )
    insert = (
        "INSERT INTO rag_store_attributes (owner, collection, document, name, text, number) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    )
    return [
        Statement(upsert, (*here, source.name, json.dumps(dict(source.attributes)))),
        Statement("DELETE FROM rag_store_attributes WHERE owner = ?1 AND collection = ?2 AND document = ?3", here),
        *(Statement(insert, (*here, name, *columns(value))) for name, value in source.attributes.items()),
    ]


def _inserting(owner: str, collection: str, document: str, position: int, new: NewChunk, vector: Vectors) -> Statement:
    chunk = new.chunk
    return Statement(
        "INSERT INTO rag_store_chunks (owner, collection, id, document, position, text, page, start_at, end_at, "
        "tokens, headings, metadata, embedding) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
        "CAST(CAST(?13 AS TEXT) AS vector))",
        (
            owner,
            collection,
            new.id,
            document,
            position,
            chunk.text,
            chunk.page,
            chunk.start,
            chunk.end,
            chunk.tokens,
            json.dumps(chunk.headings),
            json.dumps(dict(new.metadata)),
            _text(vector),
        ),
    )


def _text(vector: Vectors) -> str:
    """A vector as pgvector reads it; nine digits give each float32 back exactly."""
    return "[" + ",".join(f"{number:.9g}" for number in vector.tolist()) + "]"


def _missing(collection: str) -> NotFound:
    return NotFound(f"no collection {collection[:80]!r}; list what you have first")
