"""Tool groups: names for sets of tools that can be listed and called, built in or of MCP servers.

A group is one of three: built in (a provider of this server serves it), known from the configuration, or
registered at run time by an owner. What is registered is kept; credentials are not, they come with each call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.agents.loop import ToolOutcome
from llamakit.agents.tools import Tool, ToolBox
from llamakit.api.hosted_tools import HostedTool, ToolProvider
from llamakit.core.errors import Conflict, InvalidRequest, LlamakitError, NotFound, ToolError
from llamakit.core.messages import ToolCall, ToolSpec
from llamakit.stack.storage import Storage
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Executor, Row
from llamakit.storage.tables import Owned, Table, create_owned

log = logging.getLogger(__name__)

TOOL_GROUP = IdKind("tg_", "tool group")
"""Tool groups are named by their makers; this gives the words for one that is not there."""
GROUPS = Table("tool_groups", ("provider", "endpoint", "args"), ids=TOOL_GROUP)
MAX_GROUPS = 256
"""Registered by one owner."""
MAX_ARGS_CHARS = 64_000
BUILTIN = "builtin::"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]|::|/(?=.)){0,126}", re.ASCII)
_CREDENTIALS = ("headers", "authorization", "api_key", "token")


async def create_tool_groups(transaction: Executor) -> None:
    """The migration that makes the table of registered groups."""
    for sql in create_owned("tool_groups", "provider TEXT NOT NULL", "endpoint TEXT", "args TEXT NOT NULL"):
        await transaction.execute(sql)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolGroup:
    """A set of tools."""

    id: str
    provider_id: str
    mcp_endpoint: str | None = None
    """URL of its MCP server, where it has one."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Settings that every use of the group has."""


Groups = list[ToolGroup]
Tools = list[Tool]


class ToolGroups:
    """The tool groups of one server."""

    def __init__(
        self, storage: Storage, providers: Mapping[str, ToolProvider], configured: Sequence[ToolGroup] = ()
    ) -> None:
        self._storage = storage
        self._providers = providers
        self._fixed: dict[str, ToolGroup] = {}
        for id, provider in providers.items():
            if provider.group is not None:
                # Of two providers of a group the first counts.
                self._fixed.setdefault(provider.group, ToolGroup(id=provider.group, provider_id=id))
        self._fixed |= {group.id: group for group in configured}

    async def list(self, owner: str) -> Groups:
        """Every group: the built-in ones, those of the configuration, and the owner's."""
        rows = await (await self._rows(owner)).find()
        return [*sorted(self._fixed.values(), key=lambda group: group.id), *(_group(row) for row in rows)]

    async def get(self, owner: str, id: str) -> ToolGroup:
        """A group, or `NotFound`."""
        if id in self._fixed:
            return self._fixed[id]
        return _group(await (await self._rows(owner)).get(id))

    async def register(
        self,
        owner: str,
        id: str,
        provider_id: str,
        mcp_endpoint: str | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> ToolGroup:
        """Add a group; the same registration again changes nothing, another one under its name is a `Conflict`.

        Raises `InvalidRequest` for a name, provider, endpoint or args that cannot be. Nothing is connected to.
        """
        group = ToolGroup(id=id, provider_id=provider_id, mcp_endpoint=mcp_endpoint, args=dict(args or {}))
        if id in self._fixed:
            if self._fixed[id].provider_id == provider_id and mcp_endpoint in (None, self._fixed[id].mcp_endpoint):
                return self._fixed[id]
            raise Conflict(f"tool group {id!r} is part of this server; choose another name")
        self._check(group)
        rows = await self._rows(owner)
        if await rows.count() >= MAX_GROUPS:
            raise InvalidRequest(f"{MAX_GROUPS} tool groups are registered; unregister one first")
        row = {"provider": provider_id, "endpoint": mcp_endpoint, "args": json.dumps(group.args)}
        try:
            await rows.insert(id, row)
        except Conflict:
            if await self.get(owner, id) != group:
                raise Conflict(f"tool group {id!r} is registered already, otherwise; unregister it first") from None
        return group

    async def unregister(self, owner: str, id: str) -> None:
        """Remove a registered group; `NotFound` where the owner has none of that name."""
        if id in self._fixed:
            raise InvalidRequest(f"tool group {id!r} is part of this server and stays", param="toolgroup_id")
        await (await self._rows(owner)).delete(id)

    async def tools(self, owner: str, group: str | None = None, *, args: Mapping[str, Any] | None = None) -> Tools:
        """The tools of a group, or of all that can be reached; `args` add to the group's own for this use.

        Of a named group, raises what keeps it from being opened; of all, such a one is left out with a warning.
        """
        if group is not None:
            return await self._tools(owner, await self.get(owner, group), args)
        # Side by side: a server that is away takes its time to be given up.
        groups = await self.list(owner)
        found = await asyncio.gather(*(self._reachable(owner, one, args) for one in groups))
        return [tool for tools in found for tool in tools]

    async def invoke(
        self,
        owner: str,
        name: str,
        arguments: Mapping[str, Any],
        *,
        group: str | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> ToolOutcome:
        """Call a tool by its name, or by `group/name`; `NotFound` where no group has it.

        What goes wrong inside of the tool is an outcome.
        """
        tool = await self._find(owner, name, group, args)
        call = ToolCall(id="call", name=tool.spec.name, arguments=json.dumps(dict(arguments)))
        return await ToolBox.of([tool]).call(call)

    async def _find(self, owner: str, name: str, group: str | None, args: Mapping[str, Any] | None) -> Tool:
        groups = await self.list(owner) if group is None else [await self.get(owner, group)]
        for one in groups:
            plain = name.removeprefix(f"{one.id}/")
            if self._may_have(one, plain):
                try:
                    tools = await self._tools(owner, one, args)
                except LlamakitError as fault:
                    if group is not None or plain != name:
                        raise
                    log.warning("tool group %s was not searched for a tool: %s", one.id, fault)
                    continue
                for tool in tools:
                    if tool.spec.name == plain:
                        return tool
        raise NotFound(f"no tool {name[:128]!r}; list the tools first")

    async def _reachable(self, owner: str, group: ToolGroup, args: Mapping[str, Any] | None) -> Tools:
        """The tools of a group; none, with a warning, where it cannot be opened."""
        try:
            return await self._tools(owner, group, args)
        except LlamakitError as fault:
            log.warning("tool group %s is left out of the list: %s", group.id, fault)
            return []

    def _may_have(self, group: ToolGroup, name: str) -> bool:
        """Whether it is worth opening: the names of a built-in group's tools are known without."""
        names = BUILTIN_TOOLS.get(group.id)
        return names is None or name in names

    async def _tools(self, owner: str, group: ToolGroup, args: Mapping[str, Any] | None) -> Tools:
        provider = self._providers.get(group.provider_id)
        if provider is None:
            raise InvalidRequest(
                f"tool group {group.id!r} wants a provider {group.provider_id!r}, which this server has not"
            )
        settings = {**group.args, **(args or {})}
        if group.mcp_endpoint is not None and group.id not in self._fixed:
            # Who registers a server trusts it; approval is for servers that a request brings along.
            settings = {"require_approval": "never", **settings}
            settings |= {"server_label": group.id, "server_url": group.mcp_endpoint}
        opened = await provider.open(owner, settings)
        return [_tool(opened, spec, group) for spec in opened.specs]

    def _check(self, group: ToolGroup) -> None:
        """Refuse what may not be registered."""
        if _NAME.fullmatch(group.id) is None or group.id.startswith(BUILTIN):
            raise InvalidRequest(
                f"toolgroup_id is a name such as mcp::calendar, and not {BUILTIN}..., got {group.id[:80]!r}",
                param="toolgroup_id",
            )
        provider = self._providers.get(group.provider_id)
        if provider is None:
            there = ", ".join(self._providers) or "none"
            raise InvalidRequest(
                f"provider_id must be one of: {there}; got {group.provider_id[:80]!r}", param="provider_id"
            )
        if provider.kind == "mcp" and not group.mcp_endpoint:
            raise InvalidRequest("mcp_endpoint is required: the URL of the MCP server", param="mcp_endpoint")
        if provider.kind != "mcp" and group.mcp_endpoint:
            raise InvalidRequest(f"provider {group.provider_id!r} takes no mcp_endpoint", param="mcp_endpoint")
        if len(group.mcp_endpoint or "") > 2048 or len(json.dumps(group.args)) > MAX_ARGS_CHARS:
            raise InvalidRequest(f"a URL has at most 2048 characters and args {MAX_ARGS_CHARS}", param="args")
        for name in _CREDENTIALS:
            if name in group.args:
                raise InvalidRequest(f"args.{name}: credentials are not kept; send them with each call", param="args")

    async def _rows(self, owner: str) -> Owned:
        return GROUPS.of(await self._storage.database(), owner)


BUILTIN_TOOLS: Mapping[str, tuple[str, ...]] = {
    "builtin::websearch": ("web_search",),
    "builtin::wolfram_alpha": ("wolfram_alpha",),
    "builtin::rag": ("knowledge_search",),
    "builtin::code_interpreter": ("code_interpreter",),
    "builtin::image_generation": ("image_generation",),
}
"""The built-in groups and their tools."""


def _group(row: Row) -> ToolGroup:
    return ToolGroup(
        id=row["id"], provider_id=row["provider"], mcp_endpoint=row["endpoint"], args=json.loads(row["args"])
    )


def _tool(opened: HostedTool, spec: ToolSpec, group: ToolGroup) -> Tool:
    async def call(arguments: Mapping[str, Any]) -> ToolOutcome:
        try:
            result = await opened.call(spec.name, json.dumps(dict(arguments)))
        except ToolError as fault:
            return ToolOutcome(str(fault), is_error=True)
        data = {**result.fields, "citations": dict(result.citations)} if result.citations else dict(result.fields)
        return ToolOutcome(result.output, result.is_failed, data)

    return Tool(spec=spec, call=call, needs_approval=opened.needs_approval(spec.name), group=group.id)
