"""One response: the turn loop of `agents` driven with a model that streams and with this server's tools.

Events come out as they happen; nothing is kept here. A loop that ran into one of its bounds asks the model
once more without tools, so that every response ends with an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from llamakit.agents.loop import (
    CallTools,
    Ended,
    Infer,
    Inferred,
    LoopSettings,
    LoopTool,
    Need,
    Reply,
    ToolOutcome,
    Turn,
    run_turn,
)
from llamakit.api.hosted_tools import HostedResult
from llamakit.api.inference import AnswerStream, Inference, RequestContext, TokenizeRequest, ToolChoice
from llamakit.api.openai_response_calls import TELLS_ALL, Event, MadeCall, Offered
from llamakit.api.openai_response_history import compacted, write_compaction
from llamakit.api.openai_response_writer import ResponseWriter
from llamakit.api.openai_responses import wants_logprobs
from llamakit.core.errors import PromptTooLong, ToolError
from llamakit.core.messages import AnswerEvent, AnswerFold, Message, ToolCall, assistant, tool_result
from llamakit.core.tracing import tool_span
from llamakit.stack.items import Item
from llamakit.stack.response_compaction import Chat, is_too_long, summary_of
from llamakit.stack.response_moderation import Judge, ResponseModerator
from llamakit.stack.response_plan import Approval, Plan

MAX_STEPS = 32
MAX_SECONDS = 6 * 3600.0
ANSWER_ROOM = 256
"""Tokens kept free for an answer of no stated length, when the oldest items are left out."""
ENOUGH = "This call was not made: enough was tried. Answer with what you have."

RunTool = Callable[[MadeCall, Callable[[], Awaitable[HostedResult]]], Awaitable[HostedResult]]
"""Runs a tool, or gives what it gave before."""


async def run_now(_: MadeCall, call: Callable[[], Awaitable[HostedResult]]) -> HostedResult:
    """Run the tool."""
    return await call()


class ResponseLoop:
    """Makes one response; read `events` once, then `writer` has the resource and `outputs` the items."""

    def __init__(
        self,
        plan: Plan,
        inference: Inference,
        chat: Chat,
        *,
        run_tool: RunTool = run_now,
        is_queued: bool = False,
        max_steps: int = MAX_STEPS,
        moderator: ResponseModerator | None = None,
    ) -> None:
        wire = plan.asked.wire
        self._plan = plan
        self._inference = inference
        self._chat = chat
        self._run_tool = run_tool
        self._is_queued = is_queued
        self._max_steps = max_steps
        self._moderator = moderator
        self._loaded: set[str] = set()
        """Tools that searches found."""
        self._has_begun = False
        self._step = 0
        self._cut = 0
        """Messages before this one are left out, instructions excepted."""
        self._inferred: Inferred | None = None
        self._outcomes: list[ToolOutcome] = []
        self._made: dict[str, MadeCall] = {}
        """Calls without a result, by their ids."""
        self._hidden: dict[int, dict[str, Any]] = {}
        self._stream: AnswerStream | None = None
        self.writer = ResponseWriter(
            plan.resource, plan.offer.functions, include=wire.include or (), with_logprobs=wants_logprobs(wire)
        )

    def outputs(self) -> list[Item]:
        """The items that were made, with what only this server knows of them."""
        return [
            Item(body=body, side="output", hidden=self._hidden.get(position, {}))
            for position, body in enumerate(self._plan.resource["output"])
        ]

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events but the last. None comes before the model's first, so that what the model refuses is an error."""
        async with contextlib.aclosing(self._all()) as events:
            try:
                async for event in events:
                    yield event
            finally:
                if self._stream is not None:
                    await self._stream.aclose()

    async def _all(self) -> AsyncGenerator[Event, None]:
        conversation = list(self._plan.messages)
        if self._moderator is not None and not await self._moderator.passes_input(conversation):
            self.writer.is_withheld = True
            for event in self._begin():
                yield event
            return
        async for event in self._compact(conversation):
            yield event
        if self._plan.is_triggered:
            return
        for approval in self._plan.approvals:
            async for event in self._run_approved(approval, conversation):
                yield event
        turn = run_turn(conversation, self._tools(), self._settings())
        need = _sent(turn, None)
        while not isinstance(need, Ended):
            reply: Reply = None
            match need:
                case Infer():
                    async for event in self._infer(need.messages, _choice_of(need), need.max_tokens):
                        yield event
                    reply = self._inferred
                case CallTools():
                    async for event in self._call(need.calls, need.seconds):
                        yield event
                    reply = self._outcomes
                case _:
                    # A client's approval comes with its next request, and there are no checks here.
                    reply = {}
            need = _sent(turn, reply)
        async for event in self._end(conversation, need):
            yield event

    async def conclude(self) -> None:
        """What is to be known at the end and takes time: call it before `writer.finish`."""
        if self._moderator is not None:
            self._plan.resource["moderation"] = await self._moderator.finish()

    async def _compact(self, conversation: list[Message]) -> AsyncGenerator[Event, None]:
        """Make the conversation short, where the request asks for it or it has grown too long."""
        plan = self._plan
        model, specs = plan.resource["model"], plan.offer.seen(self._loaded)
        thresholds = [one.compact_threshold for one in plan.asked.wire.context_management or ()]
        lowest = min((one for one in thresholds if one is not None), default=None)
        if not plan.is_triggered and not await is_too_long(self._inference, model, conversation, specs, lowest):
            return
        context = RequestContext(id=f"{plan.id}-summary", salt=plan.asked.salt)
        answer = await summary_of(self._chat, model, conversation, context)
        self.writer.count(answer.usage)
        for event in self._begin():
            yield event
        replaces = "all" if plan.is_triggered else "past"
        for event in self.writer.compaction(write_compaction(answer.text, replaces)):
            yield event
        conversation[:] = compacted(conversation, answer.text, replaces)

    async def _end(self, conversation: Sequence[Message], ended: Ended) -> AsyncGenerator[Event, None]:
        """What a bound of the loop leaves open is closed, and the model has the last word."""
        for event in self._settle(ended.messages):
            yield event
        if ended.reason == "tokens":
            self.writer.is_cut = True
        if ended.reason not in ("steps", "repeating", "time"):
            return
        refused = [tool_result(call, ENOUGH) for call in ended.pending]
        async for event in self._infer(
            (*conversation, *ended.messages, *refused), ToolChoice(mode="none"), self._tokens_left()
        ):
            yield event

    async def _infer(
        self, messages: Sequence[Message], choice: ToolChoice, max_tokens: int | None
    ) -> AsyncGenerator[Event, None]:
        """A turn of the model; what it gave is in `_inferred`."""
        for event in self._settle(messages):
            yield event
        answer = await self._opened(messages, choice, max_tokens)
        for event in self._begin():
            yield event
        fold = AnswerFold()
        async for said in answer if self._moderator is None else self._moderator.watched(answer):
            fold.add(said)
            for event in self.writer.push(said):
                yield event
        calls = self.writer.take_calls()
        self._made |= {made.call.id: made for made in calls}
        whole = fold.answer()
        message = assistant(whole.text, *(made.call for made in calls))
        self._inferred = Inferred(message, whole.choices[0].reason, whole.usage)

    def _begin(self) -> Iterable[Event]:
        if self._has_begun:
            return ()
        self._has_begun = True
        servers = self._plan.offer.servers.items()
        listed = [self.writer.list_tools(label, specs) for label, specs in servers if label not in self._plan.is_listed]
        listed += [self.writer.list_tools(label, (), fault) for label, fault in self._plan.offer.faults.items()]
        return [*self.writer.begin(is_queued=self._is_queued), *(event for events in listed for event in events)]

    def _settle(self, messages: Sequence[Message]) -> Iterable[Event]:
        """The loop answers some calls itself, such as those of tools that do not exist: show what it said."""
        for message in messages:
            made = self._made.pop(message.tool_call_id or "", None)
            if made is None:
                continue
            if made.offered.is_hosted:
                yield from self._ran(made, HostedResult(output=message.text, is_failed=True))
            else:
                output = {"type": "function_call_output", "call_id": made.call.id, "output": message.text}
                yield from self.writer.add(output | {"status": "completed"})

    async def _call(self, calls: Sequence[ToolCall], seconds: float) -> AsyncGenerator[Event, None]:
        """Run tools side by side; what they gave is in `_outcomes`."""
        made = [self._made.pop(call.id) for call in calls]
        for one in made:
            for event in self.writer.running(one):
                yield event
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._result(one, seconds)) for one in made]
        results = [task.result() for task in tasks]
        for one, result in zip(made, results, strict=True):
            for event in self._ran(one, result):
                yield event
        self._outcomes = [ToolOutcome(result.output, is_error=result.is_failed) for result in results]

    async def _run_approved(self, approval: Approval, conversation: list[Message]) -> AsyncGenerator[Event, None]:
        """A call that the client allowed."""
        for event in self._begin():
            yield event
        offered = self._plan.offer.functions.get(
            approval.name, Offered(kind="mcp", label=approval.label, is_hosted=True)
        )
        made, events = self.writer.start_call(
            approval.name, approval.arguments, offered, approval_request_id=approval.request_id
        )
        for event in events:
            yield event
        result = await self._result(made, MAX_SECONDS)
        for event in self._ran(made, result):
            yield event
        conversation += [assistant("", made.call), tool_result(made.call, result.output)]

    def _ran(self, made: MadeCall, result: HostedResult) -> Iterable[Event]:
        if made.offered.kind == "tool_search":
            self._loaded |= set(result.fields.get("names") or ())
        if made.offered.kind not in TELLS_ALL:
            self._hidden[made.position] = {
                "name": made.call.name,
                "arguments": made.call.arguments,
                "output": result.output,
            }
        return self.writer.ran(made, result)

    async def _result(self, made: MadeCall, seconds: float) -> HostedResult:
        """What a tool of this server gives; a failure is a result that the model reads."""
        name = made.call.name
        tool = self._plan.offer.hosted.get(name)
        if tool is None:
            return _failed(f"there is no tool {name!r} here any more")

        async def call() -> HostedResult:
            try:
                with tool_span(name):
                    async with asyncio.timeout(seconds):
                        return await tool.call(name, made.call.arguments or "{}")
            except ToolError as fault:
                return _failed(str(fault))
            except TimeoutError:
                return _failed(f"the tool did not answer within {seconds:.0f} s")

        return await self._run_tool(made, call)

    async def _opened(
        self, messages: Sequence[Message], choice: ToolChoice, max_tokens: int | None
    ) -> AsyncIterator[AnswerEvent]:
        """The model's answer, begun: what the model refuses is raised here."""
        try:
            return await self._begun(messages, choice, max_tokens)
        except PromptTooLong as fault:
            if self._plan.resource["truncation"] != "auto":
                raise PromptTooLong(str(fault), param="input") from None
            await self._leave_out(messages, max_tokens, fault)
            return await self._begun(messages, choice, max_tokens)

    async def _begun(
        self, messages: Sequence[Message], choice: ToolChoice, max_tokens: int | None
    ) -> AsyncIterator[AnswerEvent]:
        kept = _without(messages, self._cut)
        asked = self._plan.request(self._step, kept, choice=choice, max_tokens=max_tokens, loaded=self._loaded)
        self._step += 1
        self._stream = self._chat(asked)
        return _from(await anext(self._stream), self._stream)

    async def _leave_out(self, messages: Sequence[Message], max_tokens: int | None, fault: PromptTooLong) -> None:
        """Leave out the fewest of the oldest messages so that the rest fits; raises where nothing helps."""
        model = self._plan.resource["model"]
        context = (await self._inference.tokenizer_info(model)).context_length
        wanted = max_tokens or min(ANSWER_ROOM, context // 8)
        places = [at for at in _beginnings(messages) if at > self._cut]

        async def fits(at: int) -> bool:
            kept = tuple(_without(messages, at))
            tokens = await self._inference.tokenize(
                TokenizeRequest(model=model, messages=kept, tools=self._plan.offer.seen(self._loaded))
            )
            return len(tokens.ids) + wanted <= context

        if not places or not await fits(places[-1]):
            raise PromptTooLong(str(fault), param="input")
        low, high = 0, len(places) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if await fits(places[middle]) else (middle + 1, high)
        self._cut = places[high]
        self._plan.resource["left_out_items"] = len(messages) - len(_without(messages, self._cut))

    def _tools(self) -> list[LoopTool]:
        functions = self._plan.offer.functions
        return [
            LoopTool(
                spec=spec,
                runs="server" if functions[spec.name].is_hosted else "client",
                needs_approval=functions[spec.name].needs_approval,
            )
            for spec in self._plan.offer.specs
        ]

    def _settings(self) -> LoopSettings:
        choice, resource = self._plan.offer.choice, self._plan.resource
        return LoopSettings(
            max_steps=self._max_steps,
            max_tokens=self._tokens_left(),
            max_seconds=MAX_SECONDS,
            max_calls=resource["max_tool_calls"],
            tool_choice=choice.name or choice.mode,
            parallel=resource["parallel_tool_calls"],
        )

    def _tokens_left(self) -> int | None:
        most = self._plan.resource["max_output_tokens"]
        return None if most is None else max(1, most - self.writer.usage.completion_tokens)


def moderator_of(judge: Judge, owner: str, plan: Plan) -> ResponseModerator | None:
    """Who judges a response, where its request wants that."""
    options = plan.asked.wire.moderation
    return None if options is None else ResponseModerator(judge, owner, options)


def _sent(turn: Turn, reply: Reply) -> Need | Ended:
    """What the loop wants next, or how it ended."""
    try:
        return turn.send(reply)
    except StopIteration as end:
        return end.value


def _choice_of(need: Infer) -> ToolChoice:
    if need.tool_choice in ("auto", "none", "required"):
        return ToolChoice(mode=need.tool_choice)  # pyright: ignore[reportArgumentType]
    return ToolChoice(mode="named", name=need.tool_choice)


async def _from(first: AnswerEvent, rest: AnswerStream) -> AsyncIterator[AnswerEvent]:
    yield first
    async for event in rest:
        yield event


def _failed(text: str) -> HostedResult:
    return HostedResult(output=f"Error: {text}", is_failed=True, fields={"error": text})


def _beginnings(messages: Sequence[Message]) -> list[int]:
    """Where the conversation may be cut: before anything but the results of tools, which need their calls."""
    return [at for at, message in enumerate(messages) if message.role not in ("system", "tool") and at > 0]


def _without(messages: Sequence[Message], at: int) -> list[Message]:
    """The messages from a place on, with every instruction before it."""
    return [message for message in messages[:at] if message.role == "system"] + list(messages[at:])
