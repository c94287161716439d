"""One finished piece of text that looks like tool calls, read into calls; `writing` is the inverse.

Dialects: JSON objects (alone or in an array), the body of `<function=name>{...}`, Python lists of calls,
and `name.call(...)`. Every function is total: what is no call gives None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from llamakit.core.messages import ToolSpec
from llamakit.text.calls.literals import LiteralFault, read_literal, skip_space, to_json

SEARCH_TOOLS: Final = ("brave_search", "wolfram_alpha", "photogen")
CODE_TOOL: Final = "code_interpreter"

CALL_NAME: Final = re.compile(r"[^\W\d][\w.\-]*")
_KEYWORD = re.compile(r"([^\W\d]\w*)\s*=(?!=)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call as read: `arguments` is JSON text of one object."""

    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolbox:
    """The tools a conversation offers, as far as reading calls needs them."""

    tools: Mapping[str, ToolSpec]
    builtin: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Every name that is certainly a tool's."""
        return frozenset(self.tools) | self.builtin

    @property
    def is_empty(self) -> bool:
        """Whether no tool is offered."""
        return not self.tools and not self.builtin

    def resolve(self, name: str) -> str:
        """`name` without the `.call` of the built-in dialect."""
        return name if name in self.tools else name.removesuffix(".call")

    def call(self, name: str, arguments: dict[str, Any]) -> Call:
        """A call of `name`; a built-in search tool gets its one argument under the name it knows."""
        if name not in self.tools and len(arguments) == 1:
            wanted = "code" if name == CODE_TOOL else "query" if name in SEARCH_TOOLS else next(iter(arguments))
            arguments = {wanted: next(iter(arguments.values()))}
        return Call(name=name, arguments=to_json(arguments))


def toolbox(tools: Sequence[ToolSpec], builtin: Sequence[str] = ()) -> Toolbox:
    """What is offered, by name."""
    return Toolbox(tools={tool.name: tool for tool in tools}, builtin=frozenset(builtin))


def parameter_schemas(tool: ToolSpec) -> dict[str, Mapping[str, Any]]:
    """Schema of each named parameter, in the order in which the tool lists them."""
    properties = tool.parameters.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {str(name): schema if isinstance(schema, Mapping) else {} for name, schema in properties.items()}


BodyKind = Literal["value", "list", "tag", "call"]


def read_calls(kind: BodyKind, name: str, body: str, box: Toolbox, *, any_name: bool) -> list[Call] | None:
    """The calls in `body`, which begins with a bracket; `name` is what stood before it, if anything.

    `any_name`: names outside the toolbox count too, because a marker said that this is a call.
    """
    try:
        match kind:
            case "value":
                return _from_value(read_literal(body)[0], box)
            case "tag":
                value, _ = read_literal(body)
                return [box.call(name, value)] if isinstance(value, dict) else None
            case "call":
                return [_named_call(box.resolve(name), body, 0, box)[0]]
            case "list":
                return _call_list(body, box, any_name=any_name)
    except LiteralFault:
        return None


def _from_value(value: Any, box: Toolbox) -> list[Call] | None:
    objects = value if isinstance(value, list) else [value]
    calls = [_from_object(item, box) for item in objects]
    found = [call for call in calls if call is not None]
    return found if found and len(found) == len(calls) else None


def _from_object(value: Any, box: Toolbox) -> Call | None:
    """A call from one JSON object; models write several forms of it."""
    if not isinstance(value, dict):
        return None
    function = value.get("function")
    if isinstance(function, dict):
        value = function
    name = value.get("name", function)
    arguments = value.get("parameters", value.get("arguments"))
    if isinstance(arguments, str):
        arguments = _embedded_object(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return box.call(name, arguments)


def _embedded_object(text: str) -> Any:
    """OpenAI's wire form: the arguments are JSON text inside a string."""
    value, end = read_literal(text)
    return value if skip_space(text, end) == len(text) else None


def _call_list(body: str, box: Toolbox, *, any_name: bool) -> list[Call] | None:
    calls: list[Call] = []
    at = skip_space(body, 1)
    while not body.startswith("]", at):
        found = CALL_NAME.match(body, at)
        if not found:
            raise LiteralFault(f"wanted a call at {at}")
        name = box.resolve(found.group())
        if not any_name and name not in box.names:
            return None
        call, at = _named_call(name, body, skip_space(body, found.end()), box)
        calls.append(call)
        at = _next_item(body, at, "]")
    return calls or None


def _named_call(name: str, body: str, at: int, box: Toolbox) -> tuple[Call, int]:
    """The call of `name` whose `(` stands at `at`, and the place after its `)`."""
    if not body.startswith("(", at):
        raise LiteralFault(f"wanted '(' at {at}")
    tool = box.tools.get(name)
    places = list(parameter_schemas(tool)) if tool else ["query"] if name in SEARCH_TOOLS else []
    arguments: dict[str, Any] = {}
    num_positional = 0
    at = skip_space(body, at + 1)
    while not body.startswith(")", at):
        keyword = _KEYWORD.match(body, at)
        if keyword:
            key, at = keyword.group(1), keyword.end()
        elif num_positional < len(places):
            key, num_positional = places[num_positional], num_positional + 1
        else:
            raise LiteralFault(f"{name} has no parameter at place {num_positional + 1}")
        arguments[key], at = read_literal(body, at)
        at = _next_item(body, at, ")")
    return box.call(name, arguments), at + 1


def _next_item(body: str, at: int, close: str) -> int:
    at = skip_space(body, at)
    if body.startswith(",", at):
        return skip_space(body, at + 1)
    if body.startswith(close, at):
        return at
    raise LiteralFault(f"wanted ',' or {close!r} at {at}")
