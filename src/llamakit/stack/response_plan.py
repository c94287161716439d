"""A request for a response -> a plan: the messages, tools and sampling of its first turn, and what is kept of it.

Everything a request refers to is looked up here, with its owner: previous responses, conversations, items,
prompts, and the tools of this server. The same request gives the same plan again after a crash.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.api.hosted_tools import HostedKind, HostedTools
from llamakit.api.inference import ChatRequest, Inference, RequestContext, Sampling, ToolChoice
from llamakit.api.openai_machine_items import LocalShellCallItem, LocalShellCallOutputItem
from llamakit.api.openai_response_history import History
from llamakit.api.openai_response_items import ItemReference, new_item_id, to_stored, user_item
from llamakit.api.openai_response_options import PromptReference
from llamakit.api.openai_response_resource import resource_of
from llamakit.api.openai_responses import (
    ResponseContext,
    ResponseRequest,
    configured,
    conversation_id,
    sampling_of,
)
from llamakit.api.wire import Wire, found
from llamakit.core.errors import InvalidRequest, NotFound
from llamakit.core.messages import Message
from llamakit.stack.conversations import Conversations
from llamakit.stack.input_files import InputFiles
from llamakit.stack.items import Item, check_item_id
from llamakit.stack.prompts import Prompts
from llamakit.stack.response_offer import Offer, Tools, works_on_screens
from llamakit.stack.response_prompts import filled_parts, message_of
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
    model: str
    """Its own, or the server's default."""
    salt: str = ""
    """Keeps cached prefixes of the owner from others."""
    prompt: Mapping[str, Any] | None = None
    """The message of the stored prompt, filled in when the request came: `body`, and `hidden`, what files in it say."""


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
    is_triggered: bool = False
    """Whether the request asks for the conversation to be made short, and for nothing else."""

    @property
    def id(self) -> str:
        """The response's."""
        return self.resource["id"]

    def request(
        self,
        turn: int,
        messages: Sequence[Message],
        *,
        choice: ToolChoice,
        max_tokens: int | None,
        loaded: set[str] | frozenset[str] = frozenset(),
    ) -> ChatRequest:
        """What is asked of the model in a turn; it also sees the tools that were `loaded`."""
        limits = {} if max_tokens is None else {"max_tokens": max_tokens}
        return ChatRequest(
            model=self.resource["model"],
            messages=tuple(messages),
            context=RequestContext(id=f"{self.id}-{turn}", salt=self.asked.salt),
            sampling={**self.sampling, **limits},
            tools=self.offer.seen(loaded),
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
        input_files: InputFiles,
    ) -> None:
        self._inference = inference
        self._storage = storage
        self._input_files = input_files
        self._conversations = Conversations(storage)
        self._prompts = Prompts(storage)
        self._tools = Tools(tools)
        self._default_model = default_model

    async def ask(self, owner: str, wire: ResponseRequest, salt: str) -> Asked:
        """The request with its default model and its stored prompt filled in."""
        model = await self._default_model(wire.model)
        prompt = None if wire.prompt is None else await self._filled(owner, wire.prompt)
        return Asked(wire=wire.model_copy(update={"model": model}), model=model, salt=salt, prompt=prompt)

    async def plan(
        self, owner: str, asked: Asked, *, id: str, created_ns: int, inputs: Sequence[Item] | None = None
    ) -> Plan:
        """The plan; `inputs` are those kept at the first time, for a request that is taken up again."""
        wire = asked.wire
        info = await self._inference.model(asked.model)
        sampling_of(wire)  # what cannot be is refused before anything is read
        items = tuple(await self.inputs(owner, wire) if inputs is None else inputs)
        history = await self._history(owner, wire, before_ns=created_ns, prompt=asked.prompt)
        told = history.told
        for index, item in enumerate(items):
            told.add(item.body, f"input[{index}]", item.hidden)
        is_triggered = _is_triggered(items)
        has_begun = any(message.role != "system" for message in told.messages)
        if not told.messages or not (has_begun or (items and not is_triggered)):
            raise InvalidRequest("input is required: nothing was said yet", param="input")
        if not is_triggered:
            _check_answered(told.messages)
        wire = configured(wire, told.update)
        offer = await self._tools.offer(owner, wire.tools or (), wire.tool_choice, told.tools)
        resource = resource_of(
            wire, id=id, created_at=created_ns // 10**9, model=asked.model, defaults=info.details, status="queued"
        )
        if (diagnosis := await self._diagnosis(owner, wire)) is not None:
            resource["prompt_cache_diagnostics"] = diagnosis
        return Plan(
            asked=asked,
            resource=resource,
            created_ns=created_ns,
            inputs=items,
            messages=told.messages,
            offer=offer,
            sampling=sampling_of(wire),
            is_triggered=is_triggered,
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
        offer = await self._tools.offer(owner, wire.tools or (), wire.tool_choice, past.told.tools)
        return Seen(model=model, messages=past.told.messages, items=(*past.items, *inputs), offer=offer)

    async def inputs(self, owner: str, wire: ResponseContext) -> list[Item]:
        """What the request brings, as it is kept."""
        if wire.input is None:
            return []
        if isinstance(wire.input, str):
            return [Item(body=user_item(wire.input))]
        screens = works_on_screens(wire.tools or ())
        return [
            await self._input(owner, item, f"input[{index}]", screens) for index, item in enumerate(_linked(wire.input))
        ]

    async def _history(
        self,
        owner: str,
        wire: ResponseContext,
        *,
        before_ns: int | None = None,
        prompt: Mapping[str, Any] | None = None,
    ) -> _Past:
        """What was said before the request, after its instructions."""
        screens = works_on_screens(wire.tools or ())
        told = History(shows_screens=screens)
        if prompt is not None:
            told.add(prompt["body"], "prompt", prompt["hidden"])
        if wire.instructions:
            told.add(message_of([{"type": "input_text", "text": wire.instructions}]), "instructions")
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
            told.add(
                item.body, at, item.hidden or await self._input_files.hidden(owner, item.body, at, screens=screens)
            )
        return _Past(told=told, items=tuple(items))

    async def _input(self, owner: str, wire: Wire, param: str, screens: bool) -> Item:
        if not isinstance(wire, ItemReference):
            body = to_stored(wire)
            return Item(body=body, hidden=await self._input_files.hidden(owner, body, param, screens=screens))
        rows = ResponseRows(await self._storage.database(), owner)
        try:
            kept = await rows.item(check_item_id(wire.id))
        except NotFound:
            raise InvalidRequest(f"{param}.id: no item {found(wire.id)} is kept here", param=f"{param}.id") from None
        return Item(body=kept.body | {"id": new_item_id(kept.body["type"])}, hidden=kept.hidden)

    async def _filled(self, owner: str, asked: PromptReference) -> dict[str, Any]:
        """The message of a stored prompt, its variables filled in, and what the files among them say."""
        stored = await self._prompt(owner, asked.id, asked.version)
        body = message_of(filled_parts(stored["prompt"], stored["variables"], asked.variables or {}))
        return {"body": body, "hidden": await self._input_files.hidden(owner, body, "prompt.variables")}

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

    async def _diagnosis(self, owner: str, wire: ResponseContext) -> dict[str, Any] | None:
        """What can be said of a comparison with an earlier response's prompt: its tokens are not kept."""
        options = wire.prompt_cache_options
        if options is None or options.comparison_response_id is None:
            return None
        try:
            await ResponseRows(await self._storage.database(), owner).row(options.comparison_response_id)
        except NotFound:
            return {"type": "comparison_response_not_found"}
        return {"type": "unavailable"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Past:
    told: History
    items: tuple[Item, ...]

    @property
    def labels(self) -> frozenset[str]:
        """The MCP servers whose tools are listed; one that could not list them is asked again."""
        lists = (item.body for item in self.items if item.body["type"] == "mcp_list_tools")
        return frozenset(body["server_label"] for body in lists if not body.get("error"))


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


def _linked(items: Sequence[Wire]) -> list[Wire]:
    """The items, where a local shell's output names its call by the id of the call's item, which is not kept."""
    calls = {one.id: one.call_id for one in items if isinstance(one, LocalShellCallItem) and one.id is not None}
    return [
        one.model_copy(update={"call_id": calls[one.id]})
        if isinstance(one, LocalShellCallOutputItem) and one.call_id is None and one.id in calls
        else one
        for one in items
    ]


def _is_triggered(items: Sequence[Item]) -> bool:
    """Whether the conversation is to be made short, and nothing else; a trigger stands last."""
    places = [at for at, item in enumerate(items) if item.body["type"] == "compaction_trigger"]
    if places and places[0] < len(items) - 1:
        param = f"input[{places[0]}]"
        raise InvalidRequest(f"{param}: a compaction_trigger must be the last item of the input", param=param)
    return bool(places)


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
