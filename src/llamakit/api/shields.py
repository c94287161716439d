"""Llama Stack's shields on the wire: registered, listed, and asked for a verdict on a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.llama_stack_content import LlamaStackContent, to_parts
from llamakit.api.wire import FIRST, ModelName, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, ToolCall

ShieldName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]


class WireShieldRequest(Wire):
    """Body of `POST /v1/shields`."""

    shield_id: ShieldName
    provider_shield_id: ModelName | None = None
    """What the provider knows it by: for Llama Guard a served model."""
    provider_id: str | None = None
    """May be left out where there is one safety provider."""
    params: dict[str, Any] | None = None


class WireShield(Wire):
    """A shield."""

    identifier: str
    provider_resource_id: str | None
    provider_id: str
    type: Literal["shield"]
    params: dict[str, Any]


class WireShields(Wire):
    """All shields."""

    data: list[WireShield]


class ShieldFunction(Wire):
    """The function of a call, in OpenAI's form."""

    name: str
    arguments: str


class ShieldToolCall(Wire):
    """A call of a tool, in OpenAI's form or in Llama Stack's."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: ShieldFunction | None = None
    call_id: str | None = None
    tool_name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ShieldMessage(Wire):
    """A message in OpenAI's form or in Llama Stack's: a shield reads who said it, and what."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: LlamaStackContent | None = None
    tool_calls: Annotated[list[ShieldToolCall], FIRST] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    call_id: str | None = None
    context: LlamaStackContent | None = None
    """What was found for the message; it is judged with it."""
    stop_reason: str | None = None


class WireRunShield(Wire):
    """Body of `POST /v1/safety/run-shield`."""

    shield_id: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[ShieldMessage], FIRST, Field(min_length=1, max_length=10_000)]
    """The last one is judged, in the light of those before it."""
    params: dict[str, Any] | None = None
    """Must be empty: what a shield is told stands in its registration."""


class WireViolation(Wire):
    """Why a conversation is not let through."""

    violation_level: Literal["info", "warn", "error"]
    user_message: str | None
    metadata: dict[str, Any]


class WireRunShieldAnswer(Wire):
    """A verdict; nothing was found where there is no violation."""

    violation: WireViolation | None


def to_messages(wire: WireRunShield) -> list[Message]:
    """The house's messages; raises `InvalidRequest` for what a shield cannot judge."""
    if wire.params:
        raise InvalidRequest("params must be empty; register a shield with the params it is to have", param="params")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(wire.messages)]


def shield_body(id: str, resource: str | None, provider_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A shield as Llama Stack spells it."""
    return {
        "identifier": id,
        "provider_resource_id": resource,
        "provider_id": provider_id,
        "type": "shield",
        "params": dict(params),
    }


def _message(wire: ShieldMessage, param: str) -> Message:
    parts = [
        part
        for name, content in (("content", wire.content), ("context", wire.context))
        if content is not None
        for part in to_parts(content, f"{param}.{name}")
    ]
    if any(isinstance(part, ImagePart) for part in parts):
        raise InvalidRequest("shields judge words; an image cannot be judged here", param=f"{param}.content")
    calls = tuple(_call(call, f"{param}.tool_calls[{index}]") for index, call in enumerate(wire.tool_calls or ()))
    return Message(
        role="system" if wire.role == "developer" else wire.role,
        content=tuple(parts),
        tool_calls=calls,
        tool_call_id=wire.tool_call_id or wire.call_id,
        name=wire.name,
    )


def _call(wire: ShieldToolCall, param: str) -> ToolCall:
    name = wire.function.name if wire.function is not None else wire.tool_name
    if name is None:
        raise InvalidRequest(f"{param} must name its function", param=param)
    arguments = wire.function.arguments if wire.function is not None else wire.arguments
    return ToolCall(id=wire.id or wire.call_id or "", name=name, arguments=str(arguments or ""))
