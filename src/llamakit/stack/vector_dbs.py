"""Llama Stack's vector databases: names of a client's own choice for vector stores, and the chunks put there.

A name is kept beside its store. A store is also a database by its own id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamakit.api.llama_stack_vector_io import LlamaStackVectorDbRequest, NewChunks, chunk_body
from llamakit.api.openai_lists import PageQuery
from llamakit.api.vector_stores import WireStoreRequest
from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.rag.chunk import Chunk
from llamakit.rag.fuse import Fusion, Mode
from llamakit.rag.index import Found
from llamakit.stack.storage import Storage
from llamakit.stack.vector_stores import VectorStores
from llamakit.storage.ids import VECTOR_STORE, IdKind
from llamakit.storage.sql import Executor, Row
from llamakit.storage.tables import Owned, Table, create_owned

VECTOR_DB = IdKind("vdb_", "vector database")
"""Databases are named by their makers; this gives the words for one that is not there."""
NAMES = Table("vector_dbs", ("store", "model", "dimension", "title"), ids=VECTOR_DB)
MAX_LISTED = 1000
PROVIDER = "local"
"""Who keeps the vectors, where the configuration gives it no name."""


async def create_vector_dbs(transaction: Executor) -> None:
    """The migration that makes the table of names."""
    columns = ("store TEXT NOT NULL", "model TEXT NOT NULL", "dimension BIGINT NOT NULL", "title TEXT")
    for sql in create_owned("vector_dbs", *columns):
        await transaction.execute(sql)


class VectorDbs:
    """The vector databases of one server."""

    def __init__(self, storage: Storage, stores: VectorStores, provider_id: str | None = None) -> None:
        self._storage = storage
        self._stores = stores
        self._provider = provider_id or PROVIDER

    async def register(self, owner: str, wire: LlamaStackVectorDbRequest) -> dict[str, Any]:
        """A store of that name; the same registration again changes nothing, another one is a `Conflict`."""
        id = wire.vector_db_id
        if VECTOR_STORE.is_valid(id):
            raise InvalidRequest(f"vector_db_id must not look like a vector store's, got {id!r}", param="vector_db_id")
        known = await self._row(owner, id)
        if known is None:
            asked = WireStoreRequest(
                name=wire.vector_db_name or id,
                embedding_model=wire.embedding_model,
                embedding_dimension=wire.embedding_dimension,
                metadata={"vector_db_id": id},
            )
            store = (await self._stores.create(owner, asked))["id"]
            model, dimension = await self._stores.embedding_of(owner, store)
            row = {"store": store, "model": model, "dimension": dimension, "title": wire.vector_db_name}
            try:
                await (await self._rows(owner)).insert(id, row)
            except BaseException:
                await self._stores.delete(owner, store)
                raise
            return self._body(id, row)
        is_same = known["model"] == wire.embedding_model and wire.embedding_dimension in (None, known["dimension"])
        if not is_same:
            raise Conflict(
                f"vector database {id!r} is registered already, with {known['model']!r}; unregister it first"
            )
        return self._body(id, known)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A database by its name or by its store's id, or `NotFound`."""
        row = await self._row(owner, id)
        if row is not None:
            return self._body(id, row)
        model, dimension = await self._stores.embedding_of(owner, await self.store_of(owner, id))
        return self._body(id, {"store": id, "model": model, "dimension": dimension, "title": None})

    async def list(self, owner: str) -> Sequence[dict[str, Any]]:
        """The named databases, and after them the stores that have no such name."""
        rows = await (await self._rows(owner)).find(limit=MAX_LISTED)
        made = [self._body(row["id"], row) for row in rows]
        named = {row["store"] for row in rows}
        after = None
        while len(made) < MAX_LISTED:
            page = await self._stores.list(owner, PageQuery(after=after, limit=100, order="asc"))
            made += [await self.get(owner, store["id"]) for store in page["data"] if store["id"] not in named]
            if not page["has_more"]:
                break
            after = page["last_id"]
        return made

    async def unregister(self, owner: str, id: str) -> None:
        """Delete a database with its chunks, or `NotFound`."""
        store = await self.store_of(owner, id)
        try:
            await self._stores.delete(owner, store)
        except NotFound:
            if store == id:
                raise
        if store != id:
            await (await self._rows(owner)).delete(id)

    async def store_of(self, owner: str, id: str) -> str:
        """The store that a name or a store's own id means; `NotFound` for a name that is none."""
        if VECTOR_STORE.is_valid(id):
            return id
        row = await self._row(owner, id)
        if row is None:
            raise VECTOR_DB.missing(id)
        return row["store"]

    async def insert(self, owner: str, id: str, documents: Sequence[NewChunks]) -> None:
        """Keep chunks, those sent before in their place; each document is acknowledged as a whole."""
        store = await self.store_of(owner, id)
        for new in documents:
            pieces = zip(new.texts, new.tokens, strict=True)
            chunks = [Chunk(text, None, 0, len(text), tokens) for text, tokens in pieces]
            await self._stores.put_chunks(
                owner, store, new.document, new.facts[0]["document"], chunks, vectors=new.vectors, metadata=new.facts
            )

    async def query(
        self,
        owner: str,
        id: str,
        query: str,
        *,
        limit: int,
        mode: Mode = "vector",
        threshold: float = 0.0,
        fusion: Fusion | None = None,
    ) -> list[tuple[dict[str, Any], float]]:
        """The best chunks as they go over the wire, with their scores, best first."""
        store = await self.store_of(owner, id)
        model, dimension = await self._stores.embedding_of(owner, store)
        found = await self._stores.query_chunks(
            owner, store, query, limit=limit, mode=mode, threshold=threshold, fusion=fusion
        )
        return [(_shown(result, model, dimension), result.score) for result in found]

    def _body(self, id: str, row: Row) -> dict[str, Any]:
        return {
            "identifier": id,
            "type": "vector_db",
            "provider_id": self._provider,
            "provider_resource_id": row["store"],
            "embedding_model": row["model"],
            "embedding_dimension": row["dimension"],
            "vector_db_name": row["title"],
        }

    async def _row(self, owner: str, id: str) -> Row | None:
        return next(iter(await (await self._rows(owner)).find({"id": id})), None)

    async def _rows(self, owner: str) -> Owned:
        return NAMES.of(await self._storage.database(), owner)


def _shown(result: Found, model: str, dimension: int) -> dict[str, Any]:
    stored = result.stored
    document = stored.metadata.get("document", stored.document)
    return chunk_body(
        stored.id, stored.chunk.text, stored.metadata, document=document, model=model, dimension=dimension
    )
