"""The tools of a request -> what its model may call, and who runs each.

Everything that a request names is opened here. An MCP server that is away offers nothing, and says why; anything
else that cannot be had is an error before the model is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from llamakit.api.hosted_tools import HostedKind, HostedTool, HostedTools
from llamakit.api.inference import ToolChoice
from llamakit.api.openai_hosted_tools import McpServerTool, settings_of
from llamakit.api.openai_machine_calls import machine_spec
from llamakit.api.openai_machine_tools import ComputerPreviewTool, ContainerReference, ProgrammaticTool, ShellTool
from llamakit.api.openai_response_calls import ClientKind, Offered
from llamakit.api.openai_response_choice import ChooseMcp, choose
from llamakit.api.openai_response_tools import (
    ResponseTools,
    ToolSearchTool,
    check_number,
    functions_of,
    kind_of,
    shown,
    spec_of,
)
from llamakit.api.wire import Wire
from llamakit.core.errors import InvalidRequest, OutboundFailed
from llamakit.core.messages import ToolSpec
from llamakit.stack.tool_search import NAME, Deferred, ToolCatalog

LIST_S = 20.0
"""Seconds that an MCP server has to list its tools."""
_MISSING: Mapping[str, str] = {
    "shell": "it runs in the container of a code interpreter: llama serve --tool code-interpreter, or let the client "
    'run it with "environment": {"type": "local"}',
    "image_generation": "images need a model that draws: give the server a provider remote::openai-images",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """The tools of one request."""

    specs: tuple[ToolSpec, ...] = ()
    choice: ToolChoice = field(default_factory=ToolChoice)
    functions: Mapping[str, Offered] = field(default_factory=dict)
    hosted: Mapping[str, HostedTool] = field(default_factory=dict)
    """The tool behind each function that this server runs."""
    servers: Mapping[str, tuple[ToolSpec, ...]] = field(default_factory=dict)
    """What each MCP server offers, by its label."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Why MCP servers offer nothing, by their labels."""
    deferred: frozenset[str] = frozenset()
    """Functions that the model does not see before a search found them."""
    loaded: frozenset[str] = frozenset()
    """Those of them that the conversation has found already."""

    def seen(self, loaded: frozenset[str] | set[str] = frozenset()) -> tuple[ToolSpec, ...]:
        """What the model sees once these, too, were found; what was found stands last, for the prefix's sake."""
        found = self.loaded | loaded
        ready = [spec for spec in self.specs if spec.name not in self.deferred]
        return (*ready, *(spec for spec in self.specs if spec.name in self.deferred & found))


class Tools:
    """Opens the tools of requests with the providers of one server."""

    def __init__(self, providers: Mapping[HostedKind, HostedTools]) -> None:
        self._providers = providers

    async def offer(
        self, owner: str, tools: Sequence[Wire], choice: str | Wire | None, added: Sequence[Mapping[str, Any]] = ()
    ) -> Offer:
        """The tools, opened; `added` are those that the conversation brought.

        Raises `InvalidRequest` naming one that nothing here provides, `OutboundFailed` where the choice is a server
        that is away.
        """
        check_number(tools)
        made = _Offering()
        opened = await self._open_all(owner, [(tool, f"tools[{index}]") for index, tool in enumerate(tools)])
        for (tool, param), found in opened:
            made.add(tool, param, found)
        late = made.load(_adapter().validate_python(list(added))) if added else []
        made.add_search()
        for (tool, param), found in await self._open_all(owner, [(tool, "input") for tool in late]):
            made.add(tool, param, found, is_loaded=True)
        return made.finish(choice)

    async def _open_all(
        self, owner: str, tools: Sequence[tuple[Wire, str]]
    ) -> list[tuple[tuple[Wire, str], HostedTool | str | None]]:
        """Each with what its provider opened, or the reason why a server is away; None for the client's own."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._opened(owner, tool, param)) for tool, param in tools]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return list(zip(tools, (task.result() for task in tasks), strict=True))

    async def _opened(self, owner: str, tool: Wire, param: str) -> HostedTool | str | None:
        _check_callers(tool, param)
        kind = kind_of(tool)
        if kind is None:
            return None
        provider = self._providers.get(kind)
        if provider is None:
            raise InvalidRequest(
                f"{param}.type: this server has no provider of {kind}; "
                + _MISSING.get(kind, "leave it out, or run a server that has one"),
                param=f"{param}.type",
                code="unsupported_tool",
            )
        if kind != "mcp":
            return await provider.open(owner, settings_of(tool))
        try:
            async with asyncio.timeout(LIST_S):
                return await provider.open(owner, settings_of(tool))
        except OutboundFailed as fault:
            return str(fault)
        except TimeoutError:
            return f"the MCP server did not list its tools within {LIST_S:.0f} s"


def _check_callers(tool: Wire, param: str) -> None:
    """Refuse what only programs of a model's could call, since nothing here runs such programs."""
    each = [tool, *(one for _, one, _ in functions_of(tool))]
    if isinstance(tool, ProgrammaticTool):
        raise InvalidRequest(
            f"{param}.type: no programs that call tools are run here; let the model call them itself",
            param=f"{param}.type",
            code="unsupported_tool",
        )
    for one in each:
        callers = one.__dict__.get("allowed_callers")
        if callers and "direct" not in callers:
            raise InvalidRequest(
                f"{param}.allowed_callers must hold 'direct': no programs that call tools are run here",
                param=f"{param}.allowed_callers",
                code="unsupported_tool",
            )


class _Offering:
    """What is offered so far."""

    def __init__(self) -> None:
        self._specs: list[ToolSpec] = []
        self._functions: dict[str, Offered] = {}
        self._hosted: dict[str, HostedTool] = {}
        self._servers: dict[str, tuple[ToolSpec, ...]] = {}
        self._faults: dict[str, str] = {}
        self._deferred: dict[str, Deferred] = {}
        self._loaded: set[str] = set()
        self._search: ToolSearchTool | None = None

    def add(self, tool: Wire, param: str, found: HostedTool | str | None, *, is_loaded: bool = False) -> None:
        """A tool with what its provider opened."""
        if isinstance(tool, ToolSearchTool):
            if self._search is not None:
                raise InvalidRequest(f"{param}: one tool_search is enough", param=param)
            self._search = tool
        elif isinstance(found, str):
            assert isinstance(tool, McpServerTool), "only servers may be away"
            self._faults[tool.server_label] = found
        elif found is not None:
            self._add_hosted(tool, param, found, is_loaded)
        elif (spec := machine_spec(tool)) is not None:
            kind: ClientKind | HostedKind = tool.__dict__["type"]
            self._put(spec, Offered(kind=kind), param)
        for name, function, namespace in functions_of(tool):
            kind = "custom" if function.type == "custom" else "function"
            spec = spec_of(function, name)
            self._put(spec, Offered(kind=kind, name=function.name, namespace=namespace), param)
            if function.defer_loading and not is_loaded:
                about = tool.__dict__.get("description") or "" if namespace else ""
                self._deferred[name] = Deferred(
                    spec=spec,
                    body=shown(function),
                    group=namespace or "",
                    group_kind="namespace" if namespace else "",
                    group_about=about,
                )

    def load(self, added: Sequence[Wire]) -> list[Wire]:
        """Take tools that the conversation brought: what is known already is loaded, the rest is returned."""
        rest: list[Wire] = []
        for tool in added:
            if isinstance(tool, McpServerTool) and tool.server_label in (self._servers | self._faults):
                names = {spec.name for spec in self._servers.get(tool.server_label, ())}
                allowed = tool.allowed_tools
                self._loaded |= names & set(allowed) if isinstance(allowed, list) else names
                continue
            functions = [name for name, _, _ in functions_of(tool)]
            kind = kind_of(tool) or tool.__dict__["type"]
            if functions and all(name in self._functions for name in functions):
                self._loaded |= set(functions)
            elif functions or kind not in {offered.kind for offered in self._functions.values()}:
                rest.append(_without(tool, self._functions))
                self._loaded |= set(functions) & set(self._functions)
        return rest

    def add_search(self) -> None:
        """The search, once everything that may be found is known."""
        search = self._search
        if search is None:
            if self._deferred and not self._loaded >= set(self._deferred):
                raise InvalidRequest(
                    "tools: one whose loading is deferred needs a tool of type tool_search, which finds it",
                    param="tools",
                )
            return
        if search.execution == "client":
            about = search.description or "Find tools that can be called from then on."
            spec = ToolSpec(name=NAME, description=about, parameters=search.parameters or {})
            self._put(spec, Offered(kind=NAME), "tools")
        elif self._deferred:
            catalog = ToolCatalog(tuple(self._deferred.values()))
            self._put(catalog.specs[0], Offered(kind=NAME, is_hosted=True), "tools")
            self._hosted[NAME] = catalog

    def finish(self, choice: str | Wire | None) -> Offer:
        """Everything together."""
        label = choice.server_label if isinstance(choice, ChooseMcp) else None
        if label in self._faults or (choice == "required" and not self._specs and self._faults):
            raise OutboundFailed(next(iter(self._faults.values())) if label is None else self._faults[label])
        kinds = {name: f"mcp {one.label}" if one.kind == "mcp" else one.kind for name, one in self._functions.items()}
        names = {name: one.name for name, one in self._functions.items() if one.name is not None}
        kept, chosen = choose(choice, self._specs, kinds, names)
        return Offer(
            specs=kept,
            choice=chosen,
            functions=self._functions,
            hosted=self._hosted,
            servers=self._servers,
            faults=self._faults,
            deferred=frozenset(self._deferred),
            loaded=frozenset(self._loaded | {chosen.name or ""}),
        )

    def _add_hosted(self, tool: Wire, param: str, opened: HostedTool, is_loaded: bool) -> None:
        kind = kind_of(tool)
        assert kind is not None, tool
        label, container = "", None
        if isinstance(tool, McpServerTool):
            label = tool.server_label
            self._servers[label] = opened.specs
        if isinstance(tool, ShellTool) and isinstance(tool.environment, ContainerReference):
            container = tool.environment.container_id
        for spec in opened.specs:
            needs_approval = opened.needs_approval(spec.name)
            offered = Offered(
                kind=kind, label=label, needs_approval=needs_approval, is_hosted=True, container_id=container
            )
            self._put(spec, offered, param)
            self._hosted[spec.name] = opened
            if isinstance(tool, McpServerTool) and tool.defer_loading and not is_loaded:
                about = tool.server_description or ""
                self._deferred[spec.name] = Deferred(
                    spec=spec, body={}, group=label, group_kind="mcp", group_about=about
                )

    def _put(self, spec: ToolSpec, offered: Offered, param: str) -> None:
        if spec.name in self._functions:
            raise InvalidRequest(f"{param} offers a function {spec.name!r}, which another tool has", param=param)
        self._specs.append(spec)
        self._functions[spec.name] = offered


def _without(tool: Wire, known: Mapping[str, Any]) -> Wire:
    """The tool without those of its functions that are offered already."""
    if tool.__dict__["type"] != "namespace":
        return tool
    new = [function for name, function, _ in functions_of(tool) if name not in known]
    return tool.model_copy(update={"tools": new})


def works_on_screens(tools: Sequence[Wire]) -> bool:
    """Whether a model works on a screen, and so must see it."""
    return any(isinstance(tool, ComputerPreviewTool) or tool.__dict__.get("type") == "computer" for tool in tools)


@cache
def _adapter() -> TypeAdapter[list[Any]]:
    """Reads tools that are kept; built when the first conversation brings some."""
    return TypeAdapter(ResponseTools)
