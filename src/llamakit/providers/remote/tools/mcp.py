"""The tools of MCP servers: connections that are kept for a while, each to one server for one owner.

Requests name servers by URL, as far as the outbound policy goes, or by the name of a configured one. Headers are
part of what a connection is found by, so nobody talks over another one's credentials.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from llamakit.agents.mcp import McpAddress, McpConnection, McpProgram, McpServer
from llamakit.agents.tools import Tool, ToolBox
from llamakit.api.hosted_tools import HostedKind, HostedResult, ServerParts
from llamakit.core.errors import ConfigError, LlamakitError, OutboundFailed, ToolError
from llamakit.core.messages import ToolCall, ToolSpec
from llamakit.outbound.policy import OutboundPolicy
from llamakit.providers.remote.tools.mcp_settings import Usage, Wanted, read_server, read_wanted
from llamakit.providers.shared.tool_settings import check_config, config_number

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
IDLE_S = 300.0
_POLICY = ("hosts", "private", "plain_http")


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> McpTools:
    """The provider; raises `ConfigError` for a setting or a server that cannot be. Connects to nothing."""
    check_config("remote::model-context-protocol", config, ("outbound", "servers", "idle_s", "max_connections"))
    allowed = config.get("outbound") or {}
    check_config("outbound", allowed, _POLICY)
    policy = OutboundPolicy(
        hosts=tuple(allowed.get("hosts") or ()),
        private=tuple(allowed.get("private") or ()),
        plain_http=allowed.get("plain_http") is True,
    )
    servers = config.get("servers") or {}
    if not isinstance(servers, Mapping):
        raise ConfigError("servers of remote::model-context-protocol must be an object of servers by their names")
    pool = McpPool(
        idle_s=config_number(config, "idle_s", IDLE_S, 86_400.0),
        most=int(config_number(config, "max_connections", MAX_CONNECTIONS, 10_000)),
    )
    return McpTools({label: read_server(label, server) for label, server in servers.items()}, policy, pool)


class McpTools:
    """The provider."""

    kind: HostedKind = "mcp"
    group: str | None = None

    def __init__(self, servers: Mapping[str, Wanted], policy: OutboundPolicy, pool: McpPool) -> None:
        self._servers = servers
        self._policy = policy
        self._pool = pool

    def bind(self, parts: ServerParts) -> None:
        """It needs nothing of its server."""

    async def start(self) -> None:
        """Nothing to try: a server that is away now may be there when it is needed."""

    async def open(self, owner: str, settings: Mapping[str, Any]) -> _Server:
        """A server's tools; raises `OutboundFailed` where it does not answer."""
        wanted = read_wanted(settings, self._servers, self._policy)
        try:
            tools = await self._pool.tools(owner, wanted)
        except ToolError as fault:
            raise OutboundFailed(str(fault)) from fault
        return _Server(owner, wanted, self._pool, [tool for tool in tools if wanted.usage.allows(tool)])

    async def aclose(self) -> None:
        """Close every connection; programs are ended."""
        await self._pool.aclose()


class _Server:
    """The tools of one server for one request."""

    def __init__(self, owner: str, wanted: Wanted, pool: McpPool, tools: list[Tool]) -> None:
        self._owner = owner
        self._wanted = wanted
        self._pool = pool
        self._usage: Usage = wanted.usage
        self._tools = {tool.spec.name: tool for tool in tools}

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model sees."""
        return tuple(tool.spec for tool in self._tools.values())

    def needs_approval(self, name: str) -> bool:
        """As the request or the configuration says."""
        return self._usage.needs_approval(name)

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Call a tool, over a new connection where the one that listed it is gone."""
        tool = self._tools.get(name)
        if tool is None:
            raise ToolError(f"MCP server {self._wanted.server.label!r} offers no tool {name!r} here")
        try:
            connection = await self._pool.get(self._owner, self._wanted)
        except LlamakitError as fault:
            raise ToolError(f"MCP server {self._wanted.server.label!r} is away: {fault}") from fault
        current = replace(tool, call=lambda given: connection.call(name, given))
        outcome = await ToolBox.of([current]).call(ToolCall(id="call", name=name, arguments=arguments))
        fields = {"error": {"type": "mcp_tool_execution_error", "content": outcome.text}} if outcome.is_error else {}
        return HostedResult(output=outcome.text, fields=fields, is_failed=outcome.is_error)


@dataclass(slots=True)
class _Entry:
    """A connection that is open or being opened."""

    opening: asyncio.Task[McpConnection]
    used_s: float = field(default_factory=time.monotonic)


class McpPool:
    """Connections by owner and server; the longest unused are closed first."""

    def __init__(self, *, idle_s: float = IDLE_S, most: int = MAX_CONNECTIONS) -> None:
        self._idle_s = idle_s
        self._most = most
        self._entries: dict[str, _Entry] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def tools(self, owner: str, wanted: Wanted) -> list[Tool]:
        """A server's tools, over a new connection where a kept one turns out to be dead."""
        key = _key(owner, wanted.server)
        was_kept = key in self._entries
        try:
            return await (await self.get(owner, wanted)).tools()
        except ToolError:
            if not was_kept:
                raise
            self._drop(key)
            return await (await self.get(owner, wanted)).tools()

    async def get(self, owner: str, wanted: Wanted) -> McpConnection:
        """An open connection; raises what `McpConnection.open` raises."""
        key = _key(owner, wanted.server)
        entry = self._entries.get(key)
        if entry is not None and entry.opening.done() and not _is_alive(entry.opening):
            self._drop(key)
            entry = None
        if entry is None:
            self._make_room()
            entry = _Entry(asyncio.create_task(_opened(wanted), name=f"open mcp {wanted.server.label}"))
            self._entries[key] = entry
            if self._sweeper is None:
                self._sweeper = asyncio.create_task(self._sweep(), name="close idle mcp connections")
        entry.used_s = time.monotonic()
        try:
            # Shielded: several requests may wait for the same connection, and one of them may be given up.
            return await asyncio.shield(entry.opening)
        except LlamakitError:
            if self._entries.get(key) is entry:
                del self._entries[key]
            raise

    async def aclose(self) -> None:
        """Close all of them."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await sweeper
        for key in list(self._entries):
            self._drop(key)
        if self._closing:
            await asyncio.wait(self._closing)

    def _make_room(self) -> None:
        while len(self._entries) >= self._most:
            self._drop(min(self._entries, key=lambda key: self._entries[key].used_s))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            task = asyncio.create_task(_close(entry.opening), name="close mcp")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._idle_s / 4)
            long_ago = time.monotonic() - self._idle_s
            for key in [key for key, entry in self._entries.items() if entry.used_s < long_ago]:
                self._drop(key)


async def _opened(wanted: Wanted) -> McpConnection:
    """A new connection; at a URL of the older transport where the newer one is not spoken, and the reverse."""
    at = wanted.server.at
    ways: list[McpProgram | McpAddress] = [at]
    if isinstance(at, McpAddress):
        ways.append(replace(at, transport="streamable_http" if at.transport == "sse" else "sse"))
    failure: ToolError | None = None
    for way in ways:
        connection = McpConnection(replace(wanted.server, at=way), wanted.policy)
        try:
            await connection.open()
        except ToolError as fault:
            failure = failure or fault
        else:
            return connection
    assert failure is not None, "there is at least one way"
    raise failure


async def _close(opening: asyncio.Task[McpConnection]) -> None:
    if not opening.done():
        opening.cancel()
    with suppress(asyncio.CancelledError, LlamakitError):
        await (await opening).close()


def _is_alive(opening: asyncio.Task[McpConnection]) -> bool:
    return not opening.cancelled() and opening.exception() is None and opening.result().is_open


def _key(owner: str, server: McpServer) -> str:
    """What a connection is found by: a digest, so that credentials stand in no table."""
    at = server.at
    place: list[Any] = (
        [at.url, at.transport, sorted(at.headers.items())]
        if isinstance(at, McpAddress)
        else [at.command, list(at.arguments), sorted(at.environment.items())]
    )
    return hashlib.sha256(json.dumps([owner, server.label, place]).encode()).hexdigest()
