"""Tool calls of the conversation so far, written the way the model writes them; `reading` is the inverse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolCall
from llamakit.text.calls.literals import MAX_DEPTH, to_json, write_literal


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The call's arguments as an object; InvalidRequest where its JSON text is not one."""
    if not call.arguments.strip():
        return {}
    try:
        value = json.loads(call.arguments, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise _bad_arguments(call, str(fault)) from None
    if not isinstance(value, dict):
        raise _bad_arguments(call, f"found {type(value).__name__}")
    if _depth(value) > MAX_DEPTH:
        raise _bad_arguments(call, f"nested deeper than {MAX_DEPTH}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _bad_arguments(call: ToolCall, found: str) -> InvalidRequest:
    return InvalidRequest(
        f"the arguments of tool call {call.name!r} must be the JSON text of one object: {found}", param="messages"
    )


def _depth(value: Any) -> int:
    """Nesting of a JSON value, without recursion; stops counting just above the limit."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return depth


def write_json_calls(calls: Sequence[ToolCall], *, typed: bool) -> str:
    """`{"type": "function", "name": ..., "parameters": {...}}`, several joined by "; "."""
    head = {"type": "function"} if typed else {}
    return "; ".join(to_json({**head, "name": call.name, "parameters": arguments_of(call)}) for call in calls)


def write_tagged_calls(calls: Sequence[ToolCall]) -> str:
    """`<function=name>{...}</function>`, one after the other."""
    return "".join(f"<function={call.name}>{to_json(arguments_of(call))}</function>" for call in calls)


def write_python_list(calls: Sequence[ToolCall]) -> str:
    """`[name(key="value"), ...]`."""
    return "[" + ", ".join(f"{call.name}({_keywords(arguments_of(call))})" for call in calls) + "]"


def write_builtin_call(call: ToolCall) -> str:
    """`name.call(query="...")`, or the bare source for the code interpreter."""
    arguments = arguments_of(call)
    if call.name == "code_interpreter" and isinstance(arguments.get("code"), str):
        return arguments["code"]
    return f"{call.name}.call({_keywords(arguments)})"


def _keywords(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={write_literal(value)}" for key, value in arguments.items())
