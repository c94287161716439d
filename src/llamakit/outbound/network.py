"""Connecting: a name is resolved once, every address it has is checked, and one of those is connected to.

This sits under the HTTP library, at the call that opens the socket, so whatever a URL, a redirect or
a library above meant, the host that is connected to is the host that was checked. TLS and the Host
header still carry the name.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import cast

import httpcore2
import httpx2

from llamakit.core.errors import OutboundFailed, OutboundRefused
from llamakit.core.tracing import outgoing
from llamakit.outbound.addresses import Address, parse, unwrapped
from llamakit.outbound.policy import OutboundPolicy

Resolver = Callable[[str], Awaitable[Sequence[Address]]]
"""Every address of a host name."""

MAX_TRIED = 4
"""Addresses of one host that are tried before giving up."""


async def resolve(host: str) -> Sequence[Address]:
    """Every address the system's resolver knows for a name."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OutboundFailed(f"the host {host!r} could not be found: {error.strerror or error}") from error
    addresses = (unwrapped(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)
    return list(dict.fromkeys(addresses))


@functools.cache
def trusted_roots() -> ssl.SSLContext:
    """The system's trust in certificates, read once; SSL variables of the environment do not count."""
    return httpx2.create_ssl_context(trust_env=False)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens sockets, only where the policy allows."""

    def __init__(self, policy: OutboundPolicy, resolver: Resolver) -> None:
        self._policy = policy
        self._resolver = resolver
        self._sockets = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to one of the checked addresses of `host`; all of them must be allowed."""
        host = self._policy.check_host(host, port)
        addresses = await self._addresses(host, timeout)
        failure: Exception | None = None
        for address in addresses[:MAX_TRIED]:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or OutboundFailed(f"the host {host!r} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Never: a local socket is no outbound host."""
        raise OutboundRefused("local sockets are not reached through the outbound client")

    async def sleep(self, seconds: float) -> None:
        """Wait, for the library's retries."""
        await self._sockets.sleep(seconds)

    async def _addresses(self, host: str, timeout: float | None) -> Sequence[Address]:
        literal = parse(host)
        if literal is not None:
            addresses: Sequence[Address] = [literal]
        else:
            try:
                async with asyncio.timeout(timeout):
                    addresses = [unwrapped(address) for address in await self._resolver(host)]
            except TimeoutError as error:
                raise OutboundFailed(f"the host {host!r} was not found within {timeout} s") from error
        for address in addresses:
            self._policy.check_address(host, address)
        return addresses


class _Body(httpx2.AsyncByteStream):
    """A response body of bounded size, whose errors are the HTTP library's public ones."""

    def __init__(self, pieces: AsyncIterable[bytes], max_bytes: int) -> None:
        self._pieces = pieces
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        try:
            async for piece in self._pieces:
                left -= len(piece)
                if left < 0:
                    raise httpx2.ReadError(f"the answer has more than {self._max_bytes} bytes")
                yield piece
        except _LOW_ERRORS as error:
            raise _raised(error) from error

    async def aclose(self) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()


_LOW_ERRORS = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError)


def _raised(error: Exception) -> httpx2.TransportError:
    """The public error of the same name."""
    kind = getattr(httpx2, type(error).__name__, httpx2.TransportError)
    return kind(str(error) or type(error).__name__)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A transport for anything that speaks through httpx2; it keeps connections, no cookies and no proxies."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        resolver: Resolver = resolve,
        roots: ssl.SSLContext | None = None,
        max_connections: int = 256,
        max_bytes: int = 1 << 40,
    ) -> None:
        """`max_bytes`: of one answer's body as it is sent, for libraries that set no limit of their own."""
        self._policy = policy
        self._resolver = resolver
        self._roots = roots
        self._max_connections = max_connections
        self._max_bytes = max_bytes

    @functools.cached_property
    def _pool(self) -> httpcore2.AsyncConnectionPool:
        """Made for the first request: reading the trusted certificates takes longer than all else here."""
        return httpcore2.AsyncConnectionPool(
            ssl_context=self._roots or trusted_roots(),
            max_connections=self._max_connections,
            max_keepalive_connections=32,
            keepalive_expiry=30.0,
            network_backend=GuardedBackend(self._policy, self._resolver),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request whose URL the policy allows; redirects are the caller's business."""
        target = self._policy.check_url(str(request.url))
        for name, value in outgoing().items():
            request.headers.setdefault(name, value)
        if not isinstance(request.stream, AsyncIterable):
            raise TypeError("the request's body must be readable asynchronously")
        try:
            reply = await self._pool.handle_async_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(
                        scheme=target.url.raw_scheme,
                        host=target.url.raw_host,
                        port=target.url.port,
                        target=target.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except _LOW_ERRORS as error:
            raise _raised(error) from error
        body = reply.stream
        if not isinstance(body, AsyncIterable):
            raise TypeError("the response's body must be readable asynchronously")
        return httpx2.Response(
            status_code=reply.status,
            headers=reply.headers,
            stream=_Body(body, self._max_bytes),
            extensions=reply.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
