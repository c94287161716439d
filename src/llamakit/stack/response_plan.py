"""A request for a response -> a plan: the messages, tools and sampling of its first turn, and what is kept of it.

Everything a request refers to is looked up here, with its owner: previous responses, conversations, items,
prompts, and the tools of this server. The same request gives the same plan again after a crash.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.api.hosted_tools import HostedKind, HostedTool, HostedTools
from llamakit.api.inference import ChatRequest, Inference, RequestContext, Sampling, ToolChoice
from llamakit.api.openai_hosted_tools import McpServerTool, settings_of
from llamakit.api.openai_response_history import History
from llamakit.api.openai_response_items import (
    ItemReference,
    new_item_id,
    to_stored,
    user_item,
)
from llamakit.api.openai_response_tools import (
    ResponseCustomTool,
    ResponseFunctionTool,
    check_number,
    choose,
    kind_of,
    spec_of,
)
from llamakit.api.openai_response_writer import Offered
from llamakit.api.openai_responses import (
    ResponseContext,
    ResponseRequest,
    conversation_id,
    prompt_values,
    resource_of,
    sampling_of,
)
from llamakit.api.prompts import fill
from llamakit.api.wire import Wire, found
from llamakit.core.errors import InvalidRequest, NotFound
from llamakit.core.messages import Message, ToolSpec
from llamakit.stack.conversations import Conversations
from llamakit.stack.files import Files
from llamakit.stack.input_files import InputFiles
from llamakit.stack.items import Item, check_item_id
from llamakit.stack.prompts import Prompts
from llamakit.stack.response_rows import ResponseRows
from llamakit.stack.storage import Storage

MAX_VERSION_DIGITS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """A call of an MCP server's tool that the client allowed."""

    request_id: str
    name: str
    label: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a request asks for, before anything is looked up; kept with a background response."""

    wire: ResponseRequest
    salt: str = ""
    """Keeps cached prefixes of the owner from others."""
    prompt: str | None = None
    """The text of the stored prompt, filled in when the request came."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A response about to be made."""

    asked: Asked
    resource: dict[str, Any]
    created_ns: int
    inputs: tuple[Item, ...]
    messages: tuple[Message, ...]
    offer: Offer
    sampling: Sampling
    approvals: tuple[Approval, ...] = ()
    is_listed: frozenset[str] = frozenset()
    """Labels of MCP servers whose tools the conversation lists already."""

    @property
    def id(self) -> str:
        """The response's."""
        return self.resource["id"]

    def request(
        self, turn: int, messages: Sequence[Message], *, choice: ToolChoice, max_tokens: int | None
    ) -> ChatRequest:
        """What is asked of the model in a turn."""
        limits = {} if max_tokens is None else {"max_tokens": max_tokens}
        return ChatRequest(
            model=self.resource["model"],
            messages=tuple(messages),
            context=RequestContext(id=f"{self.id}-{turn}", salt=self.asked.salt),
            sampling={**self.sampling, **limits},
            tools=self.offer.specs,
            tool_choice=choice,
            parallel_tool_calls=self.asked.wire.parallel_tool_calls is not False,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a request shows its model."""

    model: str
    messages: tuple[Message, ...]
    items: tuple[Item, ...]
    offer: Offer


class Planner:
    """Makes plans from what one server keeps and offers."""

    def __init__(
        self,
        inference: Inference,
        storage: Storage,
        tools: Mapping[HostedKind, HostedTools],
        default_model: Callable[[str | None], Awaitable[str]],
        files: Files,
    ) -> None:
        self._inference = inference
        self._storage = storage
        self._input_files = InputFiles(files)
        self._conversations = Conversations(storage)
        self._prompts = Prompts(storage)
        self._tools = tools
        self._default_model = default_model

    async def ask(self, owner: str, wire: ResponseRequest, salt: str) -> Asked:
        """The request with its default model and its stored prompt filled in."""
        model = await self._default_model(wire.model)
        prompt = None
        if wire.prompt is not None:
            stored = await self._prompt(owner, wire.prompt.id, wire.prompt.version)
            prompt = fill(stored["prompt"], stored["variables"], prompt_values(wire.prompt))
        return Asked(wire=wire.model_copy(update={"model": model}), salt=salt, prompt=prompt)

    async def plan(
        self, owner: str, asked: Asked, *, id: str, created_ns: int, inputs: Sequence[Item] | None = None
    ) -> Plan:
        """The plan; `inputs` are those kept at the first time, for a request that is taken up again."""
        wire = asked.wire
        assert wire.model is not None, "asking gives the request its model"
        info = await self._inference.model(wire.model)
        sampling = sampling_of(wire)
        items = tuple(await self.inputs(owner, wire) if inputs is None else inputs)
        history = await self._history(owner, wire, before_ns=created_ns, prompt=asked.prompt)
        told = history.told
        for index, item in enumerate(items):
            told.add(item.body, f"input[{index}]", item.hidden)
        if all(message.role == "system" for message in told.messages) and not items:
            raise InvalidRequest("input is required: nothing was said yet", param="input")
        _check_answered(told.messages)
        offer = await self.offer(owner, wire)
        resource = resource_of(
            wire, id=id, created_at=created_ns // 10**9, model=wire.model, defaults=info.details, status="queued"
        )
        return Plan(
            asked=asked,
            resource=resource,
            created_ns=created_ns,
            inputs=items,
            messages=told.messages,
            offer=offer,
            sampling=sampling,
            approvals=_approvals(told, items),
            is_listed=history.labels,
        )

    async def look(self, owner: str, wire: ResponseContext) -> Seen:
        """What a request shows its model, for operations that keep nothing."""
        model = await self._default_model(wire.model)
        past = await self._history(owner, wire)
        inputs = await self.inputs(owner, wire)
        for index, item in enumerate(inputs):
            past.told.add(item.body, f"input[{index}]", item.hidden)
        offer = await self.offer(owner, wire)
        return Seen(model=model, messages=past.told.messages, items=(*past.items, *inputs), offer=offer)

    async def inputs(self, owner: str, wire: ResponseContext) -> list[Item]:
        """What the request brings, as it is kept."""
        if wire.input is None:
            return []
        if isinstance(wire.input, str):
            return [Item(body=user_item(wire.input))]
        return [await self._input(owner, item, f"input[{index}]") for index, item in enumerate(wire.input)]

    async def offer(self, owner: str, wire: ResponseContext) -> Offer:
        """The tools, opened; raises `InvalidRequest` naming one that nothing here provides."""
        specs: list[ToolSpec] = []
        functions: dict[str, Offered] = {}
        kinds: dict[str, str] = {}
        hosted: dict[str, HostedTool] = {}
        servers: dict[str, tuple[ToolSpec, ...]] = {}
        check_number(wire.tools or ())
        for index, tool in enumerate(wire.tools or ()):
            param = f"tools[{index}]"
            if isinstance(tool, ResponseFunctionTool | ResponseCustomTool):
                added: dict[str, tuple[ToolSpec, Offered]] = {
                    tool.name: (spec_of(tool), Offered(kind="custom" if tool.type == "custom" else "function"))
                }
            else:
                opened, added = await self._opened(owner, tool, param)
                hosted |= dict.fromkeys(added, opened)
                if isinstance(tool, McpServerTool):
                    servers[tool.server_label] = opened.specs
            for name, (spec, offered) in added.items():
                if name in functions:
                    raise InvalidRequest(f"{param} offers a function {name!r}, which another tool has", param=param)
                specs.append(spec)
                functions[name] = offered
                kinds[name] = f"mcp {offered.label}" if offered.kind == "mcp" else offered.kind
        kept, choice = choose(wire.tool_choice, specs, kinds)
        return Offer(specs=kept, choice=choice, functions=functions, hosted=hosted, servers=servers)

    async def _opened(
        self, owner: str, tool: Wire, param: str
    ) -> tuple[HostedTool, dict[str, tuple[ToolSpec, Offered]]]:
        kind = kind_of(tool)
        assert kind is not None, tool
        provider = self._tools.get(kind)
        if provider is None:
            raise InvalidRequest(
                f"{param}.type: this server has no provider of {kind}; leave it out, or run a server that has one",
                param=f"{param}.type",
                code="unsupported_tool",
            )
        opened = await provider.open(owner, settings_of(tool))
        label = tool.server_label if isinstance(tool, McpServerTool) else ""
        return opened, {
            spec.name: (spec, Offered(kind=kind, label=label, needs_approval=opened.needs_approval(spec.name)))
            for spec in opened.specs
        }

    async def _history(
        self, owner: str, wire: ResponseContext, *, before_ns: int | None = None, prompt: str | None = None
    ) -> _Past:
        """What was said before the request, after its instructions."""
        told = History()
        for text in (prompt, wire.instructions):
            if text:
                told.add({"type": "message", "role": "system", "content": [{"type": "input_text", "text": text}]}, "")
        conversation = conversation_id(wire)
        items: list[Item] = []
        if conversation is not None:
            items = await self._conversations.history(owner, conversation, before_ns=before_ns)
        elif wire.previous_response_id is not None:
            rows = ResponseRows(await self._storage.database(), owner)
            items = await rows.history(await rows.chain(wire.previous_response_id))
        param = "conversation" if conversation is not None else "previous_response_id"
        for index, item in enumerate(items):
            at = f"{param}[{index}]"
            # What was put into a conversation by itself has not been read yet.
            told.add(item.body, at, item.hidden or await self._input_files.hidden(owner, item.body, at))
        return _Past(told=told, items=tuple(items))

    async def _input(self, owner: str, wire: Wire, param: str) -> Item:
        if not isinstance(wire, ItemReference):
            body = to_stored(wire)
            return Item(body=body, hidden=await self._input_files.hidden(owner, body, param))
        rows = ResponseRows(await self._storage.database(), owner)
        try:
            kept = await rows.item(check_item_id(wire.id))
        except NotFound:
            raise InvalidRequest(f"{param}.id: no item {found(wire.id)} is kept here", param=f"{param}.id") from None
        return Item(body=kept.body | {"id": new_item_id(kept.body["type"])}, hidden=kept.hidden)

    async def _prompt(self, owner: str, id: str, version: str | None) -> dict[str, Any]:
        number = None
        if version is not None:
            if not (version.isascii() and version.isdigit() and len(version) <= MAX_VERSION_DIGITS):
                raise InvalidRequest(f"prompt.version must be a number, got {found(version)}", param="prompt.version")
            number = int(version)
        try:
            return await self._prompts.get(owner, id, number)
        except NotFound as fault:
            raise InvalidRequest(f"prompt.id: {fault}", param="prompt.id") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Past:
    told: History
    items: tuple[Item, ...]

    @property
    def labels(self) -> frozenset[str]:
        """The MCP servers whose tools are listed."""
        lists = (item.body for item in self.items if item.body["type"] == "mcp_list_tools")
        return frozenset(body["server_label"] for body in lists)


def _check_answered(messages: Sequence[Message]) -> None:
    """Refuse to go on from calls whose results did not come, and from an answer that nobody replied to."""
    answered: set[str | None] = set()
    for message in reversed(messages):
        if message.role == "tool":
            answered.add(message.tool_call_id)
            continue
        for call in message.tool_calls:
            if call.id not in answered:
                raise InvalidRequest(f"input: no output for the tool call {call.id!r} was given", param="input")
        if message.role == "assistant" and not answered:
            raise InvalidRequest("input ends with an answer; add a message to reply to", param="input")
        return


def new_seed() -> int:
    """A seed for a request that brought none and may have to be computed twice."""
    return secrets.randbits(62)


def _approvals(history: History, items: Sequence[Item]) -> tuple[Approval, ...]:
    """The calls that the request allows."""
    made = []
    for index, item in enumerate(items):
        if item.body["type"] == "mcp_approval_response":
            request = history.request(item.body["approval_request_id"], f"input[{index}]")
            if item.body["approve"]:
                made.append(
                    Approval(
                        request_id=request["id"],
                        name=request["name"],
                        label=request["server_label"],
                        arguments=request["arguments"],
                    )
                )
    return tuple(made)
