"""The bytes of a request body, counted and timed while they arrive, and the wire type they spell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from llamakit.api.limits import Limits
from llamakit.api.strict_json import decode
from llamakit.api.wire import Wire, read
from llamakit.core.errors import InvalidRequest
from llamakit.server.errors import BodyTooLarge, BodyTooSlow, WrongMediaType
from llamakit.server.exchange import exchange_of

W = TypeVar("W", bound=Wire)


async def read_body(request: Request, limits: Limits) -> bytearray:
    """The whole body; raises as soon as it is too large, too slow, or not JSON by its headers."""
    _check_headers(request, limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        raise BodyTooSlow(f"the request body was not complete after {limits.body_s:g} s") from None
    except ClientDisconnect:
        raise InvalidRequest("the connection closed before the request body was complete") from None
    return body


async def read_wire(
    request: Request,
    kind: type[W],
    *,
    limits: Limits,
    strict: bool,
    set_aside: Callable[[W], tuple[str, ...]] = lambda _: (),
) -> W:
    """The body as `kind`. Fields that nobody knows, or that are known to have no effect, are named in the
    answer's headers and the log; where the server is strict they are refused.
    """
    wire, unknown = read(kind, decode(await read_body(request, limits), limits))
    exchange = exchange_of(request)
    exchange.ignored = (*unknown, *set_aside(wire))
    check_ignored(exchange.ignored, strict=strict)
    return wire


def check_ignored(ignored: tuple[str, ...], *, strict: bool) -> None:
    """Refuse fields without effect where the server is strict."""
    if not strict:
        return
    for first in ignored:
        more = f" (and {len(ignored) - 1} more)" if len(ignored) > 1 else ""
        raise InvalidRequest(
            f"{first[:80]}{more} has no effect here, and this server refuses such fields; leave it out",
            param=first[:80],
            code="unknown_parameter",
        )


def _check_headers(request: Request, limits: Limits) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise WrongMediaType(
            f"send JSON with the header `Content-Type: application/json`, got {media[:80] or 'none'!r}"
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise WrongMediaType(f"compressed bodies are not taken, got content-encoding {encoding[:80]!r}")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limits.body_bytes):
        raise _too_large(limits)


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the request body has more than {limits.body_bytes} bytes")
