"""Llama Stack's messages and tool calls <-> the house's `Message` and `ToolCall`.

Every operation that takes or gives a conversation (inference, shields, agents) reads it here. Knows no
sampling and no answer's end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.limits import LIMITS
from llamakit.api.llama_stack_content import LlamaStackContent, from_parts, to_parts
from llamakit.api.wire import FIRST, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, TextPart, ToolCall

LlamaStackStopReason = Literal["end_of_turn", "end_of_message", "out_of_tokens"]
"""The turn is over; the message is, and wants tools to be called; or there was no room for more."""


class LlamaStackToolCall(Wire):
    """A call that the model asks for."""

    call_id: str
    tool_name: str
    arguments: str | dict[str, Any]
    """An object, or JSON text of one."""
    arguments_json: str | None = None
    """The same as JSON text, exactly as the model wrote it."""


LlamaStackToolCalls = Annotated[list[LlamaStackToolCall], FIRST]


class LlamaStackSystemMessage(Wire):
    """What the model is told beforehand."""

    role: Literal["system"]
    content: LlamaStackContent


class LlamaStackUserMessage(Wire):
    """What a person says."""

    role: Literal["user"]
    content: LlamaStackContent
    context: LlamaStackContent | None = None
    """What was found for this message; the model reads it behind the content."""


class LlamaStackToolMessage(Wire):
    """What a tool answered."""

    role: Literal["tool"]
    call_id: str
    content: LlamaStackContent
    tool_name: str | None = None
    """Accepted; the tool is known by the call."""


class LlamaStackCompletionMessage(Wire):
    """What a model answered."""

    role: Literal["assistant"]
    content: LlamaStackContent
    stop_reason: LlamaStackStopReason | None = None
    tool_calls: LlamaStackToolCalls | None = None


LlamaStackMessage = Annotated[
    LlamaStackSystemMessage | LlamaStackUserMessage | LlamaStackToolMessage | LlamaStackCompletionMessage,
    Field(discriminator="role"),
]
LlamaStackMessages = Annotated[list[LlamaStackMessage], FIRST]


def to_messages(messages: Sequence[Wire], param: str = "messages") -> tuple[Message, ...]:
    """The house's messages; raises `InvalidRequest` naming the message at fault."""
    if not messages:
        raise InvalidRequest(f"{param} must hold at least one message", param=param)
    if len(messages) > LIMITS.messages:
        raise InvalidRequest(f"{param} holds {len(messages)} messages, at most {LIMITS.messages}", param=param)
    names: dict[str, str] = {}
    return tuple(_message(message, f"{param}[{index}]", names) for index, message in enumerate(messages))


def from_message(message: Message, *, stop_reason: LlamaStackStopReason = "end_of_turn") -> dict[str, Any]:
    """The wire form of any message; `stop_reason` is for those of an assistant."""
    content = from_parts(message.content)
    match message.role:
        case "tool":
            return {"role": "tool", "call_id": message.tool_call_id or "", "content": content}
        case "assistant":
            calls = [from_tool_call(call) for call in message.tool_calls]
            return {"role": "assistant", "content": content, "stop_reason": stop_reason, "tool_calls": calls}
    return {"role": message.role, "content": content}


def to_tool_call(call: LlamaStackToolCall, param: str) -> ToolCall:
    """The house's call; raises `InvalidRequest` for arguments that are no object."""
    arguments = call.arguments if call.arguments_json is None else call.arguments_json
    if isinstance(arguments, dict):
        return ToolCall(id=call.call_id, name=call.tool_name, arguments=json.dumps(arguments, ensure_ascii=False))
    if arguments.strip() and arguments_of(arguments) is None:
        raise InvalidRequest(
            f"{param}.arguments must be an object or JSON text of one, got {found(arguments)}",
            param=f"{param}.arguments",
        )
    return ToolCall(id=call.call_id, name=call.tool_name, arguments=arguments if arguments.strip() else "{}")


def from_tool_call(call: ToolCall) -> dict[str, Any]:
    """The wire form of a call; arguments that a model did not finish stay the text they are."""
    arguments = arguments_of(call.arguments)
    return {
        "call_id": call.id,
        "tool_name": call.name,
        "arguments": call.arguments if arguments is None else arguments,
        "arguments_json": call.arguments,
    }


def arguments_of(text: str) -> dict[str, Any] | None:
    """The object that a call's JSON text says; None where it says none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _message(message: Wire, param: str, names: dict[str, str]) -> Message:
    """One message; `names` remembers which tool a call id belongs to, because a result need not say it."""
    match message:
        case LlamaStackSystemMessage():
            return Message(role="system", content=to_parts(message.content, f"{param}.content"))
        case LlamaStackUserMessage():
            content = to_parts(message.content, f"{param}.content")
            if message.context is not None:
                content += (TextPart(text="\n"), *to_parts(message.context, f"{param}.context"))
            return Message(role="user", content=content)
        case LlamaStackToolMessage():
            return Message(
                role="tool",
                content=to_parts(message.content, f"{param}.content"),
                tool_call_id=message.call_id,
                name=names.get(message.call_id, message.tool_name),
            )
        case LlamaStackCompletionMessage():
            calls = tuple(
                to_tool_call(call, f"{param}.tool_calls[{index}]")
                for index, call in enumerate(message.tool_calls or ())
            )
            names.update((call.id, call.name) for call in calls)
            content = to_parts(message.content, f"{param}.content")
            return Message(role="assistant", content=content, tool_calls=calls)
    raise TypeError(f"no such message: {message!r}")
