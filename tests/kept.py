"""Stacks for tests of what a server keeps: on a private SQLite file, and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.postgres import empty_database

from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.stack.build import Stack
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import TEMPORARY, Storage


@asynccontextmanager
async def kept_stack(engine: str, request: Any) -> AsyncIterator[Stack]:
    """A started stack of the echo provider, on `sqlite` or `postgres`."""
    if engine == "sqlite":
        async with started_stack(TEMPORARY) as stack:
            yield stack
        return
    async with empty_database(request.getfixturevalue("postgres_server")) as url, started_stack(url) as stack:
        yield stack


@asynccontextmanager
async def started_stack(target: str) -> AsyncIterator[Stack]:
    """A started stack of the echo provider on a database."""
    inference = EchoInference(EchoConfig(models=("echo",)))
    stack = Stack(inference=inference, default_models=("echo",), storage=Storage(target, STEPS))
    try:
        await stack.start()
        yield stack
    finally:
        await stack.aclose()


async def until(get: Callable[[], Awaitable[dict[str, Any]]], *, wait_s: float = 20.0) -> dict[str, Any]:
    """What `get` gives once that is no longer in progress."""
    async with asyncio.timeout(wait_s):
        while (found := await get())["status"] in ("in_progress", "queued"):
            await asyncio.sleep(0.02)
    return found
