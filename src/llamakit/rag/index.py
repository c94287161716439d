"""The library: documents go in, are read, cut, embedded and kept; a question brings back the best chunks.

Every document is a row: pending, done, or failed with the reason, so what went in is always what is
done plus what failed plus what waits. Ingesting again replaces, so it may be repeated after a crash.
Reading, embedding and reranking are passed in; this file owns the order of things.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llamakit.core.errors import Conflict, DocumentError, InvalidRequest, LlamakitError, NotFound
from llamakit.rag.chunk import Chunk, ChunkSettings, CountTokens, chunk
from llamakit.rag.embed import Embedder, normalized
from llamakit.rag.filters import AttributeValue, Filter, check_attributes
from llamakit.rag.fuse import MODES, Fusion, Mode, fuse
from llamakit.rag.parse import Parsed, parse
from llamakit.rag.vector.store import ChunkStore, Hit, NewChunk, Source, StoredChunk
from llamakit.storage.ids import CHUNK, DOCUMENT, IdKind
from llamakit.storage.sql import Database, Executor, Row
from llamakit.storage.tables import Table, create_owned

State = Literal["pending", "done", "failed"]

MAX_RESULTS = 200
_CANDIDATES = 4
"""Times the results asked for that each list brings to a fusion or a reranker; at least 20."""

_COLLECTION = IdKind("vs_", "collection")
COLLECTIONS = Table("rag_collections", ("embedder", "dimension"), ids=_COLLECTION)
DOCUMENTS = Table(
    "rag_documents", ("collection", "document", "name", "state", "reason", "attributes", "chunks", "tokens"), DOCUMENT
)

Reader = Callable[[str, bytes], Awaitable[Parsed]]
"""A file's name and bytes to its pages."""

Rerank = Callable[[str, Sequence[str]], Awaitable[Sequence[float]]]
"""A question and texts to one score each, more is better."""


async def create_library(transaction: Executor) -> None:
    """The migration that makes the library's tables."""
    statements = [
        *create_owned("rag_collections", "embedder TEXT NOT NULL", "dimension BIGINT NOT NULL"),
        *create_owned(
            "rag_documents",
            "collection TEXT NOT NULL",
            "document TEXT NOT NULL",
            "name TEXT NOT NULL",
            "state TEXT NOT NULL",
            "reason TEXT",
            "attributes TEXT NOT NULL",
            "chunks BIGINT NOT NULL",
            "tokens BIGINT NOT NULL",
        ),
        "CREATE UNIQUE INDEX rag_documents_named ON rag_documents (owner, collection, document)",
    ]
    for sql in statements:
        await transaction.execute(sql)


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a collection."""

    id: str
    name: str
    state: State
    reason: str | None
    """Why it failed."""
    attributes: Mapping[str, AttributeValue]
    chunks: int
    tokens: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Documents of a collection by state; together they are all that were ever added and not removed."""

    pending: int
    done: int
    failed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.done + self.failed


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk that answers, and how well: scores compare within one search only."""

    stored: StoredChunk
    score: float


class Library:
    """Collections of documents, each searched with the embedder it was made with."""

    def __init__(
        self,
        database: Database,
        store: ChunkStore,
        embedders: Callable[[str], Awaitable[Embedder]],
        count: CountTokens,
        *,
        read: Reader = parse,
        rerank: Rerank | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._embedders = embedders
        self._count = count
        self._read = read
        self._rerank = rerank

    async def create(self, owner: str, collection: str, embedder: str) -> None:
        """Make a collection whose chunks are embedded by the model named; `Conflict` where it exists."""
        dimension = (await self._embedders(embedder)).dimension
        row = {"embedder": embedder, "dimension": dimension}
        await COLLECTIONS.of(self._database, owner).insert(collection, row)
        try:
            await self._store.create(owner, collection, dimension)
        except LlamakitError:
            await COLLECTIONS.of(self._database, owner).delete(collection)
            raise

    async def dimension(self, owner: str, collection: str) -> int:
        """How long the vectors of a collection are."""
        return (await COLLECTIONS.of(self._database, owner).get(collection))["dimension"]

    async def drop(self, owner: str, collection: str) -> None:
        """Remove a collection, its documents and chunks."""
        collections = COLLECTIONS.of(self._database, owner)
        await collections.get(collection)
        try:
            await self._store.drop(owner, collection)
        except NotFound:
            pass  # a kill between the row and the store, in making or in dropping, left only the row
        await DOCUMENTS.of(self._database, owner).delete_where({"collection": collection})
        await collections.delete(collection)

    async def add(
        self,
        owner: str,
        collection: str,
        document: str,
        name: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that a document waits to be ingested; one of that id is taken anew."""
        await COLLECTIONS.of(self._database, owner).get(collection)
        kept = json.dumps(check_attributes(attributes or {}))
        documents = DOCUMENTS.of(self._database, owner)
        row = {"name": name, "state": "pending", "reason": None, "attributes": kept, "chunks": 0, "tokens": 0}
        try:
            await documents.insert(DOCUMENT.new(), {"collection": collection, "document": document, **row})
        except Conflict:
            found = await self._row(owner, collection, document)
            await documents.update(found["id"], row)

    async def ingest(
        self, owner: str, collection: str, document: str, data: bytes, settings: ChunkSettings | None = None
    ) -> Document:
        """Read, cut, embed and keep a document that was added.

        A document that cannot be read ends as failed with the reason and raises nothing; an error
        that may pass (a full disk, an embedder that is away) is raised and leaves it pending.
        """
        row = await self._row(owner, collection, document)
        try:
            parsed = await self._read(row["name"], data)
            headings = parsed.kind not in ("code", "csv", "tsv", "json", "jsonl")
            chunks = await asyncio.to_thread(chunk, parsed.pages, self._count, settings, headings=headings)
            if not chunks:
                raise DocumentError("it holds no text")
        except (DocumentError, InvalidRequest) as error:
            await self._store.remove(owner, collection, document)
            return await self._settle(owner, collection, document, "failed", str(error))
        return await self.put(owner, collection, document, chunks)

    async def put(
        self,
        owner: str,
        collection: str,
        document: str,
        chunks: Sequence[Chunk],
        *,
        vectors: Any = None,
        metadata: Sequence[Mapping[str, Any]] = (),
    ) -> Document:
        """Keep chunks that were cut elsewhere, embedding them unless their vectors are given."""
        row = await self._row(owner, collection, document)
        found = await COLLECTIONS.of(self._database, owner).get(collection)
        if vectors is None:
            embedder = await self._embedders(found["embedder"])
            vectors = await embedder.embed([piece.text for piece in chunks], "document")
        rows = normalized(vectors, len(chunks), found["dimension"])
        extra = metadata or [{}] * len(chunks)
        if len(extra) != len(chunks):
            raise InvalidRequest(f"{len(chunks)} chunks came with {len(extra)} metadata", param="chunks")
        new = [NewChunk(CHUNK.new(), piece, facts) for piece, facts in zip(chunks, extra, strict=True)]
        await self._store.put(owner, collection, _source(row), new, rows)
        tokens = sum(piece.tokens for piece in chunks)
        try:
            return await self._settle(owner, collection, document, "done", None, len(chunks), tokens)
        except NotFound:
            # It was removed while it was embedded; its chunks must not outlive it.
            await self._store.remove(owner, collection, document)
            raise

    async def describe(self, owner: str, collection: str, document: str, attributes: Mapping[str, Any]) -> Document:
        """Change a document's attributes."""
        row = await self._row(owner, collection, document)
        kept = json.dumps(check_attributes(attributes))
        await DOCUMENTS.of(self._database, owner).update(row["id"], {"attributes": kept})
        row = await self._row(owner, collection, document)
        if row["state"] == "done":
            await self._store.describe(owner, collection, _source(row))
        return _document(row)

    async def remove(self, owner: str, collection: str, document: str) -> None:
        """Take a document and its chunks out of a collection."""
        row = await self._row(owner, collection, document)
        await self._store.remove(owner, collection, document)
        await DOCUMENTS.of(self._database, owner).delete(row["id"])

    async def get(self, owner: str, collection: str, document: str) -> Document:
        """One document, or `NotFound`."""
        return _document(await self._row(owner, collection, document))

    async def documents(self, owner: str, collection: str, state: State | None = None) -> list[Document]:
        """The documents of a collection, oldest first."""
        await COLLECTIONS.of(self._database, owner).get(collection)
        where = {"collection": collection} | ({"state": state} if state else {})
        return [_document(row) for row in await DOCUMENTS.of(self._database, owner).find(where)]

    async def counts(self, owner: str, collection: str) -> Counts:
        """How many documents wait, are done and failed."""
        await COLLECTIONS.of(self._database, owner).get(collection)
        documents = DOCUMENTS.of(self._database, owner)
        states = ("pending", "done", "failed")
        return Counts(*[await documents.count({"collection": collection, "state": state}) for state in states])

    async def chunks_of(self, owner: str, collection: str, document: str) -> list[StoredChunk]:
        """The chunks of a document, in its order."""
        await self._row(owner, collection, document)
        return await self._store.chunks_of(owner, collection, document)

    async def search(
        self,
        owner: str,
        collection: str,
        query: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
        fusion: Fusion | None = None,
        least: float | None = None,
        rerank: bool = False,
    ) -> list[Found]:
        """The `k` best chunks, best first. `least`: a score below which chunks are left out."""
        if not 1 <= k <= MAX_RESULTS:
            raise InvalidRequest(f"max_num_results must be in [1, {MAX_RESULTS}], got {k}", param="max_num_results")
        if mode not in MODES:
            raise InvalidRequest(f"search_mode is one of {', '.join(MODES)}, got {mode!r}", param="search_mode")
        if rerank and self._rerank is None:
            raise InvalidRequest("no reranker is configured; search without", param="ranking_options")
        found = await COLLECTIONS.of(self._database, owner).get(collection)
        wide = max(20, _CANDIDATES * k) if mode == "hybrid" or rerank else k
        hits = await self._hits(owner, found, query, wide, mode, filter, fusion or Fusion())
        loaded = await self._store.load(owner, collection, [hit.id for hit in hits])
        scores = {hit.id: hit.score for hit in hits}
        results = [Found(stored, scores[stored.id]) for stored in loaded]
        if rerank:
            results = await self._reranked(query, results)
        return [result for result in results if least is None or result.score >= least][:k]

    async def _hits(
        self, owner: str, collection: Row, query: str, k: int, mode: Mode, filter: Filter | None, fusion: Fusion
    ) -> list[Hit]:
        by_vector: list[Hit] = []
        if mode != "keyword":
            embedder = await self._embedders(collection["embedder"])
            vector = (await embedder.embed([query], "query"))[0]
            by_vector = await self._store.nearest(owner, collection["id"], vector, k, filter)
        if mode == "vector":
            return by_vector
        by_word = await self._store.matching(owner, collection["id"], query, k, filter)
        return by_word if mode == "keyword" else fuse(by_vector, by_word, fusion)

    async def _reranked(self, query: str, results: Sequence[Found]) -> list[Found]:
        if self._rerank is None or not results:
            return list(results)
        scores = await self._rerank(query, [result.stored.chunk.text for result in results])
        if len(scores) != len(results):
            raise InvalidRequest(f"the reranker scored {len(scores)} of {len(results)} texts", param="ranking_options")
        scored = [replace(result, score=float(score)) for result, score in zip(results, scores, strict=True)]
        return sorted(scored, key=lambda result: -result.score)

    async def _row(self, owner: str, collection: str, document: str) -> Row:
        rows = await DOCUMENTS.of(self._database, owner).find({"collection": collection, "document": document})
        if not rows:
            raise DOCUMENT.missing(document)
        return rows[0]

    async def _settle(
        self,
        owner: str,
        collection: str,
        document: str,
        state: State,
        reason: str | None,
        chunks: int = 0,
        tokens: int = 0,
    ) -> Document:
        row = await self._row(owner, collection, document)
        changes = {"state": state, "reason": reason, "chunks": chunks, "tokens": tokens}
        await DOCUMENTS.of(self._database, owner).update(row["id"], changes)
        return _document({**row, **changes})


def _source(row: Row) -> Source:
    return Source(row["document"], row["name"], json.loads(row["attributes"]))


def _document(row: Row) -> Document:
    return Document(
        id=row["document"],
        name=row["name"],
        state=row["state"],
        reason=row["reason"],
        attributes=json.loads(row["attributes"]),
        chunks=row["chunks"],
        tokens=row["tokens"],
        created_ns=row["created_ns"],
    )
