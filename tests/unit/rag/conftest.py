"""An embedder that is arithmetic, and libraries over both kinds of store."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.postgres import empty_database, postgres_server
from tests.qdrant import qdrant_at

from llamakit.providers.remote.vector_io.qdrant import QdrantSettings, QdrantWire
from llamakit.rag.embed import CallableEmbedder, Purpose
from llamakit.rag.index import Library, create_library
from llamakit.rag.vector.local import LocalChunks
from llamakit.rag.vector.pgvector import PgvectorChunks
from llamakit.rag.vector.qdrant import QdrantChunks
from llamakit.rag.vector.store import ChunkStore
from llamakit.storage.migrations import migrate
from llamakit.storage.sql import Database
from llamakit.storage.sqlite import SqliteDatabase

__all__ = ["postgres_server"]

DIMENSION = 64


def hashed(text: str) -> np.ndarray:
    """A bag of words: each word adds a direction of its own."""
    vector = np.zeros(DIMENSION)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.strip(".,!?#").encode()).digest()[:4], "little")
        vector += np.random.default_rng(seed).normal(size=DIMENSION)
    return vector


async def embed(texts: Sequence[str], purpose: Purpose) -> list[np.ndarray]:
    return [hashed(text) for text in texts]


class Embedders:
    """The embedder of every name; may be told to fail."""

    def __init__(self) -> None:
        self.down = False

    async def __call__(self, name: str) -> CallableEmbedder:
        if self.down:
            raise ConnectionError("the embedder is away")
        return CallableEmbedder(name, DIMENSION, embed)


@pytest.fixture
def embedders() -> Embedders:
    return Embedders()


VECTORS = {"local": ("file", "open_flat"), "faiss": ("hnsw", "HnswVectors"), "sqlite-vec": ("vec0", "SqliteVectors")}
"""Where the vectors of local collections may lie, by module and name."""
NEEDS = {"local": (), "faiss": ("faiss",), "sqlite-vec": ("apsw", "sqlite_vec")}


@pytest.fixture(params=["local", "faiss", "sqlite-vec", "pgvector", "qdrant"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Database, ChunkStore]]:
    """A database and a chunk store of each kind."""
    if request.param in VECTORS:
        for package in NEEDS[request.param]:
            pytest.importorskip(package)
        module, name = VECTORS[request.param]
        opening = vars(importlib.import_module(f"llamakit.rag.vector.{module}"))[name]
        database = await SqliteDatabase.open(tmp_path / "main.db")
        store = LocalChunks(tmp_path / "collections", vectors=opening)
        yield database, store
        await store.close()
        await database.close()
        return
    if request.param == "qdrant":
        with qdrant_at(tmp_path / "qdrant") as (url, _):
            database = await SqliteDatabase.open(tmp_path / "main.db")
            wire = QdrantWire(QdrantSettings(url=url, private=True))
            yield database, QdrantChunks(wire.call)
            await wire.aclose()
            await database.close()
        return
    from llamakit.storage.postgres import PostgresDatabase

    async with empty_database(request.getfixturevalue("postgres_server")) as url:
        database = await PostgresDatabase.open(url)
        store = await PgvectorChunks.open(database)
        yield database, store
        await store.close()
        await database.close()


@pytest.fixture
async def library(stores: tuple[Database, ChunkStore], embedders: Embedders) -> Library:
    database, store = stores
    await migrate(database, [create_library])
    return Library(database, store, embedders, lambda text: len(text.split()))
