"""Llama Stack's two spellings of a tool's parameters <-> the house's `ToolSpec`.

Inference takes `{name: {param_type, ...}}`, agents and tool groups take `[{name, parameter_type, ...}]` or, in
the newer generation, a JSON Schema. Words of Python for types, which the classic examples use, are understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.inference import ToolChoice
from llamakit.api.limits import LIMITS
from llamakit.api.wire import FIRST, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec

LlamaStackPromptFormat = Literal["json", "function_tag", "python_list"]
"""How a model is told to write its calls; here that is the model's own way."""

_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "dict": "object",
    "none": "null",
}
_KNOWN = ("string", "integer", "number", "boolean", "array", "object", "null")
_BUILT_IN = {
    "brave_search": ("Search the web.", "query", "What to search for."),
    "wolfram_alpha": ("Ask a question of mathematics or of facts.", "query", "The question."),
    "photogen": ("Draw an image.", "query", "What the image shows."),
    "code_interpreter": ("Run Python code.", "code", "The code."),
}
"""Tools that a request may name without saying anything of them: what they do and their one parameter."""


class LlamaStackParameter(Wire):
    """A parameter of a tool offered to a model."""

    param_type: str
    """A type of JSON Schema, or of Python."""
    description: str | None = None
    required: bool | None = None
    """True when left out."""
    default: Any = None


class LlamaStackTool(Wire):
    """A tool offered to a model."""

    tool_name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, LlamaStackParameter] | None = None


LlamaStackTools = Annotated[list[LlamaStackTool], FIRST]


class LlamaStackToolConfig(Wire):
    """How tools are used."""

    tool_choice: str | None = None
    """`auto`, `required`, `none`, or the name of a tool."""
    tool_prompt_format: LlamaStackPromptFormat | None = None
    """A hint, set aside: a model is told of tools, and calls them, in its own format."""
    system_message_behavior: Literal["append", "replace"] | None = None
    """`append` (default): the system message goes with the tools' definitions. `replace` is refused."""


class LlamaStackToolParameter(Wire):
    """A parameter in a tool's definition."""

    name: str
    parameter_type: str
    description: str = ""
    required: bool = True
    default: Any = None


class LlamaStackToolDef(Wire):
    """The definition of a tool: what a tool group offers, or a client runs itself."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: Annotated[list[LlamaStackToolParameter], FIRST] | None = None
    input_schema: dict[str, Any] | None = None
    """The parameters as a JSON Schema of type object (newer generation)."""
    output_schema: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    toolgroup_id: str | None = None


def to_specs(tools: Sequence[LlamaStackTool] | None, param: str = "tools") -> tuple[ToolSpec, ...]:
    """The tools offered, in order; raises `InvalidRequest` for a name twice."""
    _check_names([tool.tool_name for tool in tools or ()], param)
    return tuple(_spec(tool, f"{param}[{index}]") for index, tool in enumerate(tools or ()))


def to_spec(tool: LlamaStackToolDef, param: str) -> ToolSpec:
    """The house's spec of a definition; raises `InvalidRequest` for a type that is none."""
    if tool.input_schema is not None:
        return ToolSpec(name=tool.name, description=tool.description or "", parameters=tool.input_schema)
    properties = {
        one.name: _property(one.parameter_type, one.description, one.default, f"{param}.parameters[{index}]")
        for index, one in enumerate(tool.parameters or ())
    }
    required = [one.name for one in tool.parameters or () if one.required]
    return ToolSpec(name=tool.name, description=tool.description or "", parameters=_schema(properties, required))


def from_spec(spec: ToolSpec, *, group: str | None = None) -> dict[str, Any]:
    """The definition of a tool for readers of either generation."""
    schema = spec.parameters or _schema({}, [])
    properties = schema.get("properties")
    required = schema.get("required") or ()
    parameters = [
        {
            "name": name,
            "parameter_type": _type_of(one),
            "description": str(one.get("description", "")) if isinstance(one, Mapping) else "",
            "required": name in required,
            "default": one.get("default") if isinstance(one, Mapping) else None,
        }
        for name, one in (properties.items() if isinstance(properties, Mapping) else ())
    ]
    return {
        "name": spec.name,
        "description": spec.description,
        "parameters": parameters,
        "input_schema": dict(schema),
        "metadata": None,
        "toolgroup_id": group,
    }


def to_choice(choice: str | None, config: LlamaStackToolConfig | None, specs: Sequence[ToolSpec]) -> ToolChoice:
    """Whether the model must call a tool, and which; raises `InvalidRequest` for one that is not offered."""
    if config is not None and config.system_message_behavior == "replace" and specs:
        raise InvalidRequest(
            "tool_config.system_message_behavior: with tools only 'append' is supported, because the model is told "
            "of them in its own format; write the system message without their definitions",
            param="tool_config.system_message_behavior",
        )
    param = "tool_choice"
    if config is not None and config.tool_choice is not None:
        if choice is not None and choice != config.tool_choice:
            raise InvalidRequest("tool_choice and tool_config.tool_choice differ; send one", param=param)
        choice, param = config.tool_choice, "tool_config.tool_choice"
    match choice:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice(mode="none")
        case "required":
            if not specs:
                raise InvalidRequest(f"{param} 'required' needs tools", param=param)
            return ToolChoice(mode="required")
    if choice not in {spec.name for spec in specs}:
        offered = ", ".join(spec.name for spec in specs) or "none"
        raise InvalidRequest(f"{param} names {found(choice)}, which is not among the tools: {offered}", param=param)
    return ToolChoice(mode="named", name=choice)


def _check_names(names: Sequence[str], param: str) -> None:
    if len(names) > LIMITS.tools:
        raise InvalidRequest(f"{param} holds {len(names)} tools, at most {LIMITS.tools}", param=param)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidRequest(f"{param} names {name!r} twice", param=f"{param}[{index}].tool_name")


def _spec(tool: LlamaStackTool, param: str) -> ToolSpec:
    if tool.parameters is None and tool.tool_name in _BUILT_IN:
        about, name, what = _BUILT_IN[tool.tool_name]
        schema = _schema({name: {"type": "string", "description": what}}, [name])
        return ToolSpec(name=tool.tool_name, description=tool.description or about, parameters=schema)
    properties = {
        name: _property(one.param_type, one.description or "", one.default, f"{param}.parameters.{name}")
        for name, one in (tool.parameters or {}).items()
    }
    required = [name for name, one in (tool.parameters or {}).items() if one.required is not False]
    return ToolSpec(name=tool.tool_name, description=tool.description or "", parameters=_schema(properties, required))


def _schema(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _property(kind: str, description: str, default: Any, param: str) -> dict[str, Any]:
    word = kind.partition("[")[0].strip().lower()
    word = _TYPES.get(word, word)
    if word not in _KNOWN:
        raise InvalidRequest(f"{param}: a type is one of {', '.join(_KNOWN)}, got {found(kind)}", param=param)
    made: dict[str, Any] = {"type": word}
    if description:
        made["description"] = description
    if default is not None:
        made["default"] = default
    return made


def _type_of(schema: Any) -> str:
    """The word for a property's type; what is none of one type is an object to readers who know no better."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    return kind if isinstance(kind, str) else "object"
