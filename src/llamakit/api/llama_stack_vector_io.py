"""Llama Stack's vector databases and the chunks that a client cuts, embeds, inserts and queries itself.

The classic generation says `vector_db_id`, the newer one `vector_store_id`: either names either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.limits import LIMITS
from llamakit.api.llama_stack_content import LlamaStackContent, to_text
from llamakit.api.vector_search import MAX_QUERY_CHARS
from llamakit.api.wire import FIRST, ModelName, Wire
from llamakit.core.errors import InvalidRequest

MAX_RESULTS = 50
DEFAULT_RESULTS = 3
"""Chunks of a query that does not say how many."""
DbId = Annotated[str, Field(min_length=1, max_length=128)]
SearchMode = Literal["vector", "keyword", "hybrid"]


class LlamaStackChunkFacts(Wire):
    """What a client notes of a chunk for itself."""

    chunk_id: str | None = None
    document_id: str | None = None
    source: str | None = None
    created_timestamp: int | None = None
    updated_timestamp: int | None = None
    chunk_window: str | None = None
    chunk_tokenizer: str | None = None
    chunk_embedding_model: str | None = None
    chunk_embedding_dimension: int | None = None
    content_token_count: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata_token_count: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class LlamaStackChunk(Wire):
    """A chunk of a document."""

    content: LlamaStackContent
    """Text: models here embed no images."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """What comes back with it; `document_id` names its document."""
    embedding: Annotated[list[float], FIRST] | None = None
    """Its vector; made here when left out, for all chunks of an insert or for none."""
    chunk_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    stored_chunk_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Older name of `chunk_id`."""
    chunk_metadata: LlamaStackChunkFacts | None = None
    embedding_model: str | None = None
    embedding_dimension: int | None = None


class LlamaStackInsert(Wire):
    """Body of `POST /v1/vector-io/insert`."""

    vector_db_id: DbId | None = None
    vector_store_id: DbId | None = None
    chunks: Annotated[list[LlamaStackChunk], FIRST]
    ttl_seconds: int | None = None
    """Refused: a vector store expires as a whole, by its `expires_after`."""


class LlamaStackQueryParams(Wire):
    """How a query searches."""

    k: Annotated[int, Field(ge=1, le=MAX_RESULTS)] | None = None
    max_chunks: Annotated[int, Field(ge=1, le=MAX_RESULTS)] | None = None
    """The same by another name."""
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    mode: SearchMode | None = None
    """By meaning (default), by words, or both."""
    reranker_type: Literal["rrf", "weighted"] | None = None
    """How the two lists of a hybrid search become one."""
    reranker_params: dict[str, float] | None = None
    """`impact_factor` of rrf, `alpha` of weighted."""


class LlamaStackQuery(Wire):
    """Body of `POST /v1/vector-io/query`."""

    vector_db_id: DbId | None = None
    vector_store_id: DbId | None = None
    query: LlamaStackContent
    params: LlamaStackQueryParams | None = None


class LlamaStackFoundChunk(Wire):
    """A chunk that answers."""

    content: str
    metadata: dict[str, Any]
    embedding: list[float]
    """Empty: vectors stay where they are."""
    chunk_id: str
    stored_chunk_id: str
    chunk_metadata: LlamaStackChunkFacts
    embedding_model: str
    embedding_dimension: int


class LlamaStackFound(Wire):
    """The best chunks, best first, and the score of each."""

    chunks: list[LlamaStackFoundChunk]
    scores: list[float]


class LlamaStackVectorDbRequest(Wire):
    """Body of `POST /v1/vector-dbs`."""

    vector_db_id: DbId
    embedding_model: ModelName
    embedding_dimension: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Length of the model's vectors, to be compared."""
    provider_id: str | None = None
    """Accepted; this server has one place for vectors."""
    vector_db_name: Annotated[str, Field(max_length=256)] | None = None
    provider_vector_db_id: str | None = None
    """Accepted; databases are named here."""


class LlamaStackVectorDb(Wire):
    """A vector database."""

    identifier: str
    type: Literal["vector_db"]
    provider_id: str
    provider_resource_id: str
    """The vector store that it is."""
    embedding_model: str
    embedding_dimension: int
    vector_db_name: str | None = None


class LlamaStackVectorDbs(Wire):
    """All of them."""

    data: list[LlamaStackVectorDb]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewChunks:
    """Chunks of one document that come together."""

    document: str
    """Under which they are kept, and replaced by those that come under it again."""
    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    facts: tuple[Mapping[str, Any], ...]
    """What is kept of each beside its text: its id, its metadata, what the client notes of it."""
    vectors: tuple[Sequence[float], ...] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        document: str,
        texts: Sequence[str],
        tokens: Sequence[int],
        facts: Sequence[Mapping[str, Any]],
        vectors: Sequence[Sequence[float]] | None = None,
        *,
        is_whole: bool = False,
    ) -> NewChunks:
        """Chunks of a document, all of them or some; those without an id of their own are named by what they say."""
        named = tuple(
            {**one, "document": document, "chunk_id": one.get("chunk_id") or _digest(document, text)[:32]}
            for text, one in zip(texts, facts, strict=True)
        )
        # Some chunks sent again take their own place, and other chunks of the document stay.
        some = "" if is_whole else f"#{_digest(*(one['chunk_id'] for one in named))[:16]}"
        return cls(
            document=document + some,
            texts=tuple(texts),
            tokens=tuple(tokens),
            facts=named,
            vectors=None if vectors is None else tuple(vectors),
        )


def target_of(wire: LlamaStackInsert | LlamaStackQuery) -> str:
    """The database or store that is meant; raises `InvalidRequest` for none or two."""
    named = {name for name in (wire.vector_db_id, wire.vector_store_id) if name is not None}
    if len(named) != 1:
        raise InvalidRequest("exactly one of vector_store_id and vector_db_id is required", param="vector_store_id")
    return named.pop()


def to_chunks(wire: LlamaStackInsert) -> list[NewChunks]:
    """The chunks by their documents; raises `InvalidRequest` naming the chunk at fault."""
    if not 0 < len(wire.chunks) <= LIMITS.inputs:
        raise InvalidRequest(f"chunks must hold 1 to {LIMITS.inputs}, got {len(wire.chunks)}", param="chunks")
    if wire.ttl_seconds is not None:
        raise InvalidRequest(
            "ttl_seconds: chunks do not expire one by one; give the vector store an expires_after", param="ttl_seconds"
        )
    with_vector = [chunk.embedding is not None for chunk in wire.chunks]
    if any(with_vector) and not all(with_vector):
        first = with_vector.index(False)
        raise InvalidRequest(
            f"chunks[{first}].embedding is missing, and other chunks have theirs; send all of them or none",
            param=f"chunks[{first}].embedding",
        )
    documents: dict[str, list[tuple[str, LlamaStackChunk]]] = {}
    for index, chunk in enumerate(wire.chunks):
        text = to_text(chunk.content, f"chunks[{index}].content", "chunks here hold")
        if not text.strip():
            raise InvalidRequest(f"chunks[{index}].content must not be empty", param=f"chunks[{index}].content")
        documents.setdefault(_document(chunk), []).append((text, chunk))
    return [_new_chunks(document, pairs) for document, pairs in documents.items()]


def query_text(wire: LlamaStackQuery) -> str:
    """What is searched for; raises `InvalidRequest`."""
    text = to_text(wire.query, "query", "a query is")
    if not 0 < len(text) <= MAX_QUERY_CHARS:
        raise InvalidRequest(f"query must have 1 to {MAX_QUERY_CHARS} characters, got {len(text)}", param="query")
    return text


def chunk_body(
    id: str, text: str, facts: Mapping[str, Any], *, document: str, model: str, dimension: int
) -> dict[str, Any]:
    """The wire form of a chunk that was found, whoever cut it."""
    chunk_id = facts.get("chunk_id", id)
    noted = facts.get("chunk_metadata") or {}
    return {
        "content": text,
        "metadata": {"document_id": document, **facts.get("metadata", {})},
        "embedding": [],
        "chunk_id": chunk_id,
        "stored_chunk_id": chunk_id,
        "chunk_metadata": {"document_id": document, **noted, "chunk_id": chunk_id},
        "embedding_model": model,
        "embedding_dimension": dimension,
    }


def _document(chunk: LlamaStackChunk) -> str:
    noted = None if chunk.chunk_metadata is None else chunk.chunk_metadata.document_id
    named = chunk.metadata.get("document_id", noted)
    return str(named)[:128] if named else "chunks"


def _new_chunks(document: str, pairs: Sequence[tuple[str, LlamaStackChunk]]) -> NewChunks:
    vectors = [chunk.embedding for _, chunk in pairs if chunk.embedding is not None]
    return NewChunks.of(
        document,
        [text for text, _ in pairs],
        [_tokens(text, chunk) for text, chunk in pairs],
        [_facts(chunk) for _, chunk in pairs],
        vectors or None,
    )


def _facts(chunk: LlamaStackChunk) -> dict[str, Any]:
    noted = {} if chunk.chunk_metadata is None else chunk.chunk_metadata.model_dump(exclude_none=True)
    id = chunk.chunk_id or chunk.stored_chunk_id or noted.get("chunk_id")
    return {"chunk_id": id, "metadata": chunk.metadata, "chunk_metadata": noted}


def _tokens(text: str, chunk: LlamaStackChunk) -> int:
    """As many as the client counted, or about as many as there are: only totals are made of them."""
    counted = None if chunk.chunk_metadata is None else chunk.chunk_metadata.content_token_count
    return max(1, len(text) // 4) if counted is None else counted


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
