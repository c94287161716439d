"""What a chunk store is: it keeps the chunks of collections and finds the nearest, by vector or by word.

A collection belongs to an owner, and no method reaches another's: filters and scopes apply before
ranking, inside the index. A put replaces a document's chunks as a whole, durably, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llamakit.rag.chunk import Chunk
from llamakit.rag.embed import Vectors
from llamakit.rag.filters import AttributeValue, Filter
from llamakit.storage.sql import Database


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it lies in a collection."""

    id: str
    document: str
    """Id of the document it was cut from."""
    name: str
    """The document's file name."""
    chunk: Chunk
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    """The document's."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Its own, kept and not compared."""


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to be kept."""

    id: str
    chunk: Chunk
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """The document that chunks are cut from."""

    id: str
    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, and how well it fits: more is better, comparable within one search only."""

    id: str
    score: float


class ChunkStore(Protocol):
    """Keeps collections of chunks. A collection that is not the owner's, or not there, is `NotFound`."""

    async def create(self, owner: str, collection: str, dimension: int) -> None:
        """Make an empty collection for vectors of `dimension` numbers; `Conflict` where it exists."""
        ...

    async def drop(self, owner: str, collection: str) -> None:
        """Remove a collection and all it holds."""
        ...

    async def put(
        self, owner: str, collection: str, source: Source, chunks: Sequence[NewChunk], vectors: Vectors
    ) -> None:
        """Make these the chunks of the document, whatever it had before."""
        ...

    async def describe(self, owner: str, collection: str, source: Source) -> None:
        """Change the name and attributes of a document; its chunks stay."""
        ...

    async def remove(self, owner: str, collection: str, document: str) -> None:
        """Remove a document and its chunks; without effect where it is not there."""
        ...

    async def nearest(
        self, owner: str, collection: str, vector: Vectors, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """The `k` chunks of highest cosine to `vector` [D], best first."""
        ...

    async def matching(
        self, owner: str, collection: str, query: str, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """The `k` chunks that best hold the words of `query` (any of them), best first."""
        ...

    async def load(self, owner: str, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """These chunks, in this order; those that are gone are left out."""
        ...

    async def chunks_of(self, owner: str, collection: str, document: str) -> list[StoredChunk]:
        """Every chunk of a document, in its order."""
        ...

    async def close(self) -> None:
        """Release files and connections."""
        ...


class ChunkStoreProvider(Protocol):
    """Opens chunk stores: what a provider of vectors is."""

    async def open(self, database: Database, folder: Callable[[str], Path]) -> ChunkStore:
        """A store beside a server's `database`, or in a `folder` by a name of its own.

        Raises `ConfigError` where it does not go with that database, `MissingExtra` without its package.
        """
        ...
