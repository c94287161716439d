"""Chunks in PostgreSQL through pgvector: in the server's own database, or in another by URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llamakit.core.config import Secret, nearest
from llamakit.core.errors import ConfigError
from llamakit.rag.vector.pgvector import PgvectorChunks
from llamakit.storage.sql import Database


class PgvectorProvider:
    """Opens them; fulfils `ChunkStoreProvider`."""

    def __init__(self, url: Secret | None = None) -> None:
        self._url = url
        self._opened: Database | None = None

    async def open(self, database: Database, folder: Callable[[str], Path]) -> PgvectorChunks:
        """The store in the database of the URL; without one, in the server's."""
        if self._url is None:
            return await PgvectorChunks.open(database)
        from llamakit.storage.postgres import PostgresDatabase

        self._opened = await PostgresDatabase.open(self._url.reveal())
        return await PgvectorChunks.open(self._opened)

    async def aclose(self) -> None:
        """Close the database that was opened here; a second call does nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> PgvectorProvider:
    """The provider from its setting `url`, `postgresql://user:password@host:port/database`."""
    for key in config:
        if key != "url":
            raise ConfigError(f"pgvector has no setting {key!r}{nearest(key, ['url'])}")
    url = config.get("url")
    return PgvectorProvider(Secret(url) if isinstance(url, str) else url)
