"""The house's chats -> bodies of Anthropic's Messages, and its stream events -> the house's.

What the Messages API has no word for and would change the answer is refused by the name of the field.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from llamakit.api.inference import ChatRequest, ToolChoice
from llamakit.core.errors import InvalidRequest, RemoteFailed
from llamakit.core.messages import (
    AnswerEvent,
    Done,
    Finish,
    FinishReason,
    ImagePart,
    Message,
    Part,
    TextDelta,
    TextPart,
    Timings,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.providers.shared.openai_reply import clean
from llamakit.providers.shared.refusals import interruption

_DEFAULTS = {field.name: field.default for field in fields(SamplingParams)}
_NAMES = {"max_tokens": "max_tokens", "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
_REASONS: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


def messages_body(request: ChatRequest, service: str, model: str, *, max_tokens: int) -> dict[str, Any]:
    """Body of `messages`; `max_tokens` stands in where none was asked for. Raises `InvalidRequest`."""
    first = next((at for at, message in enumerate(request.messages) if message.role != "system"), 0)
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "stream": True}
    body["messages"] = _turns(request.messages[first:])
    if first:
        body["system"] = "\n\n".join(message.text for message in request.messages[:first])
    if not request.add_generation_prompt and not request.continue_final_message:
        raise InvalidRequest(f"{service} always opens the assistant's turn", param="add_generation_prompt")
    body |= _sampling(request.sampling, service)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _choice(request.tool_choice, parallel=request.parallel_tool_calls)
    return body


def _sampling(asked: Mapping[str, Any], service: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in asked.items():
        if name == "stop":
            body |= {"stop_sequences": list(value)} if value else {}
        elif name == "constraint":
            body |= _constraint(value, service)
        elif name in _NAMES:
            body |= {} if value == _DEFAULTS[name] and name != "temperature" else {name: value}
        elif value and value != _DEFAULTS[name]:
            raise InvalidRequest(f"{service} does not take {name}; leave it out", param=name)
    return body


def _constraint(constraint: Constraint | None, service: str) -> dict[str, Any]:
    if constraint is None:
        return {}
    if constraint.kind != "json_schema":
        raise InvalidRequest(f"{service} cannot follow a {constraint.kind}", param="response_format")
    return {"output_config": {"format": {"type": "json_schema", "schema": json.loads(constraint.source)}}}


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns; what the user and the tools say between two answers is one, the tools' results first in it."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        if not turns or turns[-1]["role"] != role or role == "system":
            turns.append({"role": role, "content": []})
        turns[-1]["content"] += _blocks(message)
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    blocks = [_block(part) for part in message.content]
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": blocks}]
    calls = (
        {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
        for call in message.tool_calls
    )
    return [*blocks, *calls]


def _block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            data = base64.b64encode(part.data).decode()
            return {"type": "image", "source": {"type": "base64", "media_type": part.mime, "data": data}}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    schema = dict(tool.parameters) or {"type": "object", "properties": {}}
    made: dict[str, Any] = {"name": tool.name, "description": tool.description, "input_schema": schema}
    return made | ({"strict": True} if tool.strict else {})


def _choice(choice: ToolChoice, *, parallel: bool) -> dict[str, Any]:
    match choice.mode:
        case "none":
            return {"type": "none"}
        case "named":
            made: dict[str, Any] = {"type": "tool", "name": choice.name}
        case mode:
            made = {"type": "any" if mode == "required" else "auto"}
    return made if parallel else made | {"disable_parallel_tool_use": True}


class MessageReader:
    """Reads one answer; feed with `read`, and take what `end` gives when nothing more comes."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._started = time.monotonic()
        self._first: float | None = None
        self._calls: dict[int, int] = {}
        """Block to number of the call it is."""
        self._counts: dict[str, int] = {}
        self._has_ended = False

    def read(self, value: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        """The events of one stream event or whole message; raises what an error in it says, or `RemoteFailed`."""
        match value.get("type"):
            case "error":
                raise interruption(self._service, value.get("error"))
            case "message_start":
                self._count(self._object(self._object(value, "message"), "usage"))
            case "content_block_start":
                yield from self._open(self._index(value), self._object(value, "content_block"))
            case "content_block_delta":
                yield from self._more(self._index(value), self._object(value, "delta"))
            case "message_delta":
                self._count(self._object(value, "usage"))
                yield from self._finish(self._object(value, "delta"))
            case "message":
                yield from self._whole(value)

    def end(self) -> Iterator[AnswerEvent]:
        """The last event; raises `RemoteFailed` where the answer is not whole."""
        if not self._has_ended:
            raise RemoteFailed(f"{self._service} ended before its answer was complete")
        now = time.monotonic()
        first = now if self._first is None else self._first
        cached = self._counts.get("cache_read_input_tokens", 0)
        prompt = cached + sum(self._counts.get(name, 0) for name in ("input_tokens", "cache_creation_input_tokens"))
        yield Done(
            usage=Usage(
                prompt_tokens=prompt, cached_tokens=cached, completion_tokens=self._counts.get("output_tokens", 0)
            ),
            timings=Timings(prefill_s=first - self._started, decode_s=now - first),
        )

    def _open(self, index: int, block: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        self._first = self._first or time.monotonic()
        if block.get("type") == "tool_use":
            self._calls[index] = number = len(self._calls)
            yield ToolCallDelta(index=number, id=self._text(block, "id"), name=self._text(block, "name"))
        elif block.get("type") == "text" and block.get("text"):
            yield TextDelta(text=self._text(block, "text"))

    def _more(self, index: int, delta: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        match delta.get("type"):
            case "text_delta":
                yield TextDelta(text=self._text(delta, "text"))
            case "input_json_delta":
                if index not in self._calls:
                    self._bad("content_block_delta.index")
                yield ToolCallDelta(index=self._calls[index], arguments=self._text(delta, "partial_json"))

    def _finish(self, delta: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        reason = delta.get("stop_reason")
        if reason is None:
            return
        if reason == "refusal":
            raise RemoteFailed(f"{self._service} withheld the answer (refusal)")
        self._has_ended = True
        ended = _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
        stop = self._text(delta, "stop_sequence") if reason == "stop_sequence" else None
        yield Finish(reason=ended, stop=stop)

    def _whole(self, message: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        blocks = message.get("content")
        if not isinstance(blocks, list):
            self._bad("content")
        for index, block in enumerate(blocks):
            if not isinstance(block, dict):
                self._bad("content")
            yield from self._open(index, block)
            if block.get("type") == "tool_use":
                arguments = json.dumps(self._object(block, "input"), ensure_ascii=False)
                yield ToolCallDelta(index=self._calls[index], arguments=arguments)
        self._count(self._object(message, "usage"))
        yield from self._finish(message)

    def _count(self, usage: Mapping[str, Any]) -> None:
        for name, value in usage.items():
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
                self._counts[name] = value

    def _object(self, value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        found = value.get(name)
        if not isinstance(found, dict):
            self._bad(name)
        return found

    def _index(self, value: Mapping[str, Any]) -> int:
        index = value.get("index")
        if not isinstance(index, int):
            self._bad("index")
        return index

    def _text(self, value: Mapping[str, Any], name: str) -> str:
        found = value.get(name)
        if not isinstance(found, str):
            self._bad(name)
        return clean(found)

    def _bad(self, name: str) -> NoReturn:
        raise RemoteFailed(f"{self._service} sent an answer whose {name} is not what Messages have there")
