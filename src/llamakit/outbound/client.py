"""The outbound HTTP client: one policy, caps on bytes, seconds and redirects, no cookies, nothing inherited.

A redirect is a new URL, checked like the first; credentials stay with the origin they were given
for. A body is read as it comes and cut off with an error at its limit, also after decompression.
"""

from __future__ import annotations

import asyncio
import json as json_module
import re
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from llamakit.core.errors import OutboundFailed, OutboundRefused
from llamakit.outbound.network import GuardedTransport, Resolver, resolve
from llamakit.outbound.policy import OutboundPolicy, Target

_REDIRECTS = (301, 302, 303, 307, 308)
_SAFE_ACROSS_ORIGINS = frozenset({"accept", "accept-language", "user-agent", "range", "if-none-match"})
_AMBIGUOUS = re.compile(r"[\\\s]|^[A-Za-z][A-Za-z0-9+.-]*:(?!//)")
"""A backslash, white space, or a scheme that no // follows."""
_PIECE = 64 * 1024
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundLimits:
    """Caps on one exchange."""

    max_bytes: int = 32 << 20
    """Bytes of the body, before and after decompression."""
    total_s: float | None = 60.0
    """Seconds for everything, redirects and body included; None leaves only `idle_s`."""
    connect_s: float = 10.0
    idle_s: float = 60.0
    """Seconds between two pieces of the answer."""
    redirects: int = 0
    """Hops that may be followed, by GET and HEAD only."""


@dataclass(slots=True)
class Reply:
    """The head of an answer, and its body to be read once."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; repeated ones are joined by a comma."""
    url: str
    """Where the answer came from, after redirects."""
    _pieces: AsyncIterator[bytes] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def pieces(self) -> AsyncIterator[bytes]:
        """The decoded body as it arrives, up to the limit."""
        return self._pieces

    async def read(self) -> bytes:
        """The whole decoded body."""
        return b"".join([piece async for piece in self._pieces])


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    url: str
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON; `OutboundFailed` where it is none."""
        try:
            return json_module.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise OutboundFailed(f"{self.url} answered {self.status} with a body that is not JSON") from error


class OutboundClient:
    """Talks to what its policy allows. One client serves many tasks of one event loop; close it at the end."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        limits: OutboundLimits | None = None,
        resolver: Resolver = resolve,
        roots: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = policy
        self.limits = limits or OutboundLimits()
        self.transport = GuardedTransport(policy, resolver=resolver, roots=roots)
        """For libraries that bring their own client and take an httpx2 transport."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
        limits: OutboundLimits | None = None,
    ) -> Fetched:
        """Send and read everything. Any status is an answer; `OutboundRefused` and `OutboundFailed` are the errors."""
        async with self.stream(method, url, headers=headers, content=content, json=json, limits=limits) as reply:
            return Fetched(reply.status, reply.headers, reply.url, await reply.read())

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
        limits: OutboundLimits | None = None,
    ) -> AsyncIterator[Reply]:
        """Send, and read the body piece by piece inside the block; leaving it closes the exchange."""
        limits = limits or self.limits
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        sent.setdefault("accept-encoding", "identity")
        sent.setdefault("user-agent", "llamakit")
        if json is not None:
            content = json_module.dumps(json, ensure_ascii=False, allow_nan=False).encode()
            sent.setdefault("content-type", "application/json")
        deadline = asyncio.timeout(limits.total_s)
        try:
            async with deadline:
                response, target = await self._follow(method.upper(), url, sent, content, limits)
                pieces = _decoded(response, target, limits)
                try:
                    found = {name.lower(): value for name, value in response.headers.items()}
                    yield Reply(response.status_code, found, str(target.url), pieces)
                finally:
                    await pieces.aclose()
                    await response.aclose()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise OutboundFailed(f"{_shown(url)} did not answer within {limits.total_s} s") from error
        except httpx2.TransportError as error:
            raise OutboundFailed(f"{_shown(url)} failed: {type(error).__name__}: {error}") from error

    async def aclose(self) -> None:
        """Close every connection."""
        await self.transport.aclose()

    async def _follow(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None, limits: OutboundLimits
    ) -> tuple[httpx2.Response, Target]:
        target = self.policy.check_url(url)
        for hop in range(limits.redirects + 1):
            response = await self._send(method, target, headers, content, limits)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None or method not in ("GET", "HEAD"):
                return response, target
            if hop == limits.redirects and limits.redirects == 0:
                return response, target
            await response.aclose()
            following = self._next(target, location)
            if following.origin != target.origin:
                headers = {name: value for name, value in headers.items() if name in _SAFE_ACROSS_ORIGINS}
                headers["accept-encoding"] = "identity"
            target = following
        raise OutboundFailed(f"{_shown(url)} redirected more than {limits.redirects} times")

    def _next(self, target: Target, location: str) -> Target:
        if _AMBIGUOUS.search(location):
            raise OutboundRefused(f"{target.host} redirects to a URL that programs read differently")
        try:
            joined = str(target.url.join(location))
        except (httpx2.InvalidURL, ValueError) as error:
            raise OutboundRefused(f"{target.host} redirects to what is not a URL") from error
        following = self.policy.check_url(joined)
        if target.scheme == "https" and following.scheme == "http":
            raise OutboundRefused(f"{target.host} redirects from https to plain http")
        return following

    async def _send(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes | None, limits: OutboundLimits
    ) -> httpx2.Response:
        timeouts = {
            "connect": limits.connect_s,
            "read": limits.idle_s,
            "write": limits.idle_s,
            "pool": limits.connect_s,
        }
        request = httpx2.Request(
            method, target.url, headers=dict(headers), content=content, extensions={"timeout": timeouts}
        )
        return await self.transport.handle_async_request(request)


def _shown(url: str) -> str:
    """A URL for messages: without its query, which may hold a key."""
    return url.partition("?")[0][:200]


async def _decoded(response: httpx2.Response, target: Target, limits: OutboundLimits) -> AsyncGenerator[bytes, None]:
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_bytes:
        raise OutboundFailed(f"{target.host} announces {declared} bytes; at most {limits.max_bytes} are taken")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    pieces = response.stream
    if not isinstance(pieces, httpx2.AsyncByteStream):
        raise TypeError("the response's body must be readable asynchronously")
    plain = pieces if encoding in ("", "identity") else _inflated(pieces, encoding, target, limits)
    size = 0
    async for piece in plain:
        size += len(piece)
        if size > limits.max_bytes:
            raise OutboundFailed(f"{target.host} sends more than {limits.max_bytes} bytes")
        yield piece


async def _inflated(
    pieces: AsyncIterator[bytes] | httpx2.AsyncByteStream, encoding: str, target: Target, limits: OutboundLimits
) -> AsyncIterator[bytes]:
    """The decompressed body in bounded pieces, so that a bomb meets the limit before it meets the memory."""
    if encoding not in _WBITS:
        raise OutboundFailed(f"{target.host} answers in the encoding {encoding[:20]!r}, which was not asked for")
    inflater = zlib.decompressobj(_WBITS[encoding])
    received = 0
    try:
        async for piece in pieces:
            received += len(piece)
            if received > limits.max_bytes:
                raise OutboundFailed(f"{target.host} sends more than {limits.max_bytes} bytes")
            rest = piece
            while rest and not inflater.eof:
                yield inflater.decompress(rest, _PIECE)
                rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise OutboundFailed(f"{target.host} sends a damaged {encoding} body: {error}") from error
    if not inflater.eof:
        raise OutboundFailed(f"{target.host} ended in the middle of a {encoding} body")
