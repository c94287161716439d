"""OpenAI's vector stores on the wire: what is asked, and how stores, their files and batches are spelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llamakit.api.openai_lists import Metadata
from llamakit.api.wire import FIRST, ModelName, Wire
from llamakit.core.errors import InvalidRequest

MAX_FILES = 500
"""Files that one request attaches."""
AUTO_TOKENS, AUTO_OVERLAP = 800, 400
"""What `auto` cuts chunks by."""

FileStatus = Literal["in_progress", "completed", "cancelled", "failed"]
FILE_STATUSES: tuple[FileStatus, ...] = ("in_progress", "completed", "cancelled", "failed")


def _few(attributes: Any) -> Any:
    """The published limits, checked before the values are."""
    if isinstance(attributes, dict):
        if len(attributes) > 16:
            raise ValueError("must hold at most 16 entries")
        if any(isinstance(key, str) and not 0 < len(key) <= 64 for key in attributes):
            raise ValueError("must have keys of 1 to 64 characters")
    return attributes


AttributeValue = Annotated[str, Field(max_length=512)] | bool | int | float
Attributes = Annotated[dict[str, AttributeValue], BeforeValidator(_few)]
"""At most 16 entries; keys of at most 64 characters, texts of at most 512."""


class WireStoreExpiry(Wire):
    """When a store goes by itself."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=365)]


class WireStaticSizes(Wire):
    """How large chunks are."""

    max_chunk_size_tokens: Annotated[int, Field(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, Field(ge=0, le=2048)]
    """At most half of the chunk."""


class WireAutoChunking(Wire):
    """Chunks of 800 tokens that repeat 400 of the one before."""

    type: Literal["auto"]


class WireStaticChunking(Wire):
    """Chunks of a size that was asked for."""

    type: Literal["static"]
    static: WireStaticSizes


class WireOtherChunking(Wire):
    """Chunks that were cut before they came here."""

    type: Literal["other"]


WireChunkingParam = Annotated[WireAutoChunking | WireStaticChunking, Field(discriminator="type")]


class WireStoreRequest(Wire):
    """Body of `POST /v1/vector_stores`."""

    name: Annotated[str, Field(max_length=256)] | None = None
    description: Annotated[str, Field(max_length=4096)] | None = None
    file_ids: Annotated[list[str], FIRST, Field(max_length=MAX_FILES)] | None = None
    expires_after: WireStoreExpiry | None = None
    chunking_strategy: WireChunkingParam | None = None
    """Of the files named here."""
    metadata: Metadata | None = None
    embedding_model: ModelName | None = None
    """Model that makes the vectors of this store (extension); the server's default when left out."""
    embedding_dimension: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Length of its vectors, to be compared (extension)."""


class WireStoreUpdate(Wire):
    """Body of `POST /v1/vector_stores/{vector_store_id}`."""

    name: Annotated[str, Field(max_length=256)] | None = None
    expires_after: WireStoreExpiry | None = None
    """Null takes the expiry away."""
    metadata: Metadata | None = None
    """Takes the place of the old; null empties it."""


class WireFileCounts(Wire):
    """Files by state; the four add up to the total."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class WireStore(Wire):
    """A vector store."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    """Bytes of the text and the vectors of its chunks."""
    file_counts: WireFileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: WireStoreExpiry | None
    expires_at: int | None
    last_active_at: int | None
    metadata: dict[str, str] | None
    embedding_model: str
    """Model that makes its vectors (extension)."""
    embedding_dimension: int
    """Length of its vectors (extension)."""


class WireStores(Wire):
    """A page of stores."""

    object: Literal["list"]
    data: list[WireStore]
    first_id: str
    last_id: str
    has_more: bool


class WireAttachRequest(Wire):
    """Body of `POST /v1/vector_stores/{vector_store_id}/files`."""

    file_id: str
    attributes: Attributes | None = None
    chunking_strategy: WireChunkingParam | None = None


class WireAttributesUpdate(Wire):
    """Body of `POST /v1/vector_stores/{vector_store_id}/files/{file_id}`."""

    attributes: Attributes | None
    """Take the place of the old; null empties them."""


class WireFileBatchRequest(Wire):
    """Body of `POST /v1/vector_stores/{vector_store_id}/file_batches`: `file_ids`, or `files`, each with its own."""

    file_ids: Annotated[list[str], FIRST, Field(min_length=1, max_length=MAX_FILES)] | None = None
    files: Annotated[list[WireAttachRequest], FIRST, Field(min_length=1, max_length=MAX_FILES)] | None = None
    attributes: Attributes | None = None
    """Of every file of `file_ids`."""
    chunking_strategy: WireChunkingParam | None = None
    """Of every file of `file_ids`."""


class WireLastError(Wire):
    """Why a file failed."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class WireStoreFile(Wire):
    """A file of a store."""

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: FileStatus
    last_error: WireLastError | None
    usage_bytes: int
    attributes: dict[str, str | bool | int | float] | None
    chunking_strategy: Annotated[WireStaticChunking | WireOtherChunking, Field(discriminator="type")]


class WireStoreFiles(Wire):
    """A page of files of a store."""

    object: Literal["list"]
    data: list[WireStoreFile]
    first_id: str
    last_id: str
    has_more: bool


class WireText(Wire):
    """A stretch of text."""

    type: Literal["text"]
    text: str


class WireStoreFileContent(Wire):
    """The chunks of a file, in its order."""

    object: Literal["vector_store.file_content.page"]
    data: list[WireText]
    has_more: bool
    next_page: str | None


class WireFileBatch(Wire):
    """Files that were attached together."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: FileStatus
    file_counts: WireFileCounts


def read_chunking(strategy: WireAutoChunking | WireStaticChunking | None) -> tuple[int, int]:
    """Tokens of a chunk and of what it repeats; raises `InvalidRequest` for what overlaps too much."""
    if strategy is None or isinstance(strategy, WireAutoChunking):
        return AUTO_TOKENS, AUTO_OVERLAP
    size, overlap = strategy.static.max_chunk_size_tokens, strategy.static.chunk_overlap_tokens
    if overlap > size // 2:
        raise InvalidRequest(
            f"chunk_overlap_tokens must be at most half of the chunk, {size // 2}, got {overlap}",
            param="chunking_strategy.static.chunk_overlap_tokens",
        )
    return size, overlap


def chunking_body(size: int, overlap: int) -> dict[str, Any]:
    """A strategy as OpenAI spells it."""
    return {"type": "static", "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}}


def counts_body(counts: Mapping[str, int]) -> dict[str, int]:
    """Files by state, with the total."""
    known = {status: counts.get(status, 0) for status in FILE_STATUSES}
    return {**known, "total": sum(known.values())}


def content_body(texts: Sequence[str]) -> dict[str, Any]:
    """The chunks of a file."""
    return {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": text} for text in texts],
        "has_more": False,
        "next_page": None,
    }
