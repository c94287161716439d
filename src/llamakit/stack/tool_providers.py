"""The tools of a distribution: which providers there are by default, and the tool groups known from the start.

Knows which settings a configured tool group gives to the provider of MCP servers, and nothing of what any
provider does with its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from llamakit.api.hosted_tools import HostedKind, HostedTools, RunsShell, ToolProvider
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.stack.distribution import Distribution, ProviderEntry, ToolGroupEntry
from llamakit.stack.tool_groups import ToolGroup

MCP = "remote::model-context-protocol"
DEFAULT = (
    ProviderEntry(provider_id="file-search", provider_type="inline::file-search"),
    ProviderEntry(provider_id="model-context-protocol", provider_type=MCP),
)
"""What a server has that says nothing of tools: the search of its own files, and MCP servers, as far as the
outbound policy of that provider, which allows none, lets it."""


def with_default_tools(distribution: Distribution) -> Distribution:
    """The distribution with the tools that every server has, unless it names its own."""
    if Api.tools in distribution.providers or (distribution.apis and Api.tools not in distribution.apis):
        return distribution
    rows = DEFAULT
    if distribution.server.offline:
        rows = tuple(row for row in rows if not row.provider_type.startswith("remote::"))
    return replace(distribution, providers={**distribution.providers, Api.tools: rows})


def settings_of(distribution: Distribution, entry: ProviderEntry) -> dict[str, Any]:
    """What a provider of tools is told beside its own settings: its MCP servers by the names of their groups."""
    if entry.provider_type != MCP:
        return {}
    mine = [group for group in distribution.tool_groups if is_server(group)]
    servers = {
        group.toolgroup_id: _server(group) for group in mine if _provider_of(group, distribution) == entry.provider_id
    }
    return {"servers": servers}


def fixed_groups(distribution: Distribution) -> tuple[ToolGroup, ...]:
    """The tool groups of the configuration; raises `ConfigError` for one without a provider."""
    made = []
    for group in distribution.tool_groups:
        if is_server(group):
            args: Mapping[str, Any] = {"server_label": group.toolgroup_id, "connector_id": group.toolgroup_id}
        else:
            args = group.args
        made.append(
            ToolGroup(
                id=group.toolgroup_id,
                provider_id=_provider_of(group, distribution),
                mcp_endpoint=None if group.mcp_endpoint is None else group.mcp_endpoint.uri,
                args=args,
            )
        )
    return tuple(made)


def is_server(group: ToolGroupEntry) -> bool:
    """Whether a group is an MCP server: at a URL, or a program of this machine."""
    return group.mcp_endpoint is not None or "command" in group.args


def by_kind(providers: Iterable[ToolProvider]) -> dict[HostedKind, HostedTools]:
    """The provider of each kind of tool of a response; of two of one kind the first counts."""
    made: dict[HostedKind, HostedTools] = {}
    for provider in providers:
        if provider.kind is not None:
            made.setdefault(provider.kind, provider)
        if isinstance(provider, RunsShell):
            made.setdefault("shell", provider.shell())
    return made


def _provider_of(group: ToolGroupEntry, distribution: Distribution) -> str:
    rows = distribution.of(Api.tools)
    if group.provider_id is not None:
        if group.provider_id not in {row.provider_id for row in rows}:
            there = ", ".join(row.provider_id for row in rows) or "none"
            raise ConfigError(
                f"tool group {group.toolgroup_id!r} is for the provider {group.provider_id!r}; there are: {there}"
            )
        return group.provider_id
    found = [row.provider_id for row in rows if row.provider_type == MCP]
    if not is_server(group) or not found:
        raise ConfigError(
            f"tool group {group.toolgroup_id!r} needs a provider_id, or, for an MCP server, a provider {MCP} of tools"
        )
    return found[0]


def _server(group: ToolGroupEntry) -> dict[str, Any]:
    """The settings of one MCP server as its provider takes them."""
    url = {} if group.mcp_endpoint is None else {"url": group.mcp_endpoint.uri}
    return {**group.args, **url}
