"""MCP servers as tools: connect, list, call, with bounds on everything a server may send or hold.

A program is started only from configuration, never from a request. HTTP goes through the outbound
policy, with one server's credentials bound to that server. The tools of a server have a fingerprint;
one that changes after it was approved is refused. The SDK (extra `mcp`) is imported on connecting.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llamakit.agents.loop import ToolOutcome
from llamakit.agents.tools import Tool
from llamakit.core.errors import ConfigError, LlamakitError, MissingExtra, OutboundRefused, ToolError
from llamakit.core.messages import ToolSpec
from llamakit.outbound.network import GuardedTransport
from llamakit.outbound.policy import OutboundPolicy

if TYPE_CHECKING:
    import mcp

MAX_TOOLS = 512
MAX_DEFINITION_CHARS = 64_000
"""Of one tool's description and schema together."""
MAX_ANSWER_BYTES = 16 << 20
_PAGES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class McpProgram:
    """A server that is a program of this machine. Comes from configuration only."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """All it gets beside the few variables every program needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpAddress:
    """A server at a URL."""

    url: str
    transport: Literal["streamable_http", "sse"] = "streamable_http"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials for this server; they never go to another host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpServer:
    """A server and what it is trusted with."""

    label: str
    at: McpProgram | McpAddress
    allowed: tuple[str, ...] | None = None
    """Names of the tools that may be used; None allows all."""
    needs_approval: bool | tuple[str, ...] = True
    """Whether calls wait for a person; names ask for these tools only."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Tool names to the fingerprints they were approved with; a tool that differs is refused."""
    connect_s: float = 20.0
    call_s: float = 60.0
    max_chars: int = 100_000


def fingerprint(name: str, description: str, schema: Mapping[str, Any]) -> str:
    """SHA-256 of what a tool says of itself; another word is another tool."""
    said = json.dumps([name, description, schema], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()


class McpConnection:
    """An open connection to one server. One task owns it, since the SDK wants to end where it began."""

    def __init__(self, server: McpServer, policy: OutboundPolicy) -> None:
        self.server = server
        self._policy = policy
        self._client: mcp.Client | None = None
        self._ready: asyncio.Future[None] | None = None
        self._leave = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Raises `MissingExtra`, `ConfigError`, `OutboundRefused` or `ToolError` with the reason."""
        try:
            import mcp as sdk
        except ImportError as error:
            raise MissingExtra("MCP servers need the SDK: pip install 'llamakit[mcp]'") from error
        del sdk
        self._ready = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(self._ready), name=f"mcp {self.server.label}")
        try:
            async with asyncio.timeout(self.server.connect_s):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            await self.close()
            raise ToolError(
                f"MCP server {self.server.label!r} did not answer within {self.server.connect_s} s"
            ) from error
        except BaseException:
            await self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether the server is still there, as far as can be told without asking it."""
        return self._client is not None and self._owner is not None and not self._owner.done()

    async def close(self) -> None:
        """Disconnect; a program is ended."""
        self._leave.set()
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self._ready is None or not self._ready.done():
            owner.cancel()
        _, late = await asyncio.wait([owner], timeout=10)
        for task in late:
            task.cancel()
        await asyncio.gather(owner, return_exceptions=True)
        if self._ready is not None and self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # it was told, or nobody waits for it any more

    async def tools(self) -> list[Tool]:
        """The server's allowed tools, as ours. A changed, unnamed or oversized one is left out or refused."""
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await self._asked(lambda client, at=cursor: client.list_tools(cursor=at, cache_mode="refresh"))
            found += [tool for definition in page.tools if (tool := self._tool(definition)) is not None]
            if len(found) > MAX_TOOLS:
                break
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ToolError(f"MCP server {self.server.label!r} lists more than {MAX_TOOLS} tools; restrict them")

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolOutcome:
        """Call a tool; what the server answers is text for the model, what it breaks is a `ToolError`."""
        result = await self._asked(
            lambda client: client.call_tool(name, dict(arguments), read_timeout_seconds=self.server.call_s)
        )
        return ToolOutcome(_text(result.content), bool(result.is_error), {"structured": result.structured_content})

    def _tool(self, definition: Any) -> Tool | None:
        name, label = definition.name, self.server.label
        if self.server.allowed is not None and name not in self.server.allowed:
            return None
        description, schema = definition.description or "", dict(definition.input_schema or {})
        if len(description) + len(json.dumps(schema)) > MAX_DEFINITION_CHARS:
            raise ToolError(f"tool {name!r} of MCP server {label!r} describes itself in too many words")
        pin = self.server.pins.get(name)
        if self.server.pins and pin != fingerprint(name, description, schema):
            what = "is new" if pin is None else "has changed"
            raise ToolError(f"tool {name!r} of MCP server {label!r} {what} since it was approved; approve it again")
        asks = self.server.needs_approval

        async def call(arguments: Mapping[str, Any]) -> ToolOutcome:
            return await self.call(name, arguments)

        return Tool(
            spec=ToolSpec(name=name, description=description, parameters=schema),
            call=call,
            needs_approval=asks if isinstance(asks, bool) else name in asks,
            seconds=self.server.call_s,
            max_chars=self.server.max_chars,
            group=label,
            is_read_only=getattr(definition.annotations, "read_only_hint", None) is True,
        )

    async def _asked(self, ask: Any) -> Any:
        client = self._client
        if client is None or self._owner is None or self._owner.done():
            raise ToolError(f"MCP server {self.server.label!r} is not connected")
        asking = asyncio.ensure_future(ask(client))
        try:
            # A server that goes away must not leave its callers waiting.
            await asyncio.wait({asking, self._owner}, timeout=self.server.call_s, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                gone = self._owner.done()
                what = "went away" if gone else f"did not answer within {self.server.call_s:g} s"
                raise ToolError(f"MCP server {self.server.label!r} {what}")
            return asking.result()
        except LlamakitError:
            raise
        except Exception as error:
            raise ToolError(f"MCP server {self.server.label!r} failed: {_first(error)}") from error
        finally:
            asking.cancel()

    async def _own(self, ready: asyncio.Future[None]) -> None:
        """Hold the connection from beginning to end, in one task."""
        try:
            async with AsyncExitStack() as stack:
                self._client = await stack.enter_async_context(await self._connecting(stack))
                ready.set_result(None)
                await self._leave.wait()
        except asyncio.CancelledError:
            if not ready.done():
                ready.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - groups of errors included; told to who opens
            if not ready.done():
                ready.set_exception(_opening_error(self.server.label, error))
        finally:
            self._client = None

    async def _connecting(self, stack: AsyncExitStack) -> mcp.Client:
        from mcp import Client
        from mcp.client.sse import sse_client
        from mcp.client.stdio import StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client

        at = self.server.at
        # For the handshake, which the time to open covers; what is asked later has a time of its own.
        patience = max(self.server.connect_s, self.server.call_s)
        if isinstance(at, McpProgram):
            program = StdioServerParameters(
                command=at.command, args=list(at.arguments), env=dict(at.environment), encoding_error_handler="replace"
            )
            return Client(program, read_timeout_seconds=patience, cache=None)
        self._policy.check_url(at.url)
        if at.transport == "sse":
            transport = sse_client(at.url, httpx_client_factory=self._factory(at))
            return Client(transport, mode="legacy", read_timeout_seconds=patience, cache=None)
        http = await stack.enter_async_context(self._factory(at)())
        transport = streamable_http_client(at.url, http_client=http)
        return Client(transport, read_timeout_seconds=patience, cache=None)

    def _factory(self, at: McpAddress) -> Any:
        """Makes HTTP clients that stay within the policy and keep no cookies of the environment."""
        import httpx2

        def make(
            headers: dict[str, str] | None = None,
            timeout: httpx2.Timeout | None = None,
            auth: httpx2.Auth | None = None,
        ) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                transport=GuardedTransport(self._policy, max_bytes=MAX_ANSWER_BYTES),
                headers={**(headers or {}), **at.headers},
                timeout=timeout or httpx2.Timeout(30.0, read=self.server.call_s),
                auth=auth,
                trust_env=False,
                follow_redirects=False,
            )

        return make


def _opening_error(label: str, error: BaseException) -> LlamakitError:
    first = _first(error)
    if isinstance(first, OutboundRefused | ConfigError):
        return first
    if isinstance(first, FileNotFoundError | PermissionError):
        return ConfigError(f"the program of MCP server {label!r} cannot be started: {first}")
    return ToolError(f"MCP server {label!r} could not be opened: {type(first).__name__}: {first}")


def _first(error: BaseException) -> BaseException:
    """The innermost first error of groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _text(content: Sequence[Any]) -> str:
    """What the model reads: texts as they are, anything else by its kind."""
    parts = []
    for part in content:
        if part.type == "text":
            parts.append(part.text)
        elif part.type == "resource" and getattr(part.resource, "text", None) is not None:
            parts.append(part.resource.text)
        elif part.type == "resource_link":
            parts.append(f"[{part.name}: {part.uri}]")
        else:
            parts.append(f"[{part.type}: {getattr(part, 'mime_type', None) or 'no media type'}]")
    return "\n".join(parts)
