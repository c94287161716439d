"""OpenAI's messages and tools <-> the house's `Message`, `ToolSpec` and `ToolChoice`.

Both directions of a step stand together. Knows OpenAI's published field names; does not know sampling,
answers, or what a model does with a role.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.images import to_image
from llamakit.api.inference import ToolChoice
from llamakit.api.limits import LIMITS
from llamakit.api.openai_custom_tools import CustomDefinition
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, Part, TextPart, ToolCall, ToolSpec

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class CacheBreakpoint(Wire):
    """A hint where a cached prefix may end; prefixes here are cached block by block without it."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class WireTextPart(Wire):
    """Text inside a message."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class RefusalPart(Wire):
    """What a model refused to say."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Wire):
    """Where an image is."""

    url: str
    """A `data:` URL with the image itself; other addresses are not fetched."""
    detail: Literal["auto", "low", "high", "original"] | None = None


class WireImagePart(Wire):
    """An image inside a message."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputAudio(Wire):
    """Sound as base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Wire):
    """Sound inside a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class FileData(Wire):
    """A file by its content or its id."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Wire):
    """A file inside a message."""

    type: Literal["file"]
    file: FileData
    prompt_cache_breakpoint: CacheBreakpoint | None = None


TextOnly = Annotated[Annotated[str, TEXT] | Annotated[list[WireTextPart], FIRST, LIST], TEXT_OR_LIST]
AssistantPart = Annotated[WireTextPart | RefusalPart, Field(discriminator="type")]
AssistantContent = Annotated[Annotated[str, TEXT] | Annotated[list[AssistantPart], FIRST, LIST], TEXT_OR_LIST]
UserPart = Annotated[WireTextPart | WireImagePart | AudioPart | FilePart, Field(discriminator="type")]
UserContent = Annotated[Annotated[str, TEXT] | Annotated[list[UserPart], FIRST, LIST], TEXT_OR_LIST]


class FunctionCall(Wire):
    """A function's name and its arguments as JSON text."""

    name: str
    arguments: str


class FunctionToolCall(Wire):
    """A call of a function that the model made."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class CustomCall(Wire):
    """A call of a free-form tool."""

    name: str
    input: str


class CustomToolCall(Wire):
    """A call of a free-form tool that the model made."""

    id: str
    type: Literal["custom"]
    custom: CustomCall


WireToolCall = Annotated[FunctionToolCall | CustomToolCall, Field(discriminator="type")]


class AudioReference(Wire):
    """An earlier spoken answer."""

    id: str


class DeveloperMessage(Wire):
    """What the developer says; the newer name of the system's role."""

    role: Literal["developer"]
    content: TextOnly
    name: str | None = None


class SystemMessage(Wire):
    """What the system says."""

    role: Literal["system"]
    content: TextOnly
    name: str | None = None


class UserMessage(Wire):
    """What the user says."""

    role: Literal["user"]
    content: UserContent
    name: str | None = None


class AssistantMessage(Wire):
    """What the model said before."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    name: str | None = None
    refusal: str | None = None
    audio: AudioReference | None = None
    tool_calls: Annotated[list[WireToolCall], FIRST] | None = None
    function_call: FunctionCall | None = None
    """Deprecated form of one tool call."""


class ToolMessage(Wire):
    """What a tool answered."""

    role: Literal["tool"]
    content: TextOnly
    tool_call_id: str


class FunctionMessage(Wire):
    """Deprecated form of a tool's answer."""

    role: Literal["function"]
    content: str | None
    name: str


WireMessage = Annotated[
    DeveloperMessage | SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


class FunctionDefinition(Wire):
    """A function the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of type object; absent means no arguments."""
    strict: bool | None = None
    """True: the arguments follow the schema exactly."""


class FunctionTool(Wire):
    """A function offered to the model."""

    type: Literal["function"]
    function: FunctionDefinition


class CustomTool(Wire):
    """A free-form tool offered to the model."""

    type: Literal["custom"]
    custom: CustomDefinition


WireTool = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]


class FunctionName(Wire):
    """A function by name."""

    name: ToolName


class NamedToolChoice(Wire):
    """The model must call this function."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Wire):
    """A choice among some of the tools."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[dict[str, Any]], FIRST]


class AllowedToolChoice(Wire):
    """The model may use only these of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class CustomToolChoice(Wire):
    """The model must call this free-form tool."""

    type: Literal["custom"]
    custom: FunctionName


def _word_or_object(value: Any) -> Literal["<text>", "<object>"] | None:
    if isinstance(value, str):
        return "<text>"
    return "<object>" if isinstance(value, dict | Wire) else None


OBJECT = Tag("<object>")
WORD_OR_OBJECT = Discriminator(
    _word_or_object, custom_error_type="word_or_object", custom_error_message="must be a string or an object"
)
ToolChoiceObject = Annotated[NamedToolChoice | AllowedToolChoice | CustomToolChoice, Field(discriminator="type")]
WireToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], TEXT] | Annotated[ToolChoiceObject, OBJECT], WORD_OR_OBJECT
]
WireFunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], TEXT] | Annotated[FunctionName, OBJECT], WORD_OR_OBJECT
]


WireMessages = Annotated[list[WireMessage], FIRST]
WireTools = Annotated[list[WireTool], FIRST]


def to_messages(messages: Sequence[WireMessage], param: str = "messages") -> tuple[Message, ...]:
    """The house's messages; raises `InvalidRequest` for what no model here can take."""
    if not messages:
        raise InvalidRequest(f"{param} must hold at least one message", param=param)
    if len(messages) > LIMITS.messages:
        raise InvalidRequest(f"{param} holds {len(messages)} messages, at most {LIMITS.messages}", param=param)
    names: dict[str, str] = {}
    return tuple(_message(message, f"{param}[{index}]", names) for index, message in enumerate(messages))


def _message(message: WireMessage, param: str, names: dict[str, str]) -> Message:
    """One message; `names` remembers which tool a call id belongs to, because a result carries only the id."""
    match message:
        case SystemMessage() | DeveloperMessage():
            return Message(role="system", content=_content(message.content, param), name=message.name)
        case UserMessage():
            return Message(role="user", content=_content(message.content, param), name=message.name)
        case AssistantMessage():
            return _assistant(message, param, names)
        case ToolMessage():
            return Message(
                role="tool",
                content=_content(message.content, param),
                tool_call_id=message.tool_call_id,
                name=names.get(message.tool_call_id),
            )
        case FunctionMessage():
            return Message(role="tool", content=_content(message.content, param), name=message.name)


def _assistant(message: AssistantMessage, param: str, names: dict[str, str]) -> Message:
    if message.audio is not None:
        raise InvalidRequest(f"{param}.audio: models here do not speak; send the text", param=f"{param}.audio")
    calls = tuple(
        _tool_call(call, f"{param}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls or ())
    )
    if message.function_call is not None:
        call = message.function_call
        arguments = _arguments(call.arguments, f"{param}.function_call.arguments")
        calls += (ToolCall(id=f"call_{call.name}", name=call.name, arguments=arguments),)
    content = _content(message.content, param)
    if message.refusal:
        content += (TextPart(text=message.refusal),)
    if message.content is None and not content and not calls:
        raise InvalidRequest(f"{param}.content is required unless the message has tool calls", param=f"{param}.content")
    names.update((call.id, call.name) for call in calls)
    return Message(role="assistant", content=content, tool_calls=calls, name=message.name)


def _tool_call(call: FunctionToolCall | CustomToolCall, param: str) -> ToolCall:
    if isinstance(call, CustomToolCall):
        raise InvalidRequest(f"{param}.type: free-form tools are not supported, use functions", param=f"{param}.type")
    arguments = _arguments(call.function.arguments, f"{param}.function.arguments")
    return ToolCall(id=call.id, name=call.function.name, arguments=arguments)


def _arguments(text: str, param: str) -> str:
    """Arguments as JSON text of one object; the empty text that some clients send means none."""
    if not text.strip():
        return "{}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{param} must be JSON text of one object, got {found(text)}", param=param) from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{param} must be JSON text of one object, got {found(value)}", param=param)
    return text


def _content(content: str | Sequence[Wire] | None, param: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    return tuple(_part(part, f"{param}.content[{index}]") for index, part in enumerate(content))


def _part(part: Wire, param: str) -> Part:
    match part:
        case WireTextPart():
            return TextPart(text=part.text)
        case RefusalPart():
            return TextPart(text=part.refusal)
        case WireImagePart():
            return _image(part.image_url.url, f"{param}.image_url.url")
    raise InvalidRequest(f"{param}.type: only text and images are understood here", param=f"{param}.type")


def _image(url: str, param: str) -> ImagePart:
    head, comma, data = url.partition(",")
    kind = head.removeprefix("data:").removesuffix(";base64")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(
            f"{param} must be a data URL such as data:image/png;base64,...; addresses are not fetched", param=param
        )
    return to_image(data, param, kind=kind)


def to_tools(tools: Sequence[WireTool] | None) -> tuple[ToolSpec, ...]:
    """The functions offered, in order; raises `InvalidRequest` for a name twice or a free-form tool."""
    functions: list[FunctionDefinition] = []
    for index, tool in enumerate(tools or ()):
        if isinstance(tool, CustomTool):
            param = f"tools[{index}].type"
            raise InvalidRequest(f"{param}: free-form tools are not supported, use functions", param=param)
        functions.append(tool.function)
    return to_specs(functions, "tools")


def to_specs(functions: Sequence[FunctionDefinition], param: str) -> tuple[ToolSpec, ...]:
    """Tool specifications of function definitions."""
    if len(functions) > LIMITS.tools:
        raise InvalidRequest(f"{param} holds {len(functions)} tools, at most {LIMITS.tools}", param=param)
    names: set[str] = set()
    for function in functions:
        if function.name in names:
            raise InvalidRequest(f"{param} names the function {function.name!r} twice", param=param)
        names.add(function.name)
    return tuple(
        ToolSpec(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
            strict=bool(function.strict),
        )
        for function in functions
    )


def choose_tools(
    choice: WireToolChoice | WireFunctionChoice | None, tools: tuple[ToolSpec, ...], param: str = "tool_choice"
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """The tools the model sees and whether it must call one; raises `InvalidRequest` for a tool not offered."""
    match choice:
        case None | "auto":
            return tools, ToolChoice()
        case "none":
            return tools, ToolChoice(mode="none")
        case "required":
            if not tools:
                raise InvalidRequest(f"{param} 'required' needs tools", param=param)
            return tools, ToolChoice(mode="required")
        case NamedToolChoice():
            return tools, _named(choice.function.name, tools, param)
        case FunctionName():
            return tools, _named(choice.name, tools, param)
        case AllowedToolChoice():
            kept = _allowed(choice.allowed_tools, tools, param)
            return kept, ToolChoice(mode=choice.allowed_tools.mode)
    raise InvalidRequest(f"{param}: free-form tools are not supported, use functions", param=param)


def _named(name: str, tools: tuple[ToolSpec, ...], param: str) -> ToolChoice:
    if name not in {tool.name for tool in tools}:
        offered = ", ".join(tool.name for tool in tools) or "none"
        raise InvalidRequest(f"{param} names {name!r}, which is not among the tools: {offered}", param=param)
    return ToolChoice(mode="named", name=name)


def _allowed(allowed: AllowedTools, tools: tuple[ToolSpec, ...], param: str) -> tuple[ToolSpec, ...]:
    param = f"{param}.allowed_tools.tools"
    wanted: set[str] = set()
    for entry in allowed.tools:
        function = entry.get("function", entry)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise InvalidRequest(f"{param} must name functions, got {found(entry)}", param=param)
        _named(name, tools, param)
        wanted.add(name)
    if not wanted:
        raise InvalidRequest(f"{param} must name at least one function", param=param)
    return tuple(tool for tool in tools if tool.name in wanted)


def from_tool_call(call: ToolCall) -> dict[str, Any]:
    """The wire form of a call in a whole answer."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
