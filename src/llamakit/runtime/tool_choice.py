"""Forced and strict tool calls: a constraint under which the model can only write a call that fits.

The call keeps the style the model was prompted for, because a small model asked for one notation and
held to another writes poor values. Knows JSON Schema only as far as the Python-list notation needs;
everything else is left to the constraint compiler's own JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec
from llamakit.core.sampling import Constraint
from llamakit.runtime.ask import Ask, NamedTool
from llamakit.text.formats.format import ToolStyle
from llamakit.text.specials import PYTHON_TAG

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}")
_STRINGS = (r'/"([^"\\\n]|\\.)*"/', r"/'([^'\\\n]|\\.)*'/")
_BEYOND_STRINGS = {"pattern", "format"}
"""What a text must be beside text; JSON writes such a one as Python does, and its schema knows how."""
_SCALARS = {
    "integer": r"/-?(0|[1-9][0-9]{0,17})/",
    "number": r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?/",
    "boolean": '("True" | "False")',
    "null": '"None"',
}


def tool_constraint(ask: Ask, style: ToolStyle, *, python_tag: bool = False) -> Constraint | None:
    """What the answer must match so that the asked-for calls happen; None where the model is free.

    `python_tag`: the vocabulary has that control token, with which models of Llama 3.2 may open a list of calls.
    """
    if not ask.tools or ask.tool_choice == "none":
        return None
    opener = f"{PYTHON_TAG}? " if python_tag else ""
    if isinstance(ask.tool_choice, NamedTool):
        forced: Sequence[ToolSpec] = [tool for tool in ask.tools if tool.name == ask.tool_choice.name]
    elif ask.tool_choice == "required":
        forced = ask.tools
    else:
        return _free_or_strict(ask, style, opener) if _has_strict(ask.tools) else None
    if style == "python_list":
        rules = _python_list(forced, ask.parallel_tool_calls)
        return Constraint(kind="grammar", source=f"start: {opener}list\n{rules}")
    if style == "function_tag":
        return Constraint(kind="grammar", source="start: tags\n" + _function_tags(forced, ask.parallel_tool_calls))
    return Constraint(kind="json_schema", source=json.dumps(_json_call(forced)))


def _has_strict(tools: Sequence[ToolSpec]) -> bool:
    return any(tool.strict for tool in tools)


def _free_or_strict(ask: Ask, style: ToolStyle, opener: str) -> Constraint:
    """Plain text, or calls that fit: what opens like a call has to be one."""
    tools, parallel = ask.tools, ask.parallel_tool_calls
    if style == "python_list":
        rules = _python_list(tools, parallel)
        return Constraint(kind="grammar", source=f"start: {opener}list | /[^\\[](.|\\n)*/\n{rules}")
    if style == "function_tag":
        return Constraint(kind="grammar", source="start: tags | /[^<](.|\\n)*/\n" + _function_tags(tools, parallel))
    schema = json.dumps(_json_call(tools))
    return Constraint(kind="grammar", source=f"start: call | /[^{{](.|\\n)*/\ncall: %json {schema}\n")


def _json_call(tools: Sequence[ToolSpec]) -> dict[str, Any]:
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "parameters": _object_schema(tool)},
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _object_schema(tool: ToolSpec) -> Mapping[str, Any]:
    return (
        {"additionalProperties": False, **tool.parameters, "type": "object"} if tool.parameters else {"type": "object"}
    )


def _function_tags(tools: Sequence[ToolSpec], parallel: bool) -> str:
    more = ' ("\\n" tag)*' if parallel else ""
    rules = [f"tags: tag{more}", "tag: " + " | ".join(f"t{i}" for i in range(len(tools)))]
    for i, tool in enumerate(tools):
        open_tag, schema = json.dumps(f"<function={tool.name}>"), json.dumps(_object_schema(tool))
        rules += [f't{i}: {open_tag} b{i} "</function>"', f"b{i}: %json {schema}"]
    return "\n".join(rules) + "\n"


def _python_list(tools: Sequence[ToolSpec], parallel: bool) -> str:
    """Lark rules for `[name(arg='x', n=2)]`: required arguments first, in schema order, then optional ones."""
    more = ' (", " call)*' if parallel else ""
    rules = [f'list: "[" call{more} "]"', "call: " + " | ".join(f"t{i}" for i in range(len(tools)))]
    for i, tool in enumerate(tools):
        rules += _python_call(f"t{i}", tool)
    return "\n".join(rules) + "\n"


def _python_call(rule: str, tool: ToolSpec) -> list[str]:
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    required = [name for name in properties if name in set(tool.parameters.get("required") or ())]
    optional = [name for name in properties if name not in required]
    for name in (tool.name, *properties):
        if not _IDENTIFIER.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} cannot be called in the model's notation; use letters, digits, _", param="tools"
            )
    arguments = {name: f"{rule}_{place}" for place, name in enumerate([*required, *optional])}
    rules = [f"{arguments[name]}: {json.dumps(name + '=')} {_value(properties[name])}" for name in arguments]
    head = ' ", " '.join(arguments[name] for name in required)
    # Optional arguments keep schema order; each may be absent, and commas stand only between those present.
    if required:
        tail = " ".join(f'(", " {arguments[name]})?' for name in optional)
        body = f"{head} {tail}".strip()
    else:
        starts = [
            " ".join([arguments[name], *(f'(", " {arguments[later]})?' for later in optional[place + 1 :])])
            for place, name in enumerate(optional)
        ]
        body = f"({' | '.join(starts)})?" if starts else ""
    rules.insert(0, f'{rule}: {json.dumps(tool.name + "(")} {body} ")"')
    return rules


def _value(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "%json {}"
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        spellings = [spelling for value in values for spelling in _python_literals(value)]
        return "(" + " | ".join(json.dumps(spelling) for spelling in spellings) + ")"
    kind = schema.get("type")
    if kind == "string" and not _BEYOND_STRINGS & schema.keys():
        return "(" + " | ".join(_STRINGS) + ")"
    if isinstance(kind, str) and kind in _SCALARS:
        return _SCALARS[kind]
    return "%json " + json.dumps(dict(schema))


def _python_literals(value: Any) -> list[str]:
    """The ways to write a value: strings in either quotes."""
    if value is None or isinstance(value, bool):
        return [str(value)]
    if isinstance(value, str):
        single = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return [json.dumps(value, ensure_ascii=False), f"'{single}'"]
    return [json.dumps(value)]
