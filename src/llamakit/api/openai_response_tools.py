"""The tools of OpenAI's Responses on the wire, and what a model is told of those that the client runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.hosted_tools import HostedKind
from llamakit.api.limits import LIMITS
from llamakit.api.openai_custom_tools import CustomFormat, CustomGrammar
from llamakit.api.openai_hosted_tools import (
    Callers,
    CodeInterpreterTool,
    FileSearchTool,
    McpServerTool,
    WebSearchTool,
)
from llamakit.api.openai_machine_tools import (
    ApplyPatchTool,
    ComputerPreviewTool,
    ComputerTool,
    ImageGenerationTool,
    LocalShellTool,
    ProgrammaticTool,
    ShellTool,
)
from llamakit.api.openai_messages import ToolName
from llamakit.api.wire import FIRST, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec

JOINT = "__"
"""Between a namespace and the name of a function in it, as a model sees them."""


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
    """True: the model sees it once a `tool_search` found it."""
    output_schema: dict[str, Any] | None = None
    """What it gives; told to nobody."""


class ResponseCustomTool(Wire):
    """A free-form tool that the client runs; a model here calls it with one text."""

    type: Literal["custom"]
    name: ToolName
    description: str | None = None
    format: CustomFormat | None = None
    """What the text must look like: a regular expression is enforced, a grammar is told to the model."""
    allowed_callers: Callers | None = None
    async_: bool | None = Field(default=None, alias="async")
    defer_loading: bool | None = None


class NamespaceTool(Wire):
    """Functions under one name."""

    type: Literal["namespace"]
    name: ToolName
    description: str
    tools: Annotated[
        list[Annotated[ResponseFunctionTool | ResponseCustomTool, Field(discriminator="type")]], FIRST
    ]  # fmt: skip


class ToolSearchTool(Wire):
    """A search for tools whose loading is deferred, by this server or by the client."""

    type: Literal["tool_search"]
    description: str | None = None
    """What the model is told of the client's search."""
    execution: Literal["server", "client"] | None = None
    parameters: dict[str, Any] | None = None
    """What the client's search takes: JSON Schema of type object."""


ResponseTool = Annotated[
    ResponseFunctionTool
    | ResponseCustomTool
    | NamespaceTool
    | ToolSearchTool
    | FileSearchTool
    | WebSearchTool
    | CodeInterpreterTool
    | McpServerTool
    | ShellTool
    | LocalShellTool
    | ApplyPatchTool
    | ComputerTool
    | ComputerPreviewTool
    | ImageGenerationTool
    | ProgrammaticTool,
    Field(discriminator="type"),
]
ResponseTools = Annotated[list[ResponseTool], FIRST]
ClientFunction = ResponseFunctionTool | ResponseCustomTool

_SECRETS = ("authorization", "headers")


def kind_of(tool: Wire) -> HostedKind | None:
    """The kind of a tool that a provider of this server runs; None for one of the client's."""
    match tool:
        case FileSearchTool():
            return "file_search"
        case WebSearchTool():
            return "web_search"
        case CodeInterpreterTool():
            return "code_interpreter"
        case McpServerTool():
            return "mcp"
        case ImageGenerationTool():
            return "image_generation"
        case ShellTool() if tool.environment is not None and tool.environment.type != "local":
            return "shell"
    return None


def functions_of(tool: Wire) -> Iterator[tuple[str, ClientFunction, str | None]]:
    """The client's functions of a tool: as a model knows each, the function, and its namespace."""
    match tool:
        case ResponseFunctionTool() | ResponseCustomTool():
            yield tool.name, tool, None
        case NamespaceTool():
            for each in tool.tools:
                yield seen_name(each.name, tool.name), each, tool.name


def seen_name(name: str, namespace: str | None) -> str:
    """The name by which a model knows a function."""
    return name if namespace is None else f"{namespace}{JOINT}{name}"


def spec_of(tool: ClientFunction, name: str) -> ToolSpec:
    """What the model is told of a client's function."""
    if isinstance(tool, ResponseFunctionTool):
        return ToolSpec(
            name=name,
            description=tool.description or "",
            parameters=tool.parameters or {},
            strict=bool(tool.strict),
        )
    text: dict[str, Any] = {"type": "string"}
    wanted, is_strict = "", False
    if isinstance(tool.format, CustomGrammar):
        wanted = f"\nThe input follows this format: {json.dumps(tool.format.model_dump())}"
        if tool.format.syntax == "regex":
            # The whole text has to match; a schema's pattern matches anywhere.
            text["pattern"], is_strict = f"^(?:{_unanchored(tool.format.definition)})$", True
    schema = {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
    described = f"{tool.description or ''}{wanted}".strip()
    return ToolSpec(name=name, description=described, parameters=schema, strict=is_strict)


def _unanchored(regex: str) -> str:
    """A regular expression without the anchors of a whole text."""
    inner = regex.removeprefix("^")
    before = inner.removesuffix("$")
    is_escaped = (len(before) - len(before.rstrip("\\"))) % 2 == 1
    return inner if is_escaped else before


def shown(tool: Wire) -> dict[str, Any]:
    """A tool as a response shows it: a function with every field, and no secret of anybody."""
    body = tool.model_dump(exclude_none=True, by_alias=True)
    if isinstance(tool, ResponseFunctionTool):
        body = {"description": None, "parameters": None, "strict": False} | body
    return _without_secrets(body)


def _without_secrets(value: Any) -> Any:
    """The value without credentials, and with stars for the secrets of a container's domains."""
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = dict(value)
    if made.get("type") == "mcp":
        made = {name: one for name, one in made.items() if name not in _SECRETS}
    for name in ("environment", "container", "network_policy"):
        if isinstance(made.get(name), dict):
            made[name] = _without_secrets(made[name])
    if made.get("type") == "allowlist" and "domain_secrets" in made:
        made["domain_secrets"] = [one | {"value": "***"} for one in made["domain_secrets"]]
    return made


def check_number(tools: Sequence[Wire]) -> None:
    """Refuse more tools than one chat may have."""
    if len(tools) > LIMITS.tools:
        raise InvalidRequest(f"tools holds {len(tools)} tools, at most {LIMITS.tools}", param="tools")


def tools_body(tools: Sequence[Wire]) -> list[dict[str, Any]]:
    """The tools as a response shows them."""
    return [shown(tool) for tool in tools]
