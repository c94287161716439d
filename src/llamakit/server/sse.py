"""Streams: pieces of JSON text -> one streamed HTTP answer, framed as the dialect wants.

A piece is sent before the next is asked for, so a slow reader holds up its own answer and fills no queue.
The status is decided by the first piece: what fails before it is an ordinary error answer. What fails later
is an error event, and the stream closes without its end mark, so that no client takes it for whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamakit.core.errors import EngineStopped
from llamakit.server.dialects import OPENAI_EVENTS, Dialect, Framing
from llamakit.server.errors import describe, error_response
from llamakit.server.gone import ClientGone, Drain, while_wanted

log = logging.getLogger(__name__)

Pieces = AsyncGenerator[str, None]
"""JSON texts, each one event; closing it stops what makes them."""


class EventStream(Response):
    """Streams `pieces`; closes them whatever happens."""

    def __init__(
        self,
        pieces: Pieces,
        *,
        request_id: str,
        drain: Drain,
        ping_s: float,
        framing: Framing = OPENAI_EVENTS,
        dialect: Dialect = "openai",
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers=headers, media_type=framing.media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._framing = framing
        self._dialect: Dialect = dialect
        self._request_id = request_id
        self._drain = drain
        self._ping_s = ping_s
        self._has_started = False
        self._last_sent = 0.0
        self._is_sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            await while_wanted(self._run(send), receive, self._drain)
        except ClientGone:
            log.debug("client of %s left", self._request_id)
        except asyncio.CancelledError:
            raise
        except Exception as fault:  # noqa: BLE001 - any failure becomes an answer the client can see
            await self._fail(fault, scope, receive, send)

    async def _run(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            first = asyncio.ensure_future(anext(pieces, None))
            pinger: asyncio.Task[None] | None = None
            try:
                # The status waits for the first piece, which may fail; but not so long that somebody on the
                # way gives the silent connection up.
                await asyncio.wait((first,), timeout=self._ping_s)
                if first.done():
                    first.result()
                await self._start(send)
                if self._framing.ping:
                    pinger = asyncio.ensure_future(self._ping(send))
                piece = await first
                if piece is not None:
                    await self._send(send, piece)
                async for piece in pieces:
                    await self._send(send, piece)
            finally:
                await _settle(first, pinger)
        await send({"type": "http.response.body", "body": self._framing.end, "more_body": False})

    async def _start(self, send: Send) -> None:
        self._has_started = True
        self._last_sent = time.monotonic()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _send(self, send: Send, piece: str) -> None:
        self._is_sending = True
        await send({"type": "http.response.body", "body": self._framing.frame(piece), "more_body": True})
        self._is_sending = False
        self._last_sent = time.monotonic()

    async def _ping(self, send: Send) -> None:
        """A comment whenever nothing was sent for a while, so that nobody on the way gives the stream up."""
        while True:
            await asyncio.sleep(max(0.01, self._last_sent + self._ping_s - time.monotonic()))
            if not self._is_sending and time.monotonic() - self._last_sent >= self._ping_s:
                await send({"type": "http.response.body", "body": self._framing.ping, "more_body": True})
                self._last_sent = time.monotonic()

    async def _fail(self, fault: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._has_started:
            await error_response(fault, self._request_id, self._dialect)(scope, receive, send)
            return
        if isinstance(fault, EngineStopped):
            log.warning("stream %s ended early: %s", self._request_id, fault)
        event = self._framing.frame_error(describe(fault, self._request_id, self._dialect))
        await send({"type": "http.response.body", "body": event, "more_body": False})


async def _settle(*tasks: asyncio.Future[Any] | None) -> None:
    """End side tasks, and wait until they have: what they hold must be free before the pieces are closed."""
    for task in tasks:
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
