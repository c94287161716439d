"""Documents into vector databases, and questions answered from several at once: what Llama Stack calls its RAG tool.

A document is cut here and kept as chunks; the document itself is not. Who wants files to stay uploads them to a
vector store instead.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.api.llama_stack_content import LlamaStackUrl, to_text
from llamakit.api.llama_stack_rag import (
    LlamaStackDocument,
    LlamaStackRagConfig,
    LlamaStackRagInsert,
    LlamaStackRagQuery,
    LlamaStackRrf,
    LlamaStackWeighted,
    fill,
    result_body,
    separator_of,
)
from llamakit.api.llama_stack_vector_io import NewChunks
from llamakit.api.vector_search import MAX_QUERY_CHARS
from llamakit.core.errors import DocumentError, InvalidRequest
from llamakit.rag.chunk import Chunk, ChunkSettings, chunk
from llamakit.rag.fuse import Fusion
from llamakit.rag.parse import Page, parse
from llamakit.rag.tokens import estimate_tokens
from llamakit.stack.vector_dbs import VectorDbs

OVERLAP = 4
"""One part in so many of a chunk repeats the end of the one before."""


class RagTool:
    """The tool of one server."""

    def __init__(self, dbs: VectorDbs) -> None:
        self._dbs = dbs

    async def insert(self, owner: str, wire: LlamaStackRagInsert) -> None:
        """Cut, embed and keep documents; one that was sent before under its id is replaced.

        Raises `InvalidRequest` for a document that cannot be read; those before it are kept.
        """
        await self._dbs.store_of(owner, wire.vector_db_id)
        size = wire.chunk_size_in_tokens
        settings = ChunkSettings(max_tokens=size, overlap_tokens=size // OVERLAP)
        for index, document in enumerate(wire.documents):
            param = f"documents[{index}].content"
            pages = await _pages(document, param)
            chunks = await asyncio.to_thread(chunk, pages, estimate_tokens, settings)
            if not chunks:
                raise InvalidRequest(f"{param} holds no text", param=param)
            await self._dbs.insert(owner, wire.vector_db_id, [_new_chunks(document, chunks)])

    async def query(self, owner: str, wire: LlamaStackRagQuery) -> dict[str, Any]:
        """The best chunks of all the databases together, as text, up to the number of tokens that is wanted."""
        config = wire.query_config or LlamaStackRagConfig()
        query = _question(wire, separator_of(config))
        found: list[tuple[float, Mapping[str, Any], str]] = []
        for id in wire.vector_db_ids:
            results = await self._dbs.query(
                owner, id, query, limit=config.max_chunks, mode=config.mode or "vector", fusion=_fusion(config)
            )
            found += [(score, shown, id) for shown, score in results]
        best = heapq.nlargest(config.max_chunks, found, key=lambda one: one[0])
        texts: list[str] = []
        room = config.max_tokens_in_context
        for _, shown, _ in best:
            text = fill(config.chunk_template, len(texts) + 1, shown["content"], shown["metadata"])
            room -= estimate_tokens(text)
            if room < 0:
                break
            texts.append(text)
        kept = best[: len(texts)]
        chunks, scores, dbs = [one[1] for one in kept], [one[0] for one in kept], [one[2] for one in kept]
        return result_body(query, texts, chunks, scores, dbs)


def _question(wire: LlamaStackRagQuery, separator: str) -> str:
    text = to_text(wire.content, "content", "a question is", between=separator)
    if not 0 < len(text) <= MAX_QUERY_CHARS:
        raise InvalidRequest(f"content must have 1 to {MAX_QUERY_CHARS} characters, got {len(text)}", param="content")
    return text


def _fusion(config: LlamaStackRagConfig) -> Fusion | None:
    match config.ranker:
        case LlamaStackRrf():
            return Fusion(impact=config.ranker.impact_factor)
        case LlamaStackWeighted():
            return Fusion(kind="weighted", alpha=config.ranker.alpha)
    return None


async def _pages(document: LlamaStackDocument, param: str) -> Sequence[Page]:
    """The text of a document; raises `InvalidRequest` for an address, and for a file that cannot be read."""
    content = document.content
    if isinstance(content, LlamaStackUrl):
        uri, param = content.uri, f"{param}.uri"
    elif isinstance(content, str) and content.startswith("data:"):
        uri = content
    else:
        return [Page(to_text(content, param, "documents here are"))]
    kind, data = _opened(uri, param)
    try:
        return (await parse(document.document_id, data, mime=document.mime_type or kind)).pages
    except DocumentError as fault:
        raise InvalidRequest(f"{param}: {fault}", param=param) from fault


def _opened(uri: str, param: str) -> tuple[str, bytes]:
    """Media type and bytes of a data URL."""
    head, comma, data = uri.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(
            f"{param} must be text or a data URL such as data:application/pdf;base64,...; addresses are not fetched",
            param=param,
        )
    try:
        return head.removeprefix("data:").partition(";")[0], base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise InvalidRequest(f"{param} is not base64: {fault}", param=param) from None


def _new_chunks(document: LlamaStackDocument, chunks: Sequence[Chunk]) -> NewChunks:
    id = document.document_id
    texts = tuple(piece.text for piece in chunks)
    return NewChunks.of(
        id,
        texts,
        tuple(piece.tokens for piece in chunks),
        [{"metadata": {**document.metadata, "document_id": id}, "chunk_metadata": {}} for _ in texts],
        is_whole=True,
    )
