"""Anthropic's messages and tools <-> the house's `Message`, `ToolSpec` and `ToolChoice`.

Knows Anthropic's published field names; does not know sampling, answers, or what a model does with a role.
A turn that mixes tool results and text becomes one message each, in the order they stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.images import to_image
from llamakit.api.inference import ToolChoice
from llamakit.api.limits import LIMITS
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, Part, TextPart, ToolCall, ToolSpec

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class CacheControl(Wire):
    """A hint where a cached prefix may end; prefixes here are cached block by block without it."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Wire):
    """What every content block may carry."""

    cache_control: CacheControl | None = None


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: str
    citations: Annotated[list[dict[str, Any]], FIRST] | None = None


class Base64Source(Wire):
    """Bytes in the request itself."""

    type: Literal["base64"]
    media_type: str
    data: str


class UrlSource(Wire):
    """An address; not fetched here."""

    type: Literal["url"]
    url: str


class FileSource(Wire):
    """An uploaded file; not kept here."""

    type: Literal["file"]
    file_id: str


class PlainTextSource(Wire):
    """A document as text."""

    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str


class ContentSource(Wire):
    """A document as blocks of text."""

    type: Literal["content"]
    content: Annotated[Annotated[str, TEXT] | Annotated[list[TextBlock], FIRST, LIST], TEXT_OR_LIST]


ImageSource = Annotated[Base64Source | UrlSource | FileSource, Field(discriminator="type")]
DocumentSource = Annotated[
    PlainTextSource | ContentSource | Base64Source | UrlSource | FileSource, Field(discriminator="type")
]


class ImageBlock(Block):
    """An image."""

    type: Literal["image"]
    source: ImageSource


class DocumentBlock(Block):
    """A document; one of text is read, other kinds are refused."""

    type: Literal["document"]
    source: DocumentSource
    title: str | None = None
    context: str | None = None
    citations: dict[str, Any] | None = None


class SearchResultBlock(Block):
    """What a search found."""

    type: Literal["search_result"]
    source: str
    title: str
    content: Annotated[list[TextBlock], FIRST]
    citations: dict[str, Any] | None = None


class ThinkingBlock(Wire):
    """What another model thought; set aside."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlock(Wire):
    """What another model thought, unreadable; set aside."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Block):
    """A call of a tool that the model made."""

    type: Literal["tool_use"]
    id: str
    name: ToolName
    input: dict[str, Any]


ResultPart = Annotated[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock, Field(discriminator="type")]


class ToolResultBlock(Block):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[Annotated[str, TEXT] | Annotated[list[ResultPart], FIRST, LIST], TEXT_OR_LIST] | None = None
    is_error: bool | None = None


ContentBlock = Annotated[
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock,
    Field(discriminator="type"),
]
Content = Annotated[Annotated[str, TEXT] | Annotated[list[ContentBlock], FIRST, LIST], TEXT_OR_LIST]
SystemText = Annotated[Annotated[str, TEXT] | Annotated[list[TextBlock], FIRST, LIST], TEXT_OR_LIST]


class InputMessage(Wire):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: Content


class AnthropicTool(Wire):
    """A tool offered to the model."""

    name: ToolName
    input_schema: dict[str, Any] | None = None
    """JSON Schema of type object."""
    type: str | None = None
    """`custom` or absent; tools that run at Anthropic are refused."""
    description: str | None = None
    strict: bool | None = None
    """True: the input follows the schema exactly."""
    cache_control: CacheControl | None = None
    input_examples: Annotated[list[dict[str, Any]], FIRST] | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    allowed_callers: Annotated[list[str], FIRST] | None = None


class AutoChoice(Wire):
    """The model decides."""

    type: Literal["auto"]
    disable_parallel_tool_use: bool | None = None


class AnyChoice(Wire):
    """The model must call some tool."""

    type: Literal["any"]
    disable_parallel_tool_use: bool | None = None


class NamedChoice(Wire):
    """The model must call this tool."""

    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class NoChoice(Wire):
    """The model may call no tool."""

    type: Literal["none"]


AnthropicToolChoice = Annotated[AutoChoice | AnyChoice | NamedChoice | NoChoice, Field(discriminator="type")]


def to_messages(system: str | Sequence[TextBlock] | None, messages: Sequence[InputMessage]) -> tuple[Message, ...]:
    """The house's messages; raises `InvalidRequest` for what no model here can take."""
    if not messages:
        raise InvalidRequest("messages must hold at least one message", param="messages")
    if len(messages) > LIMITS.messages:
        raise InvalidRequest(f"messages holds {len(messages)}, at most {LIMITS.messages}", param="messages")
    made: list[Message] = []
    if system:
        text = system if isinstance(system, str) else "\n\n".join(block.text for block in system)
        made.append(Message(role="system", content=(TextPart(text=text),)))
    names: dict[str, str] = {}
    for index, message in enumerate(messages):
        made += _turn(message, f"messages[{index}]", names)
    if made[-1].role == "assistant" and (made[-1].tool_calls or not made[-1].text):
        param = f"messages[{len(messages) - 1}].content"
        raise InvalidRequest(
            f"{param} ends the conversation with an assistant turn that has "
            f"{'tool calls without their results' if made[-1].tool_calls else 'no text to go on from'}",
            param=param,
        )
    return tuple(made)


def _turn(message: InputMessage, param: str, names: dict[str, str]) -> Iterator[Message]:
    """The messages of one turn; `names` remembers which tool a call id belongs to, as a result has only the id."""
    if isinstance(message.content, str):
        yield Message(role=message.role, content=(TextPart(text=message.content),))
        return
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(message.content):
        path = f"{param}.content[{index}]"
        match block:
            case ToolUseBlock():
                _check_role(message, "assistant", path)
                names[block.id] = block.name
                calls.append(ToolCall(id=block.id, name=block.name, arguments=_to_text(block.input)))
            case ToolResultBlock():
                _check_role(message, "user", path)
                if parts:
                    yield Message(role="user", content=tuple(parts))
                    parts = []
                yield _result(block, path, names.get(block.tool_use_id))
            case ThinkingBlock() | RedactedThinkingBlock():
                _check_role(message, "assistant", path)
            case _:
                parts += _parts(block, path)
    if parts or calls or not message.content or message.role == "assistant":
        yield Message(role=message.role, content=tuple(parts), tool_calls=tuple(calls))


def _check_role(message: InputMessage, role: str, path: str) -> None:
    if message.role != role:
        raise InvalidRequest(f"{path}: only a turn of the {role} holds such a block", param=path)


def _result(block: ToolResultBlock, path: str, name: str | None) -> Message:
    """A tool's answer; a failure says so in its text, because models know no other place for it."""
    parts: list[Part] = [TextPart(text="Error: ")] if block.is_error else []
    if isinstance(block.content, str):
        parts.append(TextPart(text=block.content))
    else:
        for index, inner in enumerate(block.content or ()):
            parts += _parts(inner, f"{path}.content[{index}]")
    return Message(role="tool", content=tuple(parts), tool_call_id=block.tool_use_id, name=name)


def _parts(block: Wire, path: str) -> Iterator[Part]:
    match block:
        case TextBlock():
            yield TextPart(text=block.text)
        case SearchResultBlock():
            yield TextPart(text=f"{block.title} ({block.source})\n")
            for inner in block.content:
                yield TextPart(text=f"{inner.text}\n")
        case ImageBlock():
            yield _image(block, f"{path}.source")
        case DocumentBlock():
            yield TextPart(text="".join(f"{head}\n" for head in (block.title, block.context) if head))
            yield TextPart(text=_document(block, f"{path}.source"))


def _image(block: ImageBlock, param: str) -> ImagePart:
    if not isinstance(block.source, Base64Source):
        raise InvalidRequest(
            f"{param}.type: images come as base64 here; addresses and files are not fetched", param=f"{param}.type"
        )
    return to_image(block.source.data, f"{param}.data", kind=block.source.media_type)


def _document(block: DocumentBlock, param: str) -> str:
    match block.source:
        case PlainTextSource():
            return block.source.data
        case ContentSource():
            content = block.source.content
            return content if isinstance(content, str) else "\n".join(inner.text for inner in content)
    raise InvalidRequest(f"{param}.type: documents come as text here, got {block.source.type!r}", param=f"{param}.type")


def _to_text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def to_tools(tools: Sequence[AnthropicTool] | None) -> tuple[ToolSpec, ...]:
    """The tools offered, in order; raises `InvalidRequest` for a name twice or a tool that runs elsewhere."""
    if tools is not None and len(tools) > LIMITS.tools:
        raise InvalidRequest(f"tools holds {len(tools)} tools, at most {LIMITS.tools}", param="tools")
    made: dict[str, ToolSpec] = {}
    for index, tool in enumerate(tools or ()):
        param = f"tools[{index}]"
        if tool.type not in (None, "custom"):
            raise InvalidRequest(
                f"{param}.type: {tool.type[:64]!r} runs at Anthropic; here tools have an input_schema and run at yours",
                param=f"{param}.type",
            )
        if tool.input_schema is None:
            raise InvalidRequest(f"{param}.input_schema is required", param=f"{param}.input_schema")
        if tool.name in made:
            raise InvalidRequest(f"tools names {tool.name!r} twice", param=f"{param}.name")
        made[tool.name] = ToolSpec(
            name=tool.name,
            description=tool.description or "",
            parameters=tool.input_schema,
            strict=bool(tool.strict),
        )
    return tuple(made.values())


def to_choice(choice: AnthropicToolChoice | None, tools: Sequence[ToolSpec]) -> tuple[ToolChoice, bool]:
    """Whether the model must call a tool, and whether it may call several; raises `InvalidRequest`."""
    match choice:
        case None:
            return ToolChoice(), True
        case NoChoice():
            return ToolChoice(mode="none"), True
        case AutoChoice():
            made = ToolChoice()
        case AnyChoice():
            if not tools:
                raise InvalidRequest("tool_choice 'any' needs tools", param="tool_choice")
            made = ToolChoice(mode="required")
        case NamedChoice():
            if choice.name not in {tool.name for tool in tools}:
                offered = ", ".join(tool.name for tool in tools) or "none"
                raise InvalidRequest(
                    f"tool_choice names {choice.name!r}, which is not among the tools: {offered}",
                    param="tool_choice.name",
                )
            made = ToolChoice(mode="named", name=choice.name)
    return made, not choice.disable_parallel_tool_use


def hints(
    system: str | Sequence[TextBlock] | None, messages: Sequence[InputMessage], tools: Sequence[AnthropicTool] | None
) -> Iterator[str]:
    """Paths of what is accepted in blocks and tools and has no effect here."""
    if isinstance(system, list):
        yield from _block_hints(system, "system")
    for index, message in enumerate(messages):
        if isinstance(message.content, list):
            yield from _block_hints(message.content, f"messages[{index}].content")
    for index, tool in enumerate(tools or ()):
        for name in ("cache_control", "input_examples", "defer_loading", "eager_input_streaming", "allowed_callers"):
            if vars(tool)[name]:
                yield f"tools[{index}].{name}"


def _block_hints(blocks: Sequence[Wire], path: str) -> Iterator[str]:
    for index, block in enumerate(blocks):
        here = f"{path}[{index}]"
        if isinstance(block, ThinkingBlock | RedactedThinkingBlock):
            yield here
        if isinstance(block, Block) and block.cache_control is not None:
            yield f"{here}.cache_control"
        if isinstance(block, TextBlock | DocumentBlock | SearchResultBlock) and block.citations:
            yield f"{here}.citations"
        if isinstance(block, ToolResultBlock) and isinstance(block.content, list):
            yield from _block_hints(block.content, f"{here}.content")
