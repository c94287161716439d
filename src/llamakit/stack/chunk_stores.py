"""The library of a server: its rows in the server's database, its chunks in the store that suits it.

Beside SQLite chunks lie in a folder; in PostgreSQL they lie in the same database, through pgvector.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from llamakit.rag.index import Library
from llamakit.rag.tokens import estimate_tokens
from llamakit.rag.vector.local import LocalChunks
from llamakit.rag.vector.pgvector import PgvectorChunks
from llamakit.rag.vector.store import ChunkStore
from llamakit.stack.embedders import Embedders
from llamakit.stack.storage import Storage

OpenChunks = Callable[[Storage], Awaitable[ChunkStore]]
"""Opens another kind of store than the one that suits the database."""


class Chunks:
    """Opens the library on first use and closes what it opened."""

    def __init__(self, storage: Storage, embedders: Embedders, opening: OpenChunks | None = None) -> None:
        self._storage = storage
        self._embedders = embedders
        self._opening = opening or open_suitable
        self._lock = asyncio.Lock()
        self._store: ChunkStore | None = None
        self._library: Library | None = None

    async def library(self) -> Library:
        """The library; raises `ConfigError` or `StorageError` where its store cannot be opened."""
        if self._library is None:
            async with self._lock:
                if self._library is None:
                    database = await self._storage.database()
                    self._store = await self._opening(self._storage)
                    self._library = Library(database, self._store, self._embedders, estimate_tokens)
        return self._library

    async def aclose(self) -> None:
        """Close the store; a second call does nothing."""
        store, self._store, self._library = self._store, None, None
        if store is not None:
            await store.close()


async def open_suitable(storage: Storage) -> ChunkStore:
    """The store that suits the server's database."""
    database = await storage.database()
    if database.dialect == "postgres":
        return await PgvectorChunks.open(database)
    return LocalChunks(storage.folder("vectors"))
