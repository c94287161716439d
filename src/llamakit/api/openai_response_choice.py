"""Which of its tools a model must call, as OpenAI's Responses say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.inference import ToolChoice
from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT, ToolName
from llamakit.api.wire import FIRST, TEXT, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec


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
    """The model must use this tool."""

    type: Literal[
        "file_search",
        "web_search",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "code_interpreter",
        "image_generation",
        "computer",
        "computer_use",
        "computer_use_preview",
        "shell",
        "local_shell",
        "apply_patch",
        "tool_search",
        "programmatic_tool_calling",
    ]


ResponseToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], TEXT]
    | Annotated[
        Annotated[ChooseFunction | ChooseCustom | ChooseMcp | ChooseAmong | ChooseKind, Field(discriminator="type")],
        OBJECT,
    ],
    WORD_OR_OBJECT,
]


def choice_body(choice: str | Wire | None) -> str | dict[str, Any]:
    """The choice as a response shows it."""
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.model_dump(exclude_none=True)


def choose(
    choice: str | Wire | None, specs: Sequence[ToolSpec], kinds: Mapping[str, str], names: Mapping[str, str]
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """The tools the model sees and whether it must call one.

    By the names that the model knows, `kinds` tells the kind, or the label, of each, and `names` what the client
    calls it. Raises `InvalidRequest` for a tool that is not offered.
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
            return every, ToolChoice(mode="named", name=_named(choice.name, every, names, param))
        case ChooseMcp(name=str(name)):
            return every, ToolChoice(mode="named", name=_named(name, every, names, param))
        case ChooseMcp():
            return _of_kind(f"mcp {choice.server_label}", every, kinds, param), ToolChoice(mode="required")
        case ChooseKind():
            return _of_kind(_kind(choice.type), every, kinds, param), ToolChoice(mode="required")
        case ChooseAmong():
            return _among(choice, every, kinds, names, param), ToolChoice(mode=choice.mode)
    raise InvalidRequest(f"{param} must be a word or a tool, got {found(choice)}", param=param)


def _kind(word: str) -> str:
    """The kind that a type of tool means: some have had several names."""
    if word.startswith("web_search"):
        return "web_search"
    return "computer" if word.startswith("computer") else word


def _named(name: str, specs: Sequence[ToolSpec], names: Mapping[str, str], param: str) -> str:
    """The name by which the model knows the tool that a client calls `name`."""
    for spec in specs:
        if spec.name == name or names.get(spec.name) == name:
            return spec.name
    offered = ", ".join(spec.name for spec in specs) or "none"
    raise InvalidRequest(f"{param} names {name!r}, which is not among the tools: {offered}", param=param)


def _of_kind(wanted: str, specs: Sequence[ToolSpec], kinds: Mapping[str, str], param: str) -> tuple[ToolSpec, ...]:
    kept = tuple(spec for spec in specs if _kind(kinds.get(spec.name, "")) == wanted)
    if not kept:
        raise InvalidRequest(f"{param} names {wanted!r}, which is not among the tools", param=param)
    return kept


def _among(
    choice: ChooseAmong,
    specs: tuple[ToolSpec, ...],
    kinds: Mapping[str, str],
    names: Mapping[str, str],
    param: str,
) -> tuple[ToolSpec, ...]:
    param = f"{param}.tools"
    kept: set[str] = set()
    for entry in choice.tools:
        name, kind = entry.get("name"), entry.get("type")
        if isinstance(name, str):
            kept.add(_named(name, specs, names, param))
        elif isinstance(kind, str):
            wanted = f"mcp {entry.get('server_label')}" if kind == "mcp" else _kind(kind)
            kept |= {spec.name for spec in _of_kind(wanted, specs, kinds, param)}
        else:
            raise InvalidRequest(f"{param} must name tools, got {found(entry)}", param=param)
    if not kept:
        raise InvalidRequest(f"{param} must name at least one tool", param=param)
    return tuple(spec for spec in specs if spec.name in kept)
