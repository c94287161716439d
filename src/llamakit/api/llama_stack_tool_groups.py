"""Llama Stack's tool groups and their tools: registered, listed and called; and the keys that a caller brings along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.llama_stack_content import LlamaStackContent
from llamakit.api.llama_stack_tools import LlamaStackToolDef, from_spec
from llamakit.api.wire import Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec

PROVIDER_DATA = ("x-llamastack-provider-data", "x-ogx-provider-data")
"""Headers in which a caller sends keys of its own, as JSON; the newer name counts where both come."""
MAX_PROVIDER_DATA_CHARS = 16_384


class LlamaStackEndpoint(Wire):
    """Where an MCP server listens."""

    uri: Annotated[str, Field(max_length=2048)]


class LlamaStackToolGroupRequest(Wire):
    """Body of `POST /v1/toolgroups`."""

    toolgroup_id: Annotated[str, Field(min_length=1, max_length=128)]
    provider_id: str
    mcp_endpoint: LlamaStackEndpoint | None = None
    args: dict[str, Any] | None = None
    """Settings that every use of the group has; credentials do not belong here."""


class LlamaStackToolGroup(Wire):
    """A set of tools."""

    identifier: str
    type: Literal["tool_group"]
    provider_id: str
    provider_resource_id: str
    mcp_endpoint: LlamaStackEndpoint | None = None
    args: dict[str, Any] | None = None


class LlamaStackToolGroups(Wire):
    """All of them."""

    data: list[LlamaStackToolGroup]


class LlamaStackListedTool(LlamaStackToolDef):
    """A tool of a group: its definition, and the names by which classic clients know it."""

    identifier: str
    type: Literal["tool"]
    provider_id: str
    provider_resource_id: str


class LlamaStackListedTools(Wire):
    """Tools of one group or of all."""

    data: list[LlamaStackListedTool]


class LlamaStackToolDefs(Wire):
    """The same as definitions."""

    data: list[LlamaStackToolDef]


class LlamaStackInvocation(Wire):
    """Body of `POST /v1/tool-runtime/invoke`."""

    tool_name: Annotated[str, Field(min_length=1, max_length=256)]
    kwargs: dict[str, Any]
    authorization: str | None = None
    """Bearer token for the tool's MCP server (newer generation)."""


class LlamaStackToolResult(Wire):
    """What a tool answered."""

    content: LlamaStackContent | None = None
    error_message: str | None = None
    error_code: int | None = None
    """1 where the tool failed."""
    metadata: dict[str, Any] | None = None


def group_body(id: str, provider_id: str, mcp_endpoint: str | None, args: Mapping[str, Any] | None) -> dict[str, Any]:
    """The wire form of a group."""
    return {
        "identifier": id,
        "type": "tool_group",
        "provider_id": provider_id,
        "provider_resource_id": id,
        "mcp_endpoint": None if mcp_endpoint is None else {"uri": mcp_endpoint},
        "args": dict(args) if args else None,
    }


def tool_body(spec: ToolSpec, group: str, provider_id: str) -> dict[str, Any]:
    """The wire form of a tool, for readers of either generation."""
    return {
        **from_spec(spec, group=group),
        "identifier": spec.name,
        "type": "tool",
        "provider_id": provider_id,
        "provider_resource_id": spec.name,
    }


def result_body(text: str, *, is_error: bool, data: Mapping[str, Any]) -> dict[str, Any]:
    """The wire form of what a tool answered."""
    return {
        "content": text,
        "error_message": text if is_error else None,
        "error_code": 1 if is_error else None,
        "metadata": dict(data) or None,
    }


def read_provider_data(headers: Mapping[str, str]) -> dict[str, Any]:
    """What the caller's header says, empty without one; raises `InvalidRequest`, which never repeats it."""
    text = next((headers[name] for name in reversed(PROVIDER_DATA) if name in headers), None)
    if text is None:
        return {}
    try:
        value = json.loads(text) if len(text) <= MAX_PROVIDER_DATA_CHARS else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"the header {PROVIDER_DATA[0]} must hold a JSON object of at most {MAX_PROVIDER_DATA_CHARS} characters"
        )
    return value


def mcp_headers(data: Mapping[str, Any], endpoint: str | None) -> dict[str, Any]:
    """What the caller sends along to one MCP server: settings of the call, empty where there are none."""
    headers = data.get("mcp_headers")
    if endpoint is None or headers is None:
        return {}
    mine = headers.get(endpoint) if isinstance(headers, dict) else None
    if not isinstance(headers, dict) or not isinstance(mine, dict | None):
        raise InvalidRequest(f"mcp_headers in {PROVIDER_DATA[0]} must map URLs to objects of headers")
    return {"headers": mine} if mine else {}


def idle_keys(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of the caller's header that have no effect: this server uses its own for services it calls."""
    return tuple(f"{PROVIDER_DATA[0]}.{name}" for name in data if name != "mcp_headers")
