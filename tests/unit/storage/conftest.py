"""A SQLite and, where its binaries are installed, a real PostgreSQL for the tests of storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.postgres import empty_database, postgres_server

from llamakit.storage.sql import Database
from llamakit.storage.sqlite import SqliteDatabase

__all__ = ["postgres_server"]


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with empty_database(postgres_server) as url:
        yield url


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(tmp_path / "test.db")
    yield database
    await database.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Each test that takes this runs on both engines."""
    if request.param == "sqlite":
        opened = await SqliteDatabase.open(tmp_path / "test.db")
        yield opened
        await opened.close()
        return
    from llamakit.storage.postgres import PostgresDatabase

    async with empty_database(request.getfixturevalue("postgres_server")) as url:
        opened = await PostgresDatabase.open(url)
        yield opened
        await opened.close()
