"""Around every request: an id, the headers that every answer carries, one log line, and a last answer.

A plain ASGI wrapper. Whatever escapes the routes is answered here once, so that no exception reaches the
server below and no client waits for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamakit.api.ids import is_plain_id, new_id
from llamakit.server.dialects import dialect_of
from llamakit.server.errors import error_response
from llamakit.server.exchange import REQUEST_ID, Exchange, attach
from llamakit.server.telemetry import Telemetry

log = logging.getLogger("llamakit.server.access")

MAX_IGNORED_BYTES = 2048
"""Length of the header that names fields set aside; many are counted rather than listed."""
MAX_NAME_CHARS = 128

Seen = Callable[[Exchange, float], None]
"""Called once a request with its record and its seconds."""


class Envelope:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, seen: Seen, telemetry: Telemetry, is_only_https: bool = False) -> None:
        self._app = app
        self._is_only_https = is_only_https
        self._seen = seen
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        exchange = Exchange(
            id=given if is_plain_id(given) else new_id("req"),
            method=scope["method"],
            dialect=dialect_of(scope["path"], headers),
        )
        attach(scope, exchange)
        REQUEST_ID.set(exchange.id)
        place = self._telemetry.begin(exchange, headers)
        started = time.monotonic()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                _add_headers(headers, exchange)
                if self._is_only_https:
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            raise
        except Exception as fault:  # noqa: BLE001 - the last one to answer; describe() logs it
            response = error_response(fault, exchange.id, exchange.dialect)
            if not exchange.status:
                await response(scope, receive, send_with_headers)
        finally:
            seconds = time.monotonic() - started
            self._log(exchange, seconds)
            self._telemetry.end(exchange, place, seconds)
            REQUEST_ID.set("")

    def _log(self, exchange: Exchange, seconds: float) -> None:
        self._seen(exchange, seconds)
        facts = {
            "request_id": exchange.id,
            "method": exchange.method,
            "route": exchange.route,
            "status": exchange.status,
            "ms": round(seconds * 1000, 1),
            "principal": exchange.principal.name,
        }
        if exchange.principal.called is not None:
            facts["key"] = exchange.principal.called
        if exchange.model is not None:
            facts["model"] = exchange.model[:MAX_NAME_CHARS]
        if exchange.outcome:
            facts["outcome"] = exchange.outcome
            facts["prompt_tokens"] = exchange.prompt_tokens
            facts["completion_tokens"] = exchange.completion_tokens
        if exchange.ignored:
            facts["ignored"] = header_of(exchange.ignored)
        log.info("%s %s %s", exchange.method, exchange.route, exchange.status, extra={"facts": facts})


def _add_headers(headers: MutableHeaders, exchange: Exchange) -> None:
    headers["x-request-id"] = exchange.id
    if exchange.dialect == "anthropic":
        headers["request-id"] = exchange.id
    headers["x-content-type-options"] = "nosniff"
    for name, value in exchange.headers:
        headers[name] = value
    if exchange.ignored:
        headers["x-llamakit-ignored"] = header_of(exchange.ignored)


def header_of(names: tuple[str, ...]) -> str:
    """Field paths as one header value: what a header cannot hold is escaped, and a long list is counted."""
    shown: list[str] = []
    length = 0
    for position, name in enumerate(names):
        short = name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}..."
        safe = "".join(
            char if char.isascii() and char.isprintable() and char not in ", %" else _percent(char) for char in short
        )
        safe = safe or "(empty)"  # a header must not end in a separator
        length += len(safe) + 2
        if length > MAX_IGNORED_BYTES:
            shown.append(f"and-{len(names) - position}-more")
            break
        shown.append(safe)
    return ", ".join(shown)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())
