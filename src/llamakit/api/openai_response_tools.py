"""The tools of OpenAI's Responses on the wire, and which of them a model must call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.hosted_tools import HostedKind
from llamakit.api.inference import ToolChoice
from llamakit.api.limits import LIMITS
from llamakit.api.openai_hosted_tools import (
    Callers,
    CodeInterpreterTool,
    FileSearchTool,
    McpServerTool,
    WebSearchTool,
)
from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT, ToolName
from llamakit.api.wire import FIRST, TEXT, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec


class ResponseFunctionTool(Wire):
    """A function that the client runs."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of type object; absent means no arguments."""
    strict: bool | None = None
    """True: the arguments follow the schema exactly."""
    allowed_callers: Callers | None = None
    async_: bool | None = Field(default=None, alias="async")
    defer_loading: bool | None = None
    output_schema: dict[str, Any] | None = None


class ResponseCustomTool(Wire):
    """A free-form tool that the client runs; a model here calls it with one text."""

    type: Literal["custom"]
    name: ToolName
    description: str | None = None
    format: dict[str, Any] | None = None
    """What the text must look like; told to the model, not enforced."""
    allowed_callers: Callers | None = None
    async_: bool | None = Field(default=None, alias="async")
    defer_loading: bool | None = None


ResponseTool = Annotated[
    ResponseFunctionTool | ResponseCustomTool | FileSearchTool | WebSearchTool | CodeInterpreterTool | McpServerTool,
    Field(discriminator="type"),
]
ResponseTools = Annotated[list[ResponseTool], FIRST]


class ChooseFunction(Wire):
    """The model must call this function."""

    type: Literal["function"]
    name: ToolName


class ChooseCustom(Wire):
    """The model must call this free-form tool."""

    type: Literal["custom"]
    name: ToolName


class ChooseMcp(Wire):
    """The model must call a tool of this MCP server."""

    type: Literal["mcp"]
    server_label: str
    name: str | None = None


class ChooseAmong(Wire):
    """The model may use only these of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[dict[str, Any]], FIRST]


class ChooseKind(Wire):
    """The model must use this tool of the server."""

    type: Literal[
        "file_search", "web_search", "web_search_preview", "web_search_preview_2025_03_11", "code_interpreter"
    ]


ResponseToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], TEXT]
    | Annotated[
        Annotated[ChooseFunction | ChooseCustom | ChooseMcp | ChooseAmong | ChooseKind, Field(discriminator="type")],
        OBJECT,
    ],
    WORD_OR_OBJECT,
]

_CUSTOM_SCHEMA = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
_SECRETS = ("authorization", "headers")


def kind_of(tool: Wire) -> HostedKind | None:
    """The kind of a tool that the server runs; None for one that the client runs."""
    match tool:
        case FileSearchTool():
            return "file_search"
        case WebSearchTool():
            return "web_search"
        case CodeInterpreterTool():
            return "code_interpreter"
        case McpServerTool():
            return "mcp"
    return None


def spec_of(tool: ResponseFunctionTool | ResponseCustomTool) -> ToolSpec:
    """What the model is told of a client's tool."""
    if isinstance(tool, ResponseFunctionTool):
        return ToolSpec(
            name=tool.name,
            description=tool.description or "",
            parameters=tool.parameters or {},
            strict=bool(tool.strict),
        )
    wanted = f"\nThe input follows this format: {json.dumps(tool.format)}" if tool.format else ""
    return ToolSpec(name=tool.name, description=f"{tool.description or ''}{wanted}".strip(), parameters=_CUSTOM_SCHEMA)


def check_number(tools: Sequence[Wire]) -> None:
    """Refuse more tools than one chat may have."""
    if len(tools) > LIMITS.tools:
        raise InvalidRequest(f"tools holds {len(tools)} tools, at most {LIMITS.tools}", param="tools")


def tools_body(tools: Sequence[Wire]) -> list[dict[str, Any]]:
    """The tools as a response shows them: functions with every field, and no secret of anybody."""
    made = []
    for tool in tools:
        body = tool.model_dump(exclude_none=True, by_alias=True)
        if isinstance(tool, ResponseFunctionTool):
            body = {"description": None, "parameters": None, "strict": False} | body
        made.append({name: value for name, value in body.items() if name not in _SECRETS})
    return made


def choice_body(choice: str | Wire | None) -> str | dict[str, Any]:
    """The choice as a response shows it."""
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.model_dump(exclude_none=True)


def choose(
    choice: str | Wire | None, specs: Sequence[ToolSpec], kinds: Mapping[str, str]
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """The tools the model sees and whether it must call one; `kinds` tells the kind, or the label, of each name.

    Raises `InvalidRequest` for a tool that is not offered.
    """
    param = "tool_choice"
    every = tuple(specs)
    match choice:
        case None | "auto":
            return every, ToolChoice()
        case "none":
            return every, ToolChoice(mode="none")
        case "required":
            if not every:
                raise InvalidRequest(f"{param} 'required' needs tools", param=param)
            return every, ToolChoice(mode="required")
        case ChooseFunction() | ChooseCustom():
            return every, _named(choice.name, every, param)
        case ChooseMcp(name=str(name)):
            return every, _named(name, every, param)
        case ChooseMcp():
            return _of_kind(f"mcp {choice.server_label}", every, kinds, param), ToolChoice(mode="required")
        case ChooseKind():
            wanted = "web_search" if choice.type.startswith("web_search") else choice.type
            return _of_kind(wanted, every, kinds, param), ToolChoice(mode="required")
        case ChooseAmong():
            return _among(choice, every, kinds, param), ToolChoice(mode=choice.mode)
    raise InvalidRequest(f"{param} must be a word or a tool, got {found(choice)}", param=param)


def _named(name: str, specs: Sequence[ToolSpec], param: str) -> ToolChoice:
    if name not in {spec.name for spec in specs}:
        offered = ", ".join(spec.name for spec in specs) or "none"
        raise InvalidRequest(f"{param} names {name!r}, which is not among the tools: {offered}", param=param)
    return ToolChoice(mode="named", name=name)


def _of_kind(wanted: str, specs: Sequence[ToolSpec], kinds: Mapping[str, str], param: str) -> tuple[ToolSpec, ...]:
    kept = tuple(spec for spec in specs if kinds.get(spec.name) == wanted)
    if not kept:
        raise InvalidRequest(f"{param} names {wanted!r}, which is not among the tools", param=param)
    return kept


def _among(
    choice: ChooseAmong, specs: tuple[ToolSpec, ...], kinds: Mapping[str, str], param: str
) -> tuple[ToolSpec, ...]:
    param = f"{param}.tools"
    kept: set[str] = set()
    for entry in choice.tools:
        name, kind = entry.get("name"), entry.get("type")
        if isinstance(name, str):
            _named(name, specs, param)
            kept.add(name)
        elif isinstance(kind, str):
            label = entry.get("server_label")
            wanted = f"mcp {label}" if kind == "mcp" else "web_search" if kind.startswith("web_search") else kind
            kept |= {spec.name for spec in _of_kind(wanted, specs, kinds, param)}
        else:
            raise InvalidRequest(f"{param} must name tools, got {found(entry)}", param=param)
    if not kept:
        raise InvalidRequest(f"{param} must name at least one tool", param=param)
    return tuple(spec for spec in specs if spec.name in kept)
