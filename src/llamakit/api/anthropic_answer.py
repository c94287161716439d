"""`AnswerEvent`s -> Anthropic's stream events or one message.

Runs once a token, so the frame around a piece of text is made once and no model is built for it; the wire
types are the published shape of the same values, and the tests hold one to the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from llamakit.api.openai_answer import finish_reason, quote, to_json
from llamakit.api.wire import Wire
from llamakit.core.messages import (
    Answer,
    AnswerEvent,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    ToolCallDelta,
    Usage,
)

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class WireUsage(Wire):
    """Token counts; the prompt's tokens are the three inputs together."""

    input_tokens: int
    """Prompt tokens that were computed."""
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    """Prompt tokens found in the prefix cache."""
    output_tokens: int


class AnswerBlock(Wire):
    """Text, or the call of a tool."""

    type: Literal["text", "tool_use"]
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    """Arguments; empty where the answer was cut off inside them, which `stop_reason` max_tokens tells."""


class AnthropicMessage(Wire):
    """A whole answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: WireUsage


class MessageEvent(Wire):
    """A piece of a streamed answer; which fields it has follows from its type."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    ]
    message: AnthropicMessage | None = None
    index: int | None = None
    content_block: AnswerBlock | None = None
    delta: dict[str, Any] | None = None
    usage: WireUsage | None = None


class TokenCount(Wire):
    """How long a prompt is."""

    input_tokens: int


class MessageEvents:
    """Events of one answer -> text of its stream events; feed with `push`, in order."""

    def __init__(self, message_id: str, model: str) -> None:
        self._id = message_id
        self._model = model
        self._has_started = False
        self._next = 0
        """Index of the next block."""
        self._open: int | None = None
        """Index of the block that is open."""
        self._is_text = False
        self._calls: dict[int, int] = {}
        """Block of each tool call."""
        self._finish: Finish | None = None

    def push(self, event: AnswerEvent) -> Iterator[str]:
        """The stream events that `event` makes, if any; raises `EngineStopped` for an end that is no answer."""
        match event:
            case PrefillProgress():
                if self._has_started:
                    yield _event("ping", '{"type":"ping"}')
                usage = Usage(prompt_tokens=event.total, cached_tokens=event.cached)
                yield from self._start(usage)
            case TextDelta():
                if event.text:
                    yield from self._text(event.text)
            case ToolCallDelta():
                yield from self._call(event)
            case Finish():
                finish_reason(event, called_tools=bool(self._calls))
                self._finish = event
            case Done():
                yield from self._end(event)

    def _start(self, usage: Usage) -> Iterator[str]:
        """The opening, once; what is not known of the prompt yet comes with the end."""
        if self._has_started:
            return
        self._has_started = True
        message = _message(self._id, self._model) | {"usage": usage_fields(usage)}
        yield _event("message_start", f'{{"type":"message_start","message":{to_json(message)}}}')

    def _text(self, text: str) -> Iterator[str]:
        if self._open is None or not self._is_text:
            yield from self._block('{"type":"text","text":""}', is_text=True)
        yield self._delta(self._open, f'{{"type":"text_delta","text":{quote(text)}}}')

    def _call(self, event: ToolCallDelta) -> Iterator[str]:
        if event.index not in self._calls:
            head = f'{{"type":"tool_use","id":{quote(event.id or "")},"name":{quote(event.name or "")},"input":{{}}}}'
            yield from self._block(head, is_text=False)
            self._calls[event.index] = self._next - 1
        if event.arguments:
            delta = f'{{"type":"input_json_delta","partial_json":{quote(event.arguments)}}}'
            yield self._delta(self._calls[event.index], delta)

    def _block(self, head: str, *, is_text: bool) -> Iterator[str]:
        yield from self._start(Usage())
        yield from self._close()
        self._open, self._is_text = self._next, is_text
        self._next += 1
        yield _event(
            "content_block_start", f'{{"type":"content_block_start","index":{self._open},"content_block":{head}}}'
        )

    def _close(self) -> Iterator[str]:
        if self._open is not None:
            yield _event("content_block_stop", f'{{"type":"content_block_stop","index":{self._open}}}')
            self._open = None

    @staticmethod
    def _delta(index: int | None, delta: str) -> str:
        return _event("content_block_delta", f'{{"type":"content_block_delta","index":{index},"delta":{delta}}}')

    def _end(self, event: Done) -> Iterator[str]:
        finish = self._finish or Finish(reason="cancelled")
        reason = _ending(finish, called_tools=bool(self._calls))
        yield from self._start(event.usage)
        yield from self._close()
        body = {"type": "message_delta", "delta": reason, "usage": usage_fields(event.usage)}
        yield _event("message_delta", to_json(body))
        yield _event("message_stop", '{"type":"message_stop"}')


def to_body(message_id: str, model: str, answer: Answer) -> dict[str, Any]:
    """The body of a whole answer; raises `EngineStopped` for an end that is no answer."""
    choice = answer.choices[0]
    calls = choice.message.tool_calls
    blocks: list[dict[str, Any]] = []
    if choice.message.text:
        blocks.append({"type": "text", "text": choice.message.text})
    for call in calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)})
    ending = _ending(Finish(reason=choice.reason, stop=choice.stop), called_tools=bool(calls))
    body = _message(message_id, model) | ending
    return body | {"content": blocks, "usage": usage_fields(answer.usage)}


def usage_fields(usage: Usage) -> dict[str, int]:
    """The wire form of token counts."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _message(message_id: str, model: str) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _ending(finish: Finish, *, called_tools: bool) -> dict[str, Any]:
    reason = _REASONS[finish_reason(finish, called_tools=called_tools)]
    if reason == "end_turn" and isinstance(finish.stop, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}
    return {"stop_reason": reason, "stop_sequence": None}


def _input(arguments: str) -> dict[str, Any]:
    """Arguments as an object; those that the end of the answer cut off are no JSON and count as none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}"
