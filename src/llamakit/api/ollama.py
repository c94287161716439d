"""Ollama's chat and generate: wire request -> `ChatRequest` or `CompletionRequest`.

A request without a question loads the model, or lets it go. The way back is in `ollama_answer.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.images import to_image
from llamakit.api.inference import ChatRequest, CompletionRequest, RequestContext
from llamakit.api.limits import LIMITS
from llamakit.api.ollama_options import OllamaFields, plain_name, to_keep_alive, to_sampling
from llamakit.api.openai_messages import FunctionDefinition, to_specs
from llamakit.api.wire import FIRST, Texts, TokenIds, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, Part, TextPart, ToolCall, ToolSpec


class OllamaFunction(Wire):
    """A function's name and arguments."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None


class OllamaToolCall(Wire):
    """A call of a function that the model made."""

    function: OllamaFunction
    id: str | None = None
    type: Literal["function"] | None = None


class OllamaMessage(Wire):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: Texts | None = None
    """Each as base64."""
    tool_calls: Annotated[list[OllamaToolCall], FIRST] | None = None
    tool_name: str | None = None
    """The tool whose answer this is."""
    tool_call_id: str | None = None
    thinking: str | None = None
    """What another model thought; set aside."""


class OllamaTool(Wire):
    """A function offered to the model."""

    type: Literal["function"] | None = None
    function: FunctionDefinition


class OllamaChatRequest(OllamaFields):
    """Body of `POST /api/chat`."""

    messages: Annotated[list[OllamaMessage], FIRST] | None = None
    """The conversation; without one, the model is loaded, or let go where keep_alive is 0."""
    tools: Annotated[list[OllamaTool], FIRST] | None = None


class OllamaGenerateRequest(OllamaFields):
    """Body of `POST /api/generate`."""

    prompt: str | None = None
    """What the user says; without it, the model is loaded, or let go where keep_alive is 0."""
    suffix: str | None = None
    """Text after the gap that the model fills in."""
    images: Texts | None = None
    """Each as base64."""
    system: str | None = None
    raw: bool | None = None
    """Take the prompt as it stands, its special tokens spelled, and add no chat format."""
    template: str | None = None
    """Refused: prompt formats here are tested code that the model chooses."""
    context: TokenIds | None = None
    """Refused: send the conversation to `/api/chat`."""
    width: Annotated[int, Field(ge=0)] | None = None
    """Refused, with height and steps: models here make no images."""
    height: Annotated[int, Field(ge=0)] | None = None
    steps: Annotated[int, Field(ge=0)] | None = None


def to_chat(wire: OllamaChatRequest, *, request_id: str, salt: str = "") -> ChatRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    messages = wire.messages or ()
    if len(messages) > LIMITS.messages:
        raise InvalidRequest(f"messages holds {len(messages)}, at most {LIMITS.messages}", param="messages")
    return ChatRequest(
        model=plain_name(wire.model),
        messages=_to_messages(messages),
        context=to_context(wire, request_id=request_id, salt=salt),
        sampling=to_sampling(wire),
        tools=_to_tools(wire.tools),
    )


def to_prompt(wire: OllamaGenerateRequest, *, request_id: str, salt: str = "") -> ChatRequest | CompletionRequest:
    """A chat of one turn; a text to fill in where there is a suffix; the bare prompt where it is raw.

    Raises `InvalidRequest` naming the field.
    """
    _refuse_unsupported(wire)
    context = to_context(wire, request_id=request_id, salt=salt)
    prompt, model, sampling = wire.prompt or "", plain_name(wire.model), to_sampling(wire)
    if wire.raw or wire.suffix:
        for param, value in (("system", wire.system), ("images", wire.images)):
            if value:
                raise InvalidRequest(f"{param} has no place in a raw prompt or beside a suffix", param=param)
        return CompletionRequest(
            model=model, prompt=prompt, context=context, sampling=sampling, suffix=wire.suffix or None
        )
    parts = (TextPart(text=prompt), *_images(wire.images, "images"))
    messages = (Message(role="user", content=parts),)
    if wire.system:
        messages = (Message(role="system", content=(TextPart(text=wire.system),)), *messages)
    return ChatRequest(model=model, messages=messages, context=context, sampling=sampling)


def to_context(wire: OllamaFields, *, request_id: str, salt: str) -> RequestContext:
    """What the request carries besides its question."""
    return RequestContext(id=request_id, salt=salt, keep_alive=to_keep_alive(wire.keep_alive))


def is_question(wire: OllamaChatRequest | OllamaGenerateRequest) -> bool:
    """Whether there is anything to answer."""
    if isinstance(wire, OllamaChatRequest):
        return bool(wire.messages)
    return bool(wire.prompt or wire.suffix or wire.images)


def thoughts(wire: OllamaChatRequest) -> tuple[str, ...]:
    """Paths of what other models thought, which is set aside."""
    return tuple(f"messages[{index}].thinking" for index, turn in enumerate(wire.messages or ()) if turn.thinking)


def _refuse_unsupported(wire: OllamaGenerateRequest) -> None:
    for param, is_asked, instead in (
        ("template", bool(wire.template), "prompt formats here are tested code that the model chooses; leave it out"),
        ("context", bool(wire.context), "conversations go on at /api/chat, with their messages"),
        ("width", bool(wire.width), "models here make no images; leave it out"),
        ("height", bool(wire.height), "models here make no images; leave it out"),
        ("steps", bool(wire.steps), "models here make no images; leave it out"),
        ("suffix", bool(wire.raw and wire.suffix), "a raw prompt has no suffix; send one of them"),
    ):
        if is_asked:
            raise InvalidRequest(f"{param}: {instead}", param=param)


def _to_messages(messages: Sequence[OllamaMessage]) -> tuple[Message, ...]:
    """Ollama's tool results name their tool and no call, so each takes the first open call of that tool."""
    open_calls: list[ToolCall] = []
    made: list[Message] = []
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        content: tuple[Part, ...] = (TextPart(text=message.content),) if message.content else ()
        content += _images(message.images, f"{param}.images")
        if message.tool_calls and message.role != "assistant":
            raise InvalidRequest(f"{param}.tool_calls: only the assistant calls tools", param=f"{param}.tool_calls")
        if message.role == "tool":
            call = _answered(message, open_calls)
            name = message.tool_name or (call.name if call else None)
            call_id = message.tool_call_id or (call.id if call else f"call_{index}")
            made.append(Message(role="tool", content=content, tool_call_id=call_id, name=name))
            continue
        calls = tuple(
            ToolCall(
                id=call.id or f"call_{index}_{number}",
                name=call.function.name,
                arguments=json.dumps(call.function.arguments, ensure_ascii=False),
            )
            for number, call in enumerate(message.tool_calls or ())
        )
        open_calls += calls
        made.append(Message(role=message.role, content=content, tool_calls=calls))
    return tuple(made)


def _answered(message: OllamaMessage, open_calls: list[ToolCall]) -> ToolCall | None:
    for call in open_calls:
        if message.tool_call_id in (None, call.id) and message.tool_name in (None, call.name):
            open_calls.remove(call)
            return call
    return None


def _images(images: Sequence[str] | None, param: str) -> tuple[Part, ...]:
    return tuple(to_image(image, f"{param}[{index}]") for index, image in enumerate(images or ()))


def _to_tools(tools: Sequence[OllamaTool] | None) -> tuple[ToolSpec, ...]:
    return to_specs([tool.function for tool in tools or ()], "tools")
