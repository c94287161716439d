"""The library of a server: its rows in the server's database, its chunks in the store that suits it.

Without a provider of vectors, chunks lie in a folder beside SQLite, and in PostgreSQL in the same database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError
from llamakit.rag.index import Library
from llamakit.rag.tokens import estimate_tokens
from llamakit.rag.vector.local import LocalChunks
from llamakit.rag.vector.pgvector import PgvectorChunks
from llamakit.rag.vector.store import ChunkStore, ChunkStoreProvider
from llamakit.stack.embedders import Embedders
from llamakit.stack.storage import Storage
from llamakit.storage.sql import Database


class Chunks:
    """Opens the library on first use and closes what it opened."""

    def __init__(self, storage: Storage, embedders: Embedders, provider: ChunkStoreProvider | None = None) -> None:
        self._storage = storage
        self._embedders = embedders
        self._provider = provider
        self._lock = asyncio.Lock()
        self._store: ChunkStore | None = None
        self._library: Library | None = None

    async def library(self) -> Library:
        """The library; raises `ConfigError` or `StorageError` where its store cannot be opened."""
        if self._library is None:
            async with self._lock:
                if self._library is None:
                    database = await self._storage.database()
                    self._store = await self._open(database)
                    self._library = Library(database, self._store, self._embedders, estimate_tokens)
        return self._library

    async def aclose(self) -> None:
        """Close the store; a second call does nothing."""
        store, self._store, self._library = self._store, None, None
        if store is not None:
            await store.close()

    async def _open(self, database: Database) -> ChunkStore:
        if self._provider is not None:
            return await self._provider.open(database, self._storage.folder)
        if database.dialect == "postgres":
            return await PgvectorChunks.open(database)
        return LocalChunks(self._storage.folder("vectors"))


def chosen(providers: Mapping[str, ChunkStoreProvider], id: str | None) -> ChunkStoreProvider | None:
    """The provider of that id, else the first, else none; raises `ConfigError` for an id of none."""
    if id is None:
        return next(iter(providers.values()), None)
    if id not in providers:
        there = ", ".join(providers) or "none"
        raise ConfigError(
            f"vector_stores.provider_id: no vector_io provider {id!r}{nearest(id, providers)}; there are: {there}"
        )
    return providers[id]
