"""The permission of one request, from the door to the last byte of its answer.

It counts the bytes that come in, holds a place among the requests of its key that are answered at once, and ends
the request when what let it in has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive

from llamakit.core.errors import LlamakitError
from llamakit.server.exchange import Exchange


class Permit:
    """Let through by the guard; `close` it when the answer has been sent."""

    __slots__ = ("_fault", "_receive", "_release", "_waiting", "exchange", "num_bytes")

    def __init__(self, exchange: Exchange, receive: Receive, release: Callable[[Permit], None]) -> None:
        self.exchange = exchange
        self.num_bytes = 0
        self._receive = receive
        self._release = release
        self._fault: LlamakitError | None = None
        self._waiting: asyncio.Task[object] | None = None

    async def receive(self) -> Message:
        """The next message of the client; raises why the permission has ended, once it has."""
        if self._fault is not None:
            raise self._fault
        self._waiting = task = asyncio.current_task()
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._fault is None:
                raise
            if task is not None:
                task.uncancel()
            raise self._fault from None
        finally:
            self._waiting = None
        self.num_bytes += len(message.get("body", b""))
        return message

    def end(self, fault: LlamakitError) -> None:
        """Let the request fail with `fault`: at once where it waits for its client, else when it next does."""
        if self._fault is None:
            self._fault = fault
            if self._waiting is not None:
                self._waiting.cancel()

    def close(self) -> None:
        """Give back what the request held, and have it paid for."""
        self._release(self)
