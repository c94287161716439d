"""One remote service over the guarded client: JSON in, JSON or events out, deadlines, careful retries.

A request is tried again only while nothing of its answer has arrived, only for what may pass, and only for a
short while. Knows HTTP and no API.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx2

from llamakit.core.errors import (
    ConfigError,
    EngineStopped,
    LlamakitError,
    OutboundFailed,
    Overloaded,
    RemoteFailed,
)
from llamakit.outbound.client import OutboundClient, OutboundLimits, Reply
from llamakit.outbound.policy import OutboundPolicy
from llamakit.providers.shared.aws import Sign
from llamakit.providers.shared.refusals import refusal
from llamakit.providers.shared.sse import EventReader

MAX_ERROR_BYTES = 64 << 10
MAX_JSON_BYTES = 64 << 20
MAX_STREAM_BYTES = 256 << 20
_MAY_PASS = frozenset({408, 500, 502, 504})
_FIRST_WAIT_S = 0.25
_SECRET_HEADERS = ("authorization", "key", "token", "secret")
MIN_SECRET_CHARS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteConfig:
    """Where a service is and how long to wait for it."""

    service: str
    """Its name in messages."""
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sign: Sign | None = field(default=None, repr=False)
    """Makes the headers that a request is signed by, where a key in the headers is not enough."""
    key_hint: str = "check the key"
    """What to do when it refuses our key."""
    connect_s: float = 10.0
    idle_s: float = 120.0
    """Seconds between two pieces of an answer, and until the first."""
    total_s: float = 3600.0
    """Seconds for a whole answer."""
    retries: int = 2
    """Times a request is tried again before anything of its answer has come."""
    max_wait_s: float = 5.0
    """Longest pause between two tries; who asks for more is passed on to the client."""

    def __post_init__(self) -> None:
        for name in ("connect_s", "idle_s", "total_s", "max_wait_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
                raise ConfigError(f"{name} must be above 0 and below a million seconds, got {value!r}")
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or not 0 <= self.retries <= 10:
            raise ConfigError(f"retries must be in [0, 10], got {self.retries!r}")


class Remote:
    """The service. Close it at the end; what is open then raises `EngineStopped`."""

    def __init__(self, config: RemoteConfig) -> None:
        self.config = config
        self.service = config.service
        self._base = config.base_url.rstrip("/")
        self._client = OutboundClient(OutboundPolicy.to(config.base_url))
        self._secrets = _secrets_of(config.headers)
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._is_closed

    async def get(self, path: str, *, at_root: bool = False) -> Any:
        """The JSON at a path below the base URL, or `at_root` beside its `/v1`."""
        return await self._whole("GET", self._url(path, at_root), None)

    async def post(self, path: str, body: Mapping[str, Any], *, at_root: bool = False) -> Any:
        """The JSON that `body` is answered with."""
        return await self._whole("POST", self._url(path, at_root), body)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Name and value of each event that `body` is answered with; a plain JSON answer counts as one."""
        tries = 0
        while True:
            has_begun = False
            try:
                async with aclosing(self._exchange("POST", self._url(path), body, streams=True)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except LlamakitError as fault:
                pause = None if has_begun else self._pause(fault, tries)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
                tries += 1

    async def aclose(self) -> None:
        """Close every connection."""
        self._is_closed = True
        await self._client.aclose()

    def _url(self, path: str, at_root: bool = False) -> str:
        return (self._base.removesuffix("/v1") if at_root else self._base) + path

    async def _whole(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        tries = 0
        while True:
            try:
                async with aclosing(self._exchange(method, url, body, streams=False)) as values:
                    async for _, value in values:
                        return value
            except LlamakitError as fault:
                pause = self._pause(fault, tries)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
                tries += 1

    def _pause(self, fault: LlamakitError, tries: int) -> float | None:
        """Seconds until the next try; None where there is none."""
        if self._is_closed or tries >= self.config.retries:
            return None
        wanted = _FIRST_WAIT_S * 2**tries * random.uniform(0.5, 1.0)
        match fault:
            case Overloaded():
                wanted = max(wanted, fault.retry_after_s)
            case RemoteFailed() if fault.status not in _MAY_PASS:
                return None
            case OutboundFailed():
                pass
            case _:
                return None
        return wanted if wanted <= self.config.max_wait_s else None

    async def _exchange(
        self, method: str, url: str, body: Mapping[str, Any] | None, *, streams: bool
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """One try."""
        if self._is_closed:
            raise EngineStopped(f"the provider of {self.service} is closed")
        config = self.config
        # The deadline is held here, piece by piece: a stream is read by more than one task in its life.
        limits = OutboundLimits(
            max_bytes=MAX_STREAM_BYTES if streams else MAX_JSON_BYTES,
            total_s=None,
            connect_s=config.connect_s,
            idle_s=config.idle_s,
        )
        deadline = asyncio.get_running_loop().time() + config.total_s
        headers = {"accept": "text/event-stream, application/json" if streams else "application/json"}
        headers |= config.headers
        content = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        if content is not None:
            headers["content-type"] = "application/json"
        if config.sign is not None:
            headers |= config.sign(method, url, content or b"", headers)
        try:
            async with self._client.stream(method, url, headers=headers, content=content, limits=limits) as reply:
                if not reply.ok:
                    said = self._without_secrets(await _some(reply))
                    raise refusal(self.service, config.key_hint, reply.status, reply.headers, said)
                media = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
                if streams and media == "text/event-stream":
                    async with aclosing(self._read_events(reply, deadline)) as events:
                        async for event in events:
                            yield event
                elif media == "application/json":
                    pieces = [piece async for piece in self._pieces(reply, deadline)]
                    yield "", self._value(b"".join(pieces))
                else:
                    kind = repr(media[:80]) if media else "no content type"
                    raise RemoteFailed(f"{self.service} answered with {kind}, not with JSON; check its base URL")
        except OutboundFailed as fault:
            if self._is_closed:
                raise EngineStopped(f"the provider of {self.service} was closed while the request ran") from fault
            raise

    async def _read_events(self, reply: Reply, deadline: float) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        reader = EventReader(self.service)
        async with aclosing(self._pieces(reply, deadline)) as pieces:
            async for piece in pieces:
                for name, data in reader.feed(piece):
                    if data == "[DONE]":
                        return
                    value = self._value(data)
                    if not isinstance(value, dict):
                        raise RemoteFailed(f"{self.service} sent an event that is not a JSON object")
                    yield name, value

    async def _pieces(self, reply: Reply, deadline: float) -> AsyncGenerator[bytes, None]:
        pieces = aiter(reply.pieces())
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
            except TimeoutError:
                total_s = self.config.total_s
                raise OutboundFailed(f"{self.service} did not end its answer within {total_s:g} s") from None
            if piece is None:
                return
            yield piece

    def _value(self, data: str | bytes) -> Any:
        try:
            value = json.loads(data, parse_constant=_refuse_constant)
            if isinstance(value, dict) and value.get("error"):
                return json.loads(self._without_secrets(data.encode() if isinstance(data, str) else data))
            return value
        except (ValueError, RecursionError) as fault:
            raise RemoteFailed(f"{self.service} sent what is not JSON") from fault

    def _without_secrets(self, body: bytes) -> bytes:
        """An error's body, in which some services repeat the key they were given."""
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return body


def _secrets_of(headers: Mapping[str, str]) -> tuple[bytes, ...]:
    """What must not be repeated of the headers that are sent: keys, whole and without the scheme before them."""
    given = [value for name, value in headers.items() if any(word in name.lower() for word in _SECRET_HEADERS)]
    parts = {part for value in given for part in (value, value.rpartition(" ")[2]) if len(part) >= MIN_SECRET_CHARS}
    return tuple(part.encode() for part in sorted(parts, key=len, reverse=True))


async def _some(reply: Reply) -> bytes:
    """The beginning of an error's body; whatever breaks while it is read, the status is known already."""
    read = bytearray()
    try:
        async for piece in reply.pieces():
            read += piece
            if len(read) > MAX_ERROR_BYTES:
                break
    except (LlamakitError, OSError, httpx2.TransportError):
        return bytes(read)
    return bytes(read)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
