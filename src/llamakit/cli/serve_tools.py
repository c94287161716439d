"""The tools that `llama serve` is given by flags, as a distribution says them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.stack.distribution import Distribution, McpEndpoint, ProviderEntry, ToolGroupEntry
from llamakit.stack.resolve import specs
from llamakit.stack.tool_providers import MCP, with_default_tools

_PORT = re.compile(r":[0-9]+$")
_SERVER = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.:-]*)=(?P<at>.+)", re.DOTALL)


def with_tools(
    distribution: Distribution, tools: Sequence[str], servers: Sequence[str], hosts: Sequence[str]
) -> Distribution:
    """The distribution with more tools: rows of the provider table, MCP servers as NAME=URL or NAME=COMMAND, and
    hosts at which requests may name MCP servers of their own."""
    if not (tools or servers or hosts):
        return distribution
    distribution = with_default_tools(distribution)
    there = {row.provider_id for row in distribution.of(Api.tools)}
    asked = {row.provider_id: row for row in map(_row, tools) if row.provider_id not in there}
    rows = [*asked.values(), *distribution.of(Api.tools)]
    if (servers or hosts) and not any(row.provider_type == MCP for row in rows):
        rows.append(_row(MCP))
    if hosts:
        outbound = {"hosts": list(hosts), "private": _vouched(hosts)}
        rows = [
            replace(row, config={**row.config, "outbound": outbound}) if row.provider_type == MCP else row
            for row in rows
        ]
    return replace(
        distribution,
        providers={**distribution.providers, Api.tools: tuple(rows)},
        tool_groups=(*distribution.tool_groups, *(_group(text) for text in servers)),
    )


def with_fetching(distribution: Distribution, hosts: Sequence[str]) -> Distribution:
    """The distribution with hosts from which requests may have files and images fetched."""
    if not hosts:
        return distribution
    before = distribution.fetch
    private = (*before.private, *_vouched(hosts))
    return replace(distribution, fetch=replace(before, hosts=(*before.hosts, *hosts), private=private))


def _vouched(hosts: Sequence[str]) -> list[str]:
    """The hosts that may be private: one given here is vouched for by a person of this machine, wherever it lies."""
    return [host.partition(":")[0] for host in hosts if "*" not in host]


def _row(name: str) -> ProviderEntry:
    known = {spec.name: spec.name.rpartition("::")[2] for spec in specs() if spec.api == Api.tools}
    for kind, short in known.items():
        if name in (kind, short):
            return ProviderEntry(provider_id=short, provider_type=kind)
    shorts = sorted(known.values())
    raise ConfigError(f"--tool: no tool {name!r}{nearest(name, shorts)}. There are: {', '.join(shorts)}")


def _group(text: str) -> ToolGroupEntry:
    found = _SERVER.fullmatch(text)
    if found is None:
        raise ConfigError(f"--mcp is NAME=URL or NAME=COMMAND, such as time=uvx mcp-server-time, got {text[:80]!r}")
    id = found["name"] if "::" in found["name"] else f"mcp::{found['name']}"
    if found["at"].startswith(("http://", "https://")):
        return ToolGroupEntry(toolgroup_id=id, mcp_endpoint=McpEndpoint(uri=found["at"]))
    try:
        command = shlex.split(found["at"])
    except ValueError as fault:
        raise ConfigError(f"--mcp: the command of {found['name']!r} cannot be read: {fault}") from fault
    return ToolGroupEntry(toolgroup_id=id, args={"command": command})
