"""The server around the echo provider, for tests: in process, and on a real loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from llamakit.api.inference import Inference
from llamakit.api.limits import LIMITS, Limits
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import Application, build_app
from llamakit.server.listen import address_of, listen, release
from llamakit.server.serve import serve_on
from llamakit.stack.build import Stack
from llamakit.stack.distribution import Distribution
from llamakit.stack.run_config import ServeConfig

MODELS = ("echo", "meta/echo:1b")


def echo_stack(inference: Inference | None = None, models: Sequence[str] = MODELS) -> Stack:
    """A stack of the echo provider, or of `inference` in its place."""
    inference = inference or EchoInference(EchoConfig(models=tuple(models)))
    return Stack(inference=inference, default_models=tuple(models[:1]))


def echo_app(inference: Inference | None = None, *, limits: Limits = LIMITS, **settings: Any) -> Application:
    """The application with the given settings of `ServeConfig`."""
    return build_app(echo_stack(inference), ServeConfig(**settings), limits=limits)


@contextlib.asynccontextmanager
async def in_process(app: Application, base_url: str = "http://localhost") -> AsyncIterator[httpx2.AsyncClient]:
    """A client that calls the application without a socket; our own bugs are answers, not exceptions."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url=base_url) as client:
        yield client


@dataclass(frozen=True)
class Served:
    """A server on a loopback port."""

    url: str
    stack: Stack

    @property
    def base_url(self) -> str:
        """What OpenAI's clients want."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        """The port."""
        return int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def served(stack: Stack | None = None, *, limits: Limits = LIMITS, **settings: Any) -> Iterator[Served]:
    """A real server in a thread of its own; drained and gone when the block ends."""
    stack = stack or echo_stack()
    config = ServeConfig(**{"port": 0, "drain_s": 1.0, **settings})
    distribution = Distribution(server=config)
    bound = listen(config)
    ready, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await serve_on(bound, distribution, stack=stack, limits=limits, on_ready=lambda _: ready.set(), stop=stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    url = address_of(config, bound)
    thread.start()
    try:
        if not ready.wait(10):
            raise TimeoutError("the server did not start")
        yield Served(url=url, stack=stack)
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(15)
        release(config, bound)
        if thread.is_alive():
            raise TimeoutError("the server did not stop")


def events_of(body: str) -> list[Any]:
    """The JSON values of a server-sent event stream; `[DONE]` stays text."""
    made = []
    for block in body.split("\n\n"):
        if block.startswith("data: "):
            data = block.removeprefix("data: ")
            made.append(data if data == "[DONE]" else json.loads(data))
    return made


def chat_body(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat of one message."""
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
