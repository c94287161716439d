"""One turn of an agent as a generator: it yields what it needs and is sent the answer. It does no I/O.

Needs are an inference, a safety check, an approval, and a batch of tool calls. Every call the model
makes gets an answer, also a call of a tool that does not exist, so a run never ends by accident;
and every run ends, by its steps, tokens, seconds, calls, or by repeating itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import FinishReason, Message, ToolCall, ToolSpec, Usage, tool_result

_Kind = TypeVar("_Kind")

EndReason = Literal[
    "done",
    "length",
    "client tools",
    "approval",
    "refused",
    "steps",
    "tokens",
    "time",
    "repeating",
    "cancelled",
    "error",
]

ToolChoice = Literal["auto", "none", "required"] | str
"""Whether to call, or the name of the one tool to call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopTool:
    """What the loop knows of a tool."""

    spec: ToolSpec
    runs: Literal["server", "client"] = "server"
    """A client tool ends the turn; its result comes with the next."""
    needs_approval: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """The bounds of a turn."""

    max_steps: int = 10
    """Inferences."""
    max_tokens: int | None = None
    """Generated tokens of all inferences together."""
    max_seconds: float = 600.0
    max_calls: int | None = None
    """Tool calls that are carried out; the model is told when they are spent."""
    max_repeats: int = 3
    """Times the very same calls may follow one another."""
    tool_choice: ToolChoice = "auto"
    """Of the first inference; afterwards a demand becomes `auto`, or the turn would never end."""
    parallel: bool = True
    """Whether several calls of one answer are carried out."""
    check_input: bool = False
    check_output: bool = False
    check_tools: bool = False
    """Whether tool results are checked before the model reads them."""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.max_repeats < 1 or self.max_seconds <= 0:
            raise ConfigError("an agent needs max_steps and max_repeats of at least 1 and a positive max_seconds")


@dataclass(frozen=True, slots=True)
class Infer:
    """Need: the model's answer. The reply is an `Inferred`."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    tool_choice: ToolChoice
    max_tokens: int | None
    seconds: float
    """What is left of the turn's time."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """Reply to `Infer`."""

    message: Message
    reason: FinishReason
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Check:
    """Need: are these messages allowed? The reply is None, or what to tell the person instead."""

    where: Literal["input", "output", "tools"]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Approve:
    """Need: may these calls be made? The reply maps call ids to yes or no; a missing id means: not yet."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class CallTools:
    """Need: carry these calls out, at once. The reply is one `ToolOutcome` a call, in order."""

    calls: tuple[ToolCall, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What came of a call: text for the model, and whether it is an error."""

    text: str
    is_error: bool = False
    data: Mapping[str, object] = field(default_factory=dict)
    """For the caller's records; the model does not see it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the turn ended."""

    reason: EndReason
    messages: tuple[Message, ...]
    """What the turn added to the conversation, answers and tool results."""
    usage: Usage
    pending: tuple[ToolCall, ...] = ()
    """Calls that wait for the client or for an approval."""
    refusal: str | None = None


Need = Infer | Check | Approve | CallTools
Reply = Inferred | str | None | Mapping[str, bool] | Sequence[ToolOutcome]
Turn = Generator[Need, Reply, Ended]


def run_turn(
    conversation: Sequence[Message],
    tools: Sequence[LoopTool],
    settings: LoopSettings | None = None,
    *,
    decisions: Mapping[str, bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Turn:
    """The turn that follows `conversation`.

    A conversation that ends with unanswered calls is taken up there; `decisions` are the approvals
    given since. Raises `InvalidRequest` for one that has nothing to answer.
    """
    return _Turn(conversation, tools, settings or LoopSettings(), dict(decisions or {}), clock).run()


class _Turn:
    def __init__(
        self,
        conversation: Sequence[Message],
        tools: Sequence[LoopTool],
        settings: LoopSettings,
        decisions: dict[str, bool],
        clock: Callable[[], float],
    ) -> None:
        self._given = tuple(conversation)
        self._tools = {tool.spec.name: tool for tool in tools}
        if len(self._tools) != len(tools):
            raise InvalidRequest("two tools have the same name; give each its own", param="tools")
        if settings.tool_choice not in ("auto", "none", "required", *self._tools):
            raise InvalidRequest(
                f"tool_choice is auto, none, required or a tool's name, got {settings.tool_choice!r}",
                param="tool_choice",
            )
        self._settings = settings
        self._decisions = decisions
        self._clock = clock
        self._ends = clock() + settings.max_seconds
        self._added: list[Message] = []
        self._usage = Usage()
        self._calls_left = settings.max_calls
        self._choice: ToolChoice = settings.tool_choice
        self._last_calls: tuple[tuple[str, str], ...] = ()
        self._repeats = 0

    def run(self) -> Turn:
        waiting = _unanswered(self._given)
        if waiting:
            ended = yield from self._answer_calls(waiting)
            if ended is not None:
                return ended
        elif not self._given or self._given[-1].role == "assistant":
            raise InvalidRequest("the conversation ends with an answer; add a message to reply to", param="messages")
        if self._settings.check_input and (refusal := (yield Check("input", self._given))) is not None:
            return self._refused(refusal)
        for _ in range(self._settings.max_steps):
            ended = yield from self._step()
            if ended is not None:
                return ended
        return self._end("steps")

    def _step(self) -> Generator[Need, Reply, Ended | None]:
        left = self._tokens_left()
        if left == 0:
            return self._end("tokens")
        if self._seconds() <= 0:
            return self._end("time")
        offered = () if self._choice == "none" else tuple(tool.spec for tool in self._tools.values())
        reply = yield Infer((*self._given, *self._added), offered, self._choice, left, self._seconds())
        inferred = _expect(reply, Inferred)
        self._usage = _sum(self._usage, inferred.usage)
        if (
            self._settings.check_output
            and (refusal := (yield Check("output", (*self._given, *self._added, inferred.message)))) is not None
        ):
            return self._refused(refusal)
        self._added.append(inferred.message)
        if inferred.reason in ("cancelled", "error"):
            return self._end("cancelled" if inferred.reason == "cancelled" else "error")
        if not inferred.message.tool_calls:
            return self._end("length" if inferred.reason == "length" else "done")
        if self._choice not in ("auto", "none"):
            self._choice = "auto"
        return (yield from self._answer_calls(inferred.message.tool_calls))

    def _answer_calls(self, calls: Sequence[ToolCall]) -> Generator[Need, Reply, Ended | None]:
        """Give each call its result, or end the turn where somebody else must."""
        if self._is_repeating(calls):
            return self._end("repeating", pending=tuple(calls))
        answers: dict[str, ToolOutcome] = {}
        allowed = yield from self._allowed(self._known(calls, answers), answers)
        mine = [call for call in allowed if self._tools[call.name].runs == "server"]
        mine = self._within_limit(mine, answers)
        if mine:
            if self._seconds() <= 0:
                return self._end("time", pending=tuple(calls))
            outcomes = yield CallTools(tuple(mine), self._seconds())
            if not isinstance(outcomes, Sequence) or len(outcomes) != len(mine):
                raise TypeError(f"{len(mine)} tool outcomes were wanted, got {outcomes!r}")
            answers |= {call.id: _expect(outcome, ToolOutcome) for call, outcome in zip(mine, outcomes, strict=True)}
        results = [tool_result(call, answers[call.id].text) for call in calls if call.id in answers]
        if self._settings.check_tools and results and (refusal := (yield Check("tools", tuple(results)))) is not None:
            return self._refused(refusal)
        self._added += results
        pending = tuple(call for call in calls if call.id not in answers)
        if not pending:
            return None
        is_for_client = any(self._tools[call.name].runs == "client" for call in pending if call in allowed)
        return self._end("client tools" if is_for_client else "approval", pending=pending)

    def _known(self, calls: Sequence[ToolCall], answers: dict[str, ToolOutcome]) -> list[ToolCall]:
        """The calls of tools that exist; the others are told so."""
        known: list[ToolCall] = []
        for call in calls:
            if call.name not in self._tools:
                names = ", ".join(self._tools) or "none"
                answers[call.id] = ToolOutcome(f"there is no tool {call.name!r}; the tools are: {names}", is_error=True)
            elif known and not self._settings.parallel:
                text = "only one call at a time is carried out; make this call again"
                answers[call.id] = ToolOutcome(text, is_error=True)
            else:
                known.append(call)
        return known

    def _allowed(
        self, calls: Sequence[ToolCall], answers: dict[str, ToolOutcome]
    ) -> Generator[Need, Reply, list[ToolCall]]:
        """The calls that may be made; refused ones are told so, undecided ones are neither."""
        asking = [call for call in calls if self._tools[call.name].needs_approval]
        undecided = tuple(call for call in asking if call.id not in self._decisions)
        if undecided:
            reply = yield Approve(undecided)
            self._decisions |= _expect(reply, Mapping)
        for call in asking:
            if self._decisions.get(call.id) is False:
                answers[call.id] = ToolOutcome("a person refused this call", is_error=True)
        return [call for call in calls if call not in asking or self._decisions.get(call.id) is True]

    def _within_limit(self, calls: list[ToolCall], answers: dict[str, ToolOutcome]) -> list[ToolCall]:
        if self._calls_left is None:
            return calls
        kept = calls[: self._calls_left]
        self._calls_left -= len(kept)
        for call in calls[len(kept) :]:
            text = f"the limit of {self._settings.max_calls} tool calls is reached; answer with what you have"
            answers[call.id] = ToolOutcome(text, is_error=True)
        if self._calls_left == 0:
            self._choice = "none"
        return kept

    def _is_repeating(self, calls: Sequence[ToolCall]) -> bool:
        same = tuple((call.name, _canonical(call.arguments)) for call in calls)
        self._repeats = self._repeats + 1 if same == self._last_calls else 1
        self._last_calls = same
        return self._repeats > self._settings.max_repeats

    def _tokens_left(self) -> int | None:
        most = self._settings.max_tokens
        return None if most is None else max(most - self._usage.completion_tokens, 0)

    def _seconds(self) -> float:
        return self._ends - self._clock()

    def _refused(self, refusal: Reply) -> Ended:
        return self._end("refused", refusal=_expect(refusal, str))

    def _end(self, reason: EndReason, pending: tuple[ToolCall, ...] = (), refusal: str | None = None) -> Ended:
        return Ended(reason, tuple(self._added), self._usage, pending, refusal)


def _unanswered(conversation: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Calls of the last answer that have no result yet."""
    answered: set[str | None] = set()
    for message in reversed(conversation):
        if message.role == "tool":
            answered.add(message.tool_call_id)
        else:
            return tuple(call for call in message.tool_calls if call.id not in answered)
    return ()


def _canonical(arguments: str) -> str:
    """Arguments that say the same are spelled the same."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _sum(first: Usage, second: Usage) -> Usage:
    return Usage(
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        cached_tokens=first.cached_tokens + second.cached_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        drafted_tokens=first.drafted_tokens + second.drafted_tokens,
        accepted_tokens=first.accepted_tokens + second.accepted_tokens,
    )


def _expect(reply: object, kind: type[_Kind]) -> _Kind:
    if not isinstance(reply, kind):
        raise TypeError(f"the turn was to be sent a {kind.__name__}, got {reply!r}")
    return reply
