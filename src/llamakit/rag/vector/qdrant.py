"""Chunks in Qdrant: a collection for each of ours, with a vector of meaning and a sparse one of words for each chunk.

Qdrant has no transactions, so new chunks of a document are written unseen, all of them, and one request shows them
and removes those before: a kill in between leaves the old ones, and unseen ones that go with the next put. Where two
put the same document at once, the younger one stays. How requests travel is passed in.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from llamakit.core.errors import Conflict, LlamakitError, NotFound, RemoteFailed
from llamakit.core.faults import fault
from llamakit.rag.embed import Vectors
from llamakit.rag.filters import Filter
from llamakit.rag.vector.qdrant_points import (
    FACTS,
    INDEXES,
    MEANING,
    SEEN,
    WORDS,
    Condition,
    chunk_of,
    collection_body,
    condition_of,
    is_equal,
    living,
    orders_texts,
    point_id,
    point_of,
    query_words,
    source_payload,
    text_limit,
)
from llamakit.rag.vector.store import Hit, NewChunk, Source, StoredChunk

Call = Callable[[str, str, Any], Awaitable[Any]]
"""Method, path and body to the `result` of the answer; `NotFound` for 404, `Conflict` for 409."""

MAX_FACTS = 1000
"""Different attributes that are looked through for a filter which puts texts in order."""
_PAGE = 256
_BATCH_BYTES, _BATCH_POINTS = 8 << 20, 256
"""Of one upsert; Qdrant takes 32 MiB unless told otherwise, and a text may take more room as JSON than it has bytes."""


class QdrantChunks:
    """Chunk stores of one Qdrant."""

    def __init__(self, call: Call, *, prefix: str = "llamakit", exact: bool = False) -> None:
        self._call = call
        self._prefix = prefix
        self._params = {"exact": True} if exact else None
        self._generation = 0

    async def create(self, owner: str, collection: str, dimension: int) -> None:
        """Make an empty collection and the indexes of what it is filtered by."""
        path = self._path(owner, collection)
        try:
            await self._call("PUT", path, collection_body(dimension))
        except Conflict as error:
            raise Conflict(f"a collection {collection!r} exists; choose another id") from error
        try:
            for field, schema in INDEXES.items():
                await self._call("PUT", f"{path}/index?wait=true", {"field_name": field, "field_schema": schema})
        except LlamakitError:
            await self._call("DELETE", path, None)
            raise

    async def drop(self, owner: str, collection: str) -> None:
        """Remove a collection."""
        if not await self._call("DELETE", self._path(owner, collection), None):
            raise _missing(collection)

    async def put(
        self, owner: str, collection: str, source: Source, chunks: Sequence[NewChunk], vectors: Vectors
    ) -> None:
        """Write the chunks unseen, then show them and remove what the document had before."""
        self._generation = generation = max(time.time_ns() // 1000, self._generation + 1)
        here = [is_equal("owner", owner), is_equal("document", source.id)]
        mine = {"must": [*here, is_equal("generation", generation)]}
        older = {"must": [*here, {"key": "generation", "range": {"lt": generation}}]}
        points = [
            point_of(owner, source, generation, n, new, vector)
            for n, (new, vector) in enumerate(zip(chunks, vectors, strict=True))
        ]
        for batch in _batches(points):
            await self._ask(owner, collection, "PUT", "points?wait=true", {"points": batch})
            fault("qdrant.between_batches")
        shown = {"set_payload": {"payload": SEEN, "filter": mine}}
        await self._change(owner, collection, shown, {"delete": {"filter": older}})
        younger = living(owner, is_equal("document", source.id), {"key": "generation", "range": {"gt": generation}})
        found = await self._ask(owner, collection, "POST", "points/count", {"filter": younger, "exact": True})
        if found["count"]:
            await self._change(owner, collection, {"delete": {"filter": mine}})

    async def describe(self, owner: str, collection: str, source: Source) -> None:
        """Change a document's name and attributes, on all its chunks in one operation."""
        here = {"must": [is_equal("owner", owner), is_equal("document", source.id)]}
        change = {"set_payload": {"payload": source_payload(source), "filter": here}}
        await self._change(owner, collection, change)

    async def remove(self, owner: str, collection: str, document: str) -> None:
        """Remove a document."""
        here = {"must": [is_equal("owner", owner), is_equal("document", document)]}
        await self._change(owner, collection, {"delete": {"filter": here}})

    async def nearest(
        self, owner: str, collection: str, vector: Vectors, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """Search by Qdrant's graph, or by all vectors where the collection is small or `exact` was set."""
        return await self._query(owner, collection, vector.tolist(), MEANING, k, filter)

    async def matching(
        self, owner: str, collection: str, query: str, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """BM25 over the words of the query, by the sparse vectors."""
        words = query_words(query)
        return [] if words is None else await self._query(owner, collection, words, WORDS, k, filter)

    async def load(self, owner: str, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """These chunks, in this order."""
        body = {"ids": [point_id(id) for id in ids], "with_payload": True, "with_vector": False}
        found = {
            chunk.id: chunk for chunk in _chunks(await self._ask(owner, collection, "POST", "points", body), owner)
        }
        return [found[id] for id in ids if id in found]

    async def chunks_of(self, owner: str, collection: str, document: str) -> list[StoredChunk]:
        """Every chunk of a document."""
        points: list[Any] = []
        body: dict[str, Any] = {
            "filter": living(owner, is_equal("document", document)),
            "limit": _PAGE,
            "with_payload": True,
            "with_vector": False,
        }
        while True:
            page = await self._ask(owner, collection, "POST", "points/scroll", body)
            points += page["points"]
            if page.get("next_page_offset") is None:
                break
            body["offset"] = page["next_page_offset"]
        return _chunks(sorted(points, key=lambda point: point["payload"]["position"]), owner)

    async def close(self) -> None:
        """Nothing of its own is open; connections belong to who gave the call."""

    async def _query(
        self, owner: str, collection: str, query: Any, using: str, k: int, filter: Filter | None
    ) -> list[Hit]:
        more = [] if filter is None else [await self._condition(owner, collection, filter)]
        body = {
            "query": query,
            "using": using,
            "filter": living(owner, *more),
            "limit": k,
            "with_payload": ["id"],
            "with_vector": False,
        }
        body |= {"params": self._params} if self._params and using == MEANING else {}
        found = await self._ask(owner, collection, "POST", "points/query", body)
        return [Hit(point["payload"]["id"], point["score"]) for point in found["points"]]

    async def _condition(self, owner: str, collection: str, filter: Filter) -> Condition:
        if not orders_texts(filter):
            return condition_of(filter)
        body = {"key": FACTS, "limit": MAX_FACTS + 1, "exact": True, "filter": living(owner)}
        found = await self._ask(owner, collection, "POST", "facet", body)
        if len(found["hits"]) > MAX_FACTS:
            raise text_limit(MAX_FACTS)
        return condition_of(filter, [hit["value"] for hit in found["hits"]])

    async def _change(self, owner: str, collection: str, *operations: Condition) -> None:
        """Make changes in their order, in one request that is answered when they can be read."""
        await self._ask(owner, collection, "POST", "points/batch?wait=true", {"operations": list(operations)})

    async def _ask(self, owner: str, collection: str, method: str, path: str, body: Any) -> Any:
        try:
            return await self._call(method, f"{self._path(owner, collection)}/{path}", body)
        except NotFound as error:
            raise _missing(collection) from error

    def _path(self, owner: str, collection: str) -> str:
        """A name that only this owner's collection of this id has, whatever characters they are spelled with."""
        digest = hashlib.sha256(f"{len(owner)} {owner} {collection}".encode()).hexdigest()
        return f"/collections/{self._prefix}-{digest[:40]}"


def _chunks(points: Sequence[Any], owner: str) -> list[StoredChunk]:
    try:
        payloads = [point["payload"] for point in points]
        seen = (owner, SEEN["state"])
        return [chunk_of(payload) for payload in payloads if (payload["owner"], payload["state"]) == seen]
    except (KeyError, TypeError) as error:
        raise RemoteFailed(f"Qdrant holds a point in our collection that was not made here: {error!r}") from error


def _batches(points: Sequence[Condition]) -> Iterator[list[Condition]]:
    """The points in requests of bounded size."""
    batch: list[Condition] = []
    room = _BATCH_BYTES
    for point in points:
        # A number takes at most 24 characters; what else there is beside the text is small.
        size = 24 * len(point["vector"][MEANING]) + len(point["payload"]["text"].encode("utf-8", "replace")) + 4096
        if batch and (size > room or len(batch) == _BATCH_POINTS):
            yield batch
            batch, room = [], _BATCH_BYTES
        batch.append(point)
        room -= size
    if batch:
        yield batch


def _missing(collection: str) -> NotFound:
    return NotFound(f"no collection {collection[:80]!r}; list what you have first")
