"""A loopback HTTP server that answers as a test says, also in ways no server should."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Answer:
    """The other end of one request."""

    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Status line and headers of a body that ends with the connection."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.send(f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n{more}\r\n".encode())

    async def json(self, value: Any, status: int = 200, **headers: str) -> None:
        """A whole JSON answer."""
        await self.head(status, **headers)
        await self.send(json.dumps(value).encode())

    async def events(self, *values: Any, done: bool = True) -> None:
        """A stream of events; text is sent as it stands."""
        await self.head(kind="text/event-stream")
        for value in values:
            data = value if isinstance(value, str) else json.dumps(value)
            await self.send(f"data: {data}\n\n".encode())
        if done:
            await self.send(b"data: [DONE]\n\n")

    def reset(self) -> None:
        """Break the connection with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Asked, Answer], Awaitable[None]]


@dataclass
class FaultServer:
    """The server; `script` is called for each request."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closed its connection."""
    port: int = 0

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        watcher: asyncio.Task[None] | None = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.split("\r\n")
            headers = {k.lower(): v for k, _, v in (item.partition(": ") for item in rest if item)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            method, path, _ = line.split(" ")
            self.asked.append(Asked(method, path, headers, body))
            watcher = asyncio.create_task(self._watch(reader))
            await self.script(self.asked[-1], Answer(writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if watcher is not None:
                watcher.cancel()
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            await reader.read()
        self.gone.set()


@asynccontextmanager
async def faulty(script: Script) -> AsyncIterator[FaultServer]:
    """A running server."""
    server = FaultServer(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
