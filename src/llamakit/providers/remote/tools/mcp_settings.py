"""What a request or a configuration says of an MCP server -> a server, and what of it may be used.

A request names a URL or one of the configured servers; programs come from configuration only, so nothing here
reads one from a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.agents.mcp import McpAddress, McpProgram, McpServer
from llamakit.agents.tools import Tool
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.outbound.policy import OutboundPolicy
from llamakit.providers.shared.tool_settings import check_config, check_settings, texts

MAX_HEADERS = 32
MAX_HEADER_CHARS = 8192
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*", re.ASCII)
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type", "cookie"})
"""Headers of the transport itself."""
_CONFIG = (
    "url",
    "transport",
    "headers",
    "command",
    "environment",
    "allowed_tools",
    "require_approval",
    "call_s",
)
_SETTINGS = (
    "type",
    "server_label",
    "server_url",
    "server_description",
    "connector_id",
    "authorization",
    "headers",
    "allowed_tools",
    "require_approval",
)
Transport = Literal["streamable_http", "sse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asks:
    """Which tools somebody wants to be asked about."""

    always: frozenset[str] | bool = True
    """By name; True means all."""
    never: frozenset[str] = frozenset()
    """Those of all that are excepted."""

    def about(self, name: str) -> bool:
        """Whether calls of the tool must be allowed first."""
        if isinstance(self.always, bool):
            return self.always and name not in self.never
        return name in self.always


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What of a server a request may use, and what of that must be allowed first."""

    names: frozenset[str] | None = None
    """Tools by name; None allows all."""
    read_only: bool = False
    """Only tools that say of themselves that they change nothing."""
    asks: tuple[Asks, ...] = (Asks(),)
    """Of the configuration and of the request; one that wants to be asked is enough."""

    def allows(self, tool: Tool) -> bool:
        """Whether the tool may be used."""
        return (self.names is None or tool.spec.name in self.names) and (not self.read_only or tool.is_read_only)

    def needs_approval(self, name: str) -> bool:
        """Whether calls of the tool must be allowed first."""
        return any(asks.about(name) for asks in self.asks)

    def within(self, other: Usage) -> Usage:
        """What both allow, with the questions of both."""
        names = self.names if other.names is None else other.names
        if self.names is not None and other.names is not None:
            names = self.names & other.names
        return Usage(names=names, read_only=self.read_only or other.read_only, asks=self.asks + other.asks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A server, the policy that it is reached by, and how it may be used."""

    server: McpServer
    policy: OutboundPolicy
    usage: Usage


def read_server(label: str, config: Mapping[str, Any]) -> Wanted:
    """A server of the configuration; raises `ConfigError`."""
    check_config(f"the MCP server {label!r}", config, _CONFIG)
    command, url = config.get("command"), config.get("url")
    if bool(command) == bool(url):
        raise ConfigError(f"the MCP server {label!r} needs either a URL (mcp_endpoint) or a command")
    if command:
        if isinstance(command, str) or not all(isinstance(part, str) and part for part in command):
            raise ConfigError(f"the command of MCP server {label!r} is a list: the program, then its arguments")
        at: McpProgram | McpAddress = McpProgram(
            command=command[0], arguments=tuple(command[1:]), environment=_plain(config.get("environment"))
        )
        policy = OutboundPolicy()
    else:
        transport = config.get("transport", guess_transport(str(url)))
        if transport not in ("streamable_http", "sse"):
            raise ConfigError(f"the transport of MCP server {label!r} is streamable_http or sse, got {transport!r}")
        at = McpAddress(url=str(url), transport=transport, headers=_plain(config.get("headers")))
        policy = OutboundPolicy.to(str(url))
    try:
        usage = read_usage(
            {"allowed_tools": config.get("allowed_tools"), "require_approval": config.get("require_approval", "never")}
        )
    except InvalidRequest as fault:
        raise ConfigError(f"the MCP server {label!r}: {fault}") from fault
    call_s = float(config.get("call_s", 60.0))
    return Wanted(server=McpServer(label=label, at=at, call_s=call_s), policy=policy, usage=usage)


def read_wanted(settings: Mapping[str, Any], configured: Mapping[str, Wanted], policy: OutboundPolicy) -> Wanted:
    """The server that a request wants; raises `InvalidRequest` and `OutboundRefused`."""
    check_settings("mcp", settings, _SETTINGS)
    url, connector = settings.get("server_url"), settings.get("connector_id")
    label = str(settings.get("server_label") or connector or "mcp")
    if connector is not None and url is None:
        return _configured(connector, settings, configured)
    if connector is not None or not isinstance(url, str):
        raise InvalidRequest(
            f"the MCP server {label!r} needs server_url, or the connector_id of one that is configured here",
            param="tools.server_url",
        )
    policy.check_url(url)
    headers = read_headers(settings.get("headers"), settings.get("authorization"))
    at = McpAddress(url=url, transport=guess_transport(url), headers=headers)
    return Wanted(server=McpServer(label=label, at=at), policy=policy, usage=read_usage(settings))


def _configured(connector: Any, settings: Mapping[str, Any], configured: Mapping[str, Wanted]) -> Wanted:
    known = configured.get(connector) if isinstance(connector, str) else None
    if known is None:
        there = ", ".join(configured) or "none"
        raise InvalidRequest(
            f"connector_id must be a configured MCP server; there are: {there}", param="tools.connector_id"
        )
    if settings.get("headers") or settings.get("authorization"):
        raise InvalidRequest(
            "a configured MCP server has its own credentials; leave headers and authorization out",
            param="tools.headers",
        )
    usage = known.usage.within(read_usage({"require_approval": "never", **settings}))
    return Wanted(server=known.server, policy=known.policy, usage=usage)


def read_usage(settings: Mapping[str, Any]) -> Usage:
    """`allowed_tools` and `require_approval` as OpenAI spells them; raises `InvalidRequest`."""
    allowed = settings.get("allowed_tools")
    names, read_only = None, False
    if isinstance(allowed, Mapping):
        check_settings("allowed_tools", allowed, ("tool_names", "read_only"))
        names = frozenset(texts(allowed["tool_names"], "allowed_tools.tool_names")) if "tool_names" in allowed else None
        read_only = allowed.get("read_only") is True
    elif allowed is not None:
        names = frozenset(texts(allowed, "allowed_tools", most=512))
    return Usage(names=names, read_only=read_only, asks=(_read_asks(settings.get("require_approval")),))


def _read_asks(value: Any) -> Asks:
    match value:
        case None | "always":
            return Asks()
        case "never":
            return Asks(always=False)
        case Mapping():
            check_settings("require_approval", value, ("always", "never"))
            always, never = _names(value, "always"), _names(value, "never")
            # With `never` alone, everything else asks; with `always` alone, nothing else does.
            return Asks(always=True if always is None else always, never=never or frozenset())
    raise InvalidRequest(
        "require_approval is always, never, or an object of tool names", param="tools.require_approval"
    )


def _names(asks: Mapping[str, Any], name: str) -> frozenset[str] | None:
    value = asks.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"require_approval.{name} must be an object", param="tools.require_approval")
    check_settings(f"require_approval.{name}", value, ("tool_names",))
    return frozenset(texts(value.get("tool_names"), f"require_approval.{name}.tool_names", most=512))


def read_headers(headers: Any, authorization: Any) -> dict[str, str]:
    """The headers of a request, checked; their values are never repeated in messages."""
    given = headers or {}
    if not isinstance(given, Mapping) or len(given) > MAX_HEADERS:
        raise InvalidRequest(f"headers must be an object of at most {MAX_HEADERS} texts", param="tools.headers")
    made: dict[str, str] = {}
    for name, value in given.items():
        is_name = isinstance(name, str) and _HEADER_NAME.fullmatch(name) and name.lower() not in _OWN_HEADERS
        if not is_name or not isinstance(value, str) or not _is_header(value):
            raise InvalidRequest("headers holds a name or a value that cannot be sent", param="tools.headers")
        made[name.lower()] = value
    if authorization is not None:
        if not isinstance(authorization, str) or not _is_header(authorization):
            raise InvalidRequest("authorization holds characters that cannot be sent", param="tools.authorization")
        scheme, _, _ = authorization.partition(" ")
        is_whole = scheme.lower() in ("bearer", "basic")
        made["authorization"] = authorization if is_whole else f"Bearer {authorization}"
    return made


def _is_header(value: str) -> bool:
    return len(value) <= MAX_HEADER_CHARS and _HEADER_VALUE.fullmatch(value) is not None


def guess_transport(url: str) -> Transport:
    """The transport that is tried first."""
    path = url.partition("?")[0].rstrip("/")
    return "sse" if path.endswith("/sse") else "streamable_http"


def _plain(values: Any) -> dict[str, str]:
    """Headers or variables with their secrets revealed, for the one place that sends them."""
    return {
        str(name): value.reveal() if isinstance(value, Secret) else str(value) for name, value in (values or {}).items()
    }
