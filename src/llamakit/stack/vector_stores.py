"""Vector stores: collections of files that can be searched by meaning, by words, or by both.

Each store remembers the model that makes its vectors. The files in it are `vector_files`, the work behind them is
`ingestion`, how chunks are kept and found is the room `rag`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamakit.api.openai_lists import PageQuery, list_body
from llamakit.api.vector_stores import (
    AUTO_OVERLAP,
    AUTO_TOKENS,
    WireStoreRequest,
    WireStoreUpdate,
    read_chunking,
)
from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.rag import index
from llamakit.rag.chunk import Chunk
from llamakit.rag.fuse import Fusion, Mode
from llamakit.stack.chunk_stores import Chunks
from llamakit.stack.embedders import Embedders
from llamakit.stack.files import Files
from llamakit.stack.ingestion import Ingestion
from llamakit.stack.storage import Storage
from llamakit.stack.vector_files import VectorFiles, Wanted
from llamakit.stack.vector_search import Found, VectorSearch
from llamakit.stack.vector_tables import ATTACHMENT, STORES, expires_ns, store_body, tallies
from llamakit.storage.ids import VECTOR_STORE
from llamakit.storage.sql import Row, Statement

TOUCHED_EVERY_NS = 60 * 10**9
"""A search counts as use, but is not worth a write each time."""


class VectorStores:
    """The vector stores of one server."""

    def __init__(
        self,
        storage: Storage,
        files: Files,
        embedders: Embedders,
        chunks: Chunks,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._embedders = embedders
        self._chunks = chunks
        self._search = VectorSearch(storage, chunks)
        self._clock = clock
        self.ingestion = Ingestion(storage, files, chunks)
        self.files = VectorFiles(storage, files, chunks, self.ingestion)

    async def start(self) -> None:
        """Go on with what a process before this one left; a second call does nothing."""
        await self.ingestion.background.start()

    async def aclose(self) -> None:
        """Stop ingesting, and close the chunks; what is unfinished goes on at the next start."""
        try:
            await self.ingestion.background.aclose()
        finally:
            await self._chunks.aclose()

    async def create(self, owner: str, wire: WireStoreRequest) -> dict[str, Any]:
        """A new store, with its first files if some are named."""
        chunking = read_chunking(wire.chunking_strategy)
        wanted = [Wanted(file=file, chunking=chunking) for file in wire.file_ids or ()]
        name = wire.embedding_model or await self._embedders.default()
        embedder = await self._embedders(name)
        if wire.embedding_dimension not in (None, embedder.dimension):
            raise InvalidRequest(
                f"vectors of {name} have {embedder.dimension} numbers, not {wire.embedding_dimension}",
                param="embedding_dimension",
            )
        id, library = VECTOR_STORE.new(), await self._chunks.library()
        row = {
            "name": wire.name or "",
            "description": wire.description,
            "metadata": json.dumps(wire.metadata or {}),
            "embedder": name,
            "dimension": embedder.dimension,
            "expires_days": None if wire.expires_after is None else wire.expires_after.days,
            "active_ns": self._now(),
            "is_expired": 0,
        }
        inserting = STORES.of(await self._storage.database(), owner).inserting(id, row)
        await library.create(owner, id, name)
        try:
            await self.files.run(owner, id, wanted, [inserting])
        except BaseException:
            await self.ingestion.drop(owner, id)
            raise
        return await self.get(owner, id)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A store, or `NotFound`."""
        return (await self._bodies(owner, [await self._row(owner, id)]))[0]

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """A page of stores."""
        rows = STORES.of(await self._storage.database(), owner)
        found = await rows.page(order=page.order, limit=page.limit, after=page.after, before=page.before)
        return list_body(await self._bodies(owner, found.rows), has_more=found.has_more)

    async def update(self, owner: str, id: str, wire: WireStoreUpdate) -> dict[str, Any]:
        """Change what the request names; the rest stays."""
        await self._row(owner, id)
        changes: dict[str, Any] = {"active_ns": self._now()}
        if "name" in wire.model_fields_set:
            changes["name"] = wire.name or ""
        if "metadata" in wire.model_fields_set:
            changes["metadata"] = json.dumps(wire.metadata or {})
        if "expires_after" in wire.model_fields_set:
            changes["expires_days"] = None if wire.expires_after is None else wire.expires_after.days
        await STORES.of(await self._storage.database(), owner).update(id, changes)
        return await self.get(owner, id)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """Delete a store and its chunks; the files stay."""
        VECTOR_STORE.check(id)
        database = await self._storage.database()
        await database.run(
            STORES.of(database, owner).deleting(id),
            Statement("DELETE FROM vector_store_files WHERE owner = ?1 AND store = ?2", (owner, id)),
            Statement("DELETE FROM vector_store_batches WHERE owner = ?1 AND store = ?2", (owner, id)),
            await self.ingestion.dropping(owner, id),
        )
        await self.ingestion.drop(owner, id)
        return {"id": id, "object": "vector_store.deleted", "deleted": True}

    async def attach(
        self,
        owner: str,
        store: str,
        file_id: str,
        attributes: Mapping[str, Any] | None = None,
        chunking: tuple[int, int] = (AUTO_TOKENS, AUTO_OVERLAP),
    ) -> dict[str, Any]:
        """Attach a file; it is ingested behind this call."""
        return await self.files.attach(
            owner, store, Wanted(file=file_id, attributes=attributes or {}, chunking=chunking)
        )

    async def search(
        self,
        owner: str,
        store: str,
        query: str | Sequence[str],
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int = 10,
        mode: Mode = "hybrid",
        threshold: float = 0.0,
        fusion: Fusion | None = None,
    ) -> Sequence[Found]:
        """The best chunks for a question, or for several: then each chunk counts by the question it fits best.

        `filters` is a wire object, as `rag.filters` reads it; results scored below `threshold` are left out.
        """
        row = await self._row(owner, store)
        if row["is_expired"]:
            raise InvalidRequest(f"vector store {store} has expired; make another", param="vector_store_id")
        await self._touch(owner, row)
        queries = [query] if isinstance(query, str) else query
        return await self._search.files(owner, store, queries, filters, limit, mode, threshold, fusion)

    async def put_chunks(
        self,
        owner: str,
        store: str,
        document: str,
        name: str,
        chunks: Sequence[Chunk],
        *,
        vectors: Any = None,
        metadata: Sequence[Mapping[str, Any]] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep chunks that a client cut itself, under a document of its own, embedding them unless vectors come too."""
        if ATTACHMENT.is_valid(document):
            raise InvalidRequest(f"document ids do not begin with {ATTACHMENT.prefix}", param="document_id")
        row = await self._row(owner, store)
        library = await self._chunks.library()
        await library.add(owner, store, document, name, attributes)
        await library.put(owner, store, document, chunks, vectors=vectors, metadata=metadata)
        await self._touch(owner, row)

    async def query_chunks(
        self,
        owner: str,
        store: str,
        query: str,
        *,
        limit: int = 10,
        mode: Mode = "vector",
        threshold: float = 0.0,
        fusion: Fusion | None = None,
    ) -> Sequence[index.Found]:
        """The best chunks with all that is kept of them, their metadata too."""
        await self._row(owner, store)
        found = await self._search.chunks(owner, store, query, limit, mode, fusion=fusion)
        return [result for result in found if result.score >= threshold][:limit]

    async def embedding_of(self, owner: str, store: str) -> tuple[str, int]:
        """The model that makes a store's vectors, and how long they are."""
        row = await self._row(owner, store)
        return row["embedder"], row["dimension"]

    async def expire(self) -> int:
        """Drop the chunks of the stores of everybody that nobody used for too long; how many."""
        database = await self._storage.database()
        rows = await database.fetch("SELECT * FROM vector_stores WHERE expires_days IS NOT NULL AND is_expired = 0")
        expired = [row for row in rows if (expires_ns(row) or 0) <= self._now()]
        for row in expired:
            try:
                await database.run(
                    STORES.of(database, row["owner"]).updating(
                        row["id"], {"is_expired": 1}, when={"active_ns": row["active_ns"]}
                    ),
                    await self.ingestion.dropping(row["owner"], row["id"]),
                )
            except (Conflict, NotFound):
                continue  # it was used or deleted meanwhile
            await self.ingestion.drop(row["owner"], row["id"])
        return len(expired)

    async def _row(self, owner: str, id: str) -> Row:
        return await self.files.store(owner, id)

    async def _bodies(self, owner: str, rows: Sequence[Row]) -> Sequence[dict[str, Any]]:
        counted = await tallies(await self._storage.database(), owner, "store", [row["id"] for row in rows])
        return [store_body(row, counted[row["id"]]) for row in rows]

    async def _touch(self, owner: str, row: Row) -> None:
        if self._now() - row["active_ns"] >= TOUCHED_EVERY_NS:
            await STORES.of(await self._storage.database(), owner).update(row["id"], {"active_ns": self._now()})

    def _now(self) -> int:
        return int(self._clock() * 1e9)
