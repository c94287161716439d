"""Chunks in folders of this machine: SQLite for texts and words, and for vectors what the row of the table says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llamakit.core.errors import ConfigError, MissingExtra
from llamakit.rag.vector.file import VectorFile, open_flat
from llamakit.rag.vector.local import LocalChunks
from llamakit.storage.sql import Database

_FOLDERS = {"numpy": "vectors", "faiss": "vectors", "sqlite-vec": "vectors-vec0"}
"""FAISS keeps exact rows too, so it shares their folder and the two can be exchanged."""
_PACKAGES = {"numpy": (), "faiss": ("faiss",), "sqlite-vec": ("apsw", "sqlite_vec")}


class LocalProvider:
    """Opens them; fulfils `ChunkStoreProvider`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def open(self, database: Database, folder: Callable[[str], Path]) -> LocalChunks:
        """The store in its folder."""
        return LocalChunks(folder(_FOLDERS[self._kind]), vectors=_OPENING[self._kind])


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> LocalProvider:
    """The provider; `kind` is the row's own and there are no other settings."""
    kind = config.get("kind")
    if kind not in _FOLDERS or len(config) > 1:
        unknown = ", ".join(sorted(set(config) - {"kind"})) or f"kind {kind!r}"
        raise ConfigError(f"this provider of vectors has no settings, got {unknown}")
    if not all(importlib.util.find_spec(package) for package in _PACKAGES[kind]):
        raise MissingExtra(f"vectors in {kind} need its package: pip install 'llamakit[{kind}]'")
    return LocalProvider(kind)


def _open_graph(path: Path, dimension: int) -> VectorFile:
    from llamakit.rag.vector.hnsw import HnswVectors

    return HnswVectors(path, dimension)


def _open_vec0(path: Path, dimension: int) -> VectorFile:
    from llamakit.rag.vector.vec0 import SqliteVectors

    return SqliteVectors(path, dimension)


_OPENING = {"numpy": open_flat, "faiss": _open_graph, "sqlite-vec": _open_vec0}
