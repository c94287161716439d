"""Messages and the events of an answer: the words in which every floor speaks of a conversation.

A `Message` is what a person, a model or a tool said. An answer is a stream of `AnswerEvent`; a plain
answer is the fold of that stream (`fold`). Knows no wire format and no token ids beyond logprobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]
"""`content_filter`: a guard withheld the answer, or the rest of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Plain text."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePart:
    """An encoded image (PNG, JPEG, ...) as bytes; fetching URLs is somebody else's work."""

    data: bytes
    mime: str


Part = TextPart | ImagePart


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A call the model asks for. `arguments` is JSON text of one object, as the model's values stand."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A function the model may call; `parameters` is a JSON Schema of type object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    """True: arguments are constrained to the schema while decoding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn. A tool result has role `tool`, `tool_call_id` and usually the tool's `name`."""

    role: Role
    content: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


def system(text: str) -> Message:
    """A system message of plain text."""
    return Message(role="system", content=(TextPart(text=text),))


def user(text: str) -> Message:
    """A user message of plain text."""
    return Message(role="user", content=(TextPart(text=text),))


def assistant(text: str = "", *tool_calls: ToolCall) -> Message:
    """An assistant message of plain text and any tool calls."""
    return Message(role="assistant", content=(TextPart(text=text),) if text else (), tool_calls=tool_calls)


def tool_result(call: ToolCall, text: str) -> Message:
    """The answer of a tool to `call`."""
    return Message(role="tool", content=(TextPart(text=text),), tool_call_id=call.id, name=call.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprob:
    """One token with its natural-log probability and the most likely alternatives at its position."""

    id: int
    token: str
    """The token's text; bytes that are not UTF-8 by themselves appear as U+FFFD."""
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Token counts of one request, summed over its choices."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose keys and values came from the prefix cache."""
    completion_tokens: int = 0
    drafted_tokens: int = 0
    """Tokens proposed by speculation."""
    accepted_tokens: int = 0
    """Proposed tokens that were kept."""

    @property
    def total_tokens(self) -> int:
        """Prompt plus completion."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Seconds spent on one request, by the engine's monotonic clock."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillProgress:
    """Prompt tokens computed so far; comes before the first token of a long prompt."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDelta:
    """More text of choice `choice`."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallDelta:
    """More of tool call `index` of choice `choice`; `id` and `name` come in its first delta only."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """Choice `choice` ended."""

    reason: FinishReason
    choice: int = 0
    stop: str | int | None = None
    """The stop string or stop id that ended it, if one did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """Every choice ended; the last event of every answer that did not raise."""

    usage: Usage
    timings: Timings = Timings()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None


AnswerEvent = PrefillProgress | TextDelta | ToolCallDelta | Finish | Done


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One finished alternative of an answer."""

    message: Message
    reason: FinishReason
    stop: str | int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The fold of a stream of events."""

    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings = Timings()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].message.text


class AnswerFold:
    """Collects events into an `Answer`; feed with `add`, read with `answer` after `Done`."""

    def __init__(self) -> None:
        self._text: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, list[str]]] = {}
        self._names: dict[tuple[int, int], tuple[str, str]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._finish: dict[int, Finish] = {}
        self._done: Done | None = None

    def add(self, event: AnswerEvent) -> None:
        """Take the next event."""
        match event:
            case TextDelta():
                self._text.setdefault(event.choice, []).append(event.text)
                self._logprobs.setdefault(event.choice, []).extend(event.logprobs)
            case ToolCallDelta():
                self._calls.setdefault(event.choice, {}).setdefault(event.index, []).append(event.arguments)
                self._logprobs.setdefault(event.choice, []).extend(event.logprobs)
                if event.id is not None and event.name is not None:
                    self._names[event.choice, event.index] = (event.id, event.name)
            case Finish():
                self._finish[event.choice] = event
            case Done():
                self._done = event
            case PrefillProgress():
                pass

    def answer(self) -> Answer:
        """The answer so far; choices that never finished count as cancelled."""
        done = self._done or Done(usage=Usage())
        indices = sorted({*self._finish, *self._text, *self._calls}) or [0]
        return Answer(
            choices=tuple(self._choice(index) for index in indices),
            usage=done.usage,
            timings=done.timings,
            prompt_logprobs=done.prompt_logprobs,
        )

    def _choice(self, index: int) -> Choice:
        calls = tuple(
            ToolCall(id=self._names[index, n][0], name=self._names[index, n][1], arguments="".join(pieces))
            for n, pieces in sorted(self._calls.get(index, {}).items())
        )
        finish = self._finish.get(index) or Finish(reason="cancelled", choice=index)
        return Choice(
            message=assistant("".join(self._text.get(index, [])), *calls),
            reason=finish.reason,
            stop=finish.stop,
            logprobs=tuple(self._logprobs.get(index, ())),
        )


def fold(events: Iterable[AnswerEvent]) -> Answer:
    """Collect a whole stream into one `Answer`."""
    folded = AnswerFold()
    for event in events:
        folded.add(event)
    return folded.answer()
