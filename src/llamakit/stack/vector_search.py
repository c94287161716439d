"""Searching a vector store: ranking options to a fusion, several questions to one list, chunks to their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.api.vector_search import WireRanking
from llamakit.core.errors import InvalidRequest
from llamakit.rag import index
from llamakit.rag.filters import AttributeValue, Filter, parse_filter
from llamakit.rag.fuse import Fusion, Mode
from llamakit.stack.chunk_stores import Chunks
from llamakit.stack.storage import Storage
from llamakit.stack.vector_tables import ATTACHMENT, ATTACHMENTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A chunk that answers, and where it stands."""

    file_id: str
    filename: str
    score: float
    """In [0, 1]; comparable within one search only."""
    text: str
    attributes: Mapping[str, AttributeValue]
    page: int | None
    """Page, slide or sheet; None where the document has none."""
    span: tuple[int, int]
    """First character and one past the last, counted within the page."""
    chunk_id: str


class VectorSearch:
    """Searches the stores of one server; whose a store is was checked before."""

    def __init__(self, storage: Storage, chunks: Chunks) -> None:
        self._storage = storage
        self._chunks = chunks

    async def files(
        self,
        owner: str,
        store: str,
        queries: Sequence[str],
        filters: Mapping[str, Any] | None,
        limit: int,
        mode: Mode,
        threshold: float,
        fusion: Fusion | None,
    ) -> list[Found]:
        """The best chunks, best first, by the files they come from."""
        filter = None if filters is None else parse_filter(dict(filters))
        best: dict[str, index.Found] = {}
        for query in queries:
            for result in await self.chunks(owner, store, query, limit, mode, filter=filter, fusion=fusion):
                known = best.get(result.stored.id)
                if known is None or known.score < result.score:
                    best[result.stored.id] = result
        ranked = sorted(best.values(), key=lambda result: -result.score)
        shown = await self._shown(owner, store, [result for result in ranked if result.score >= threshold])
        return shown[:limit]

    async def chunks(
        self,
        owner: str,
        store: str,
        query: str,
        limit: int,
        mode: Mode,
        *,
        filter: Filter | None = None,
        fusion: Fusion | None = None,
    ) -> list[index.Found]:
        """The best chunks for one question, with all that is kept of them."""
        library = await self._chunks.library()
        found = await library.search(owner, store, query, k=limit, mode=mode, filter=filter, fusion=fusion)
        return [index.Found(result.stored, _unit(result.score, mode)) for result in found]

    async def _shown(self, owner: str, store: str, results: Sequence[index.Found]) -> list[Found]:
        """Results by the files they come from; chunks whose file was detached a moment ago are left out."""
        ids = {result.stored.document for result in results if ATTACHMENT.is_valid(result.stored.document)}
        rows = ATTACHMENTS.of(await self._storage.database(), owner)
        where = {"store": store, "id": sorted(ids), "status": "completed"}
        files = {row["id"]: row["file"] for row in await rows.find(where)}
        made = []
        for result in results:
            stored, chunk = result.stored, result.stored.chunk
            file = files.get(stored.document) if stored.document in ids else stored.document
            if file is not None:
                made.append(
                    Found(
                        file_id=file,
                        filename=stored.name,
                        score=result.score,
                        text=chunk.text,
                        attributes=stored.attributes,
                        page=chunk.page,
                        span=(chunk.start, chunk.end),
                        chunk_id=stored.id,
                    )
                )
        return made


def read_ranking(wire: WireRanking | None) -> tuple[Fusion, float]:
    """How lists are put together and the score below which results are left out; raises `InvalidRequest`."""
    if wire is None:
        return Fusion(), 0.0
    threshold = wire.score_threshold or 0.0
    if wire.hybrid_search is not None:
        meaning, words = wire.hybrid_search.embedding_weight, wire.hybrid_search.text_weight
        if meaning + words == 0:
            raise InvalidRequest("one of the two weights must be above 0", param="ranking_options.hybrid_search")
        return Fusion(kind="weighted", alpha=meaning / (meaning + words)), threshold
    if wire.ranker == "weighted":
        return Fusion(kind="weighted", alpha=0.5 if wire.alpha is None else wire.alpha), threshold
    return (Fusion() if wire.impact_factor is None else Fusion(impact=wire.impact_factor)), threshold


def found_body(found: Found) -> dict[str, Any]:
    """A result as OpenAI spells it."""
    return {
        "file_id": found.file_id,
        "filename": found.filename,
        "score": found.score,
        "attributes": dict(found.attributes),
        "content": [{"type": "text", "text": found.text}],
        "page": found.page,
        "span": list(found.span),
    }


def _unit(score: float, mode: Mode) -> float:
    """A score in [0, 1], in the same order: cosines below 0 are 0, and BM25, which has no bound, is squeezed."""
    if mode == "keyword":
        return score / (1 + score) if score > 0 else 0.0
    return min(1.0, max(0.0, score))
