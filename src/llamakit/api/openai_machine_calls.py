"""Calls of the tools that work on a machine: what a model is told of each, and arguments <-> fields of its item.

To a model they are functions like any other. On the wire each has an item of its own kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llamakit.api.openai_machine_items import LocalShellAction, PatchOperation, ScreenAction, ShellAction
from llamakit.api.openai_machine_tools import (
    ApplyPatchTool,
    ComputerPreviewTool,
    ComputerTool,
    LocalEnvironment,
    LocalShellTool,
    ShellTool,
)
from llamakit.api.wire import Wire
from llamakit.core.messages import ToolSpec

_NUMBER = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "array", "items": {"type": "string"}}
SHELL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "commands": {**_TEXTS, "minItems": 1, "description": "Run one after the other, each by a shell of its own"},
        "timeout_ms": {**_NUMBER, "description": "For all of them together"},
        "max_output_length": {**_NUMBER, "description": "Characters of output to keep"},
    },
    "required": ["commands"],
    "additionalProperties": False,
}
_LOCAL_SHELL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "command": {**_TEXTS, "minItems": 1, "description": "The program and its arguments"},
        "env": {"type": "object", "additionalProperties": {"type": "string"}},
        "timeout_ms": _NUMBER,
        "working_directory": {"type": "string"},
    },
    "required": ["command"],
    "additionalProperties": False,
}
_PATCH_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"enum": ["create_file", "update_file", "delete_file"]},
        "path": {"type": "string", "description": "Relative to the workspace"},
        "diff": {"type": "string", "description": "Unified diff; left out to delete"},
    },
    "required": ["type", "path"],
    "additionalProperties": False,
}
_WHOLE = {"type": "integer"}
_ACTION_FIELDS: Mapping[str, Any] = {
    "x": _WHOLE,
    "y": _WHOLE,
    "scroll_x": _WHOLE,
    "scroll_y": _WHOLE,
    "button": {"enum": ["left", "right", "wheel", "back", "forward"]},
    "text": {"type": "string"},
    "keys": _TEXTS,
    "path": {
        "type": "array",
        "items": {"type": "object", "properties": {"x": _WHOLE, "y": _WHOLE}, "required": ["x", "y"]},
    },
}
_ACTIONS: Mapping[str, Sequence[str]] = {
    "screenshot": (),
    "click": ("button", "x", "y"),
    "double_click": ("x", "y"),
    "drag": ("path",),
    "keypress": ("keys",),
    "move": ("x", "y"),
    "scroll": ("x", "y", "scroll_x", "scroll_y"),
    "type": ("text",),
    "wait": (),
}
_ACTION_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"type": {"const": kind}, **{name: _ACTION_FIELDS[name] for name in names}},
            "required": ["type", *names],
            "additionalProperties": False,
        }
        for kind, names in _ACTIONS.items()
    ]
}


def machine_spec(tool: Wire) -> ToolSpec | None:
    """What a model is told of a tool that the client runs on a machine; None for any other tool."""
    match tool:
        case ShellTool():
            skills = tool.environment.skills or () if isinstance(tool.environment, LocalEnvironment) else ()
            known = "".join(f"\nSkill {one.name} (in {one.path}): {one.description}" for one in skills)
            return _spec(
                "shell", f"Run shell commands on the user's machine and see what they print.{known}", SHELL_SCHEMA
            )
        case LocalShellTool():
            return _spec("local_shell", "Run a command on the user's machine.", _LOCAL_SHELL_SCHEMA)
        case ApplyPatchTool():
            return _spec("apply_patch", "Create, change or delete a file by a unified diff.", _PATCH_SCHEMA)
        case ComputerTool():
            actions = {"actions": {"type": "array", "items": _ACTION_SCHEMA, "minItems": 1}}
            return _spec("computer", "Use a computer's screen, mouse and keyboard.", _object(actions))
        case ComputerPreviewTool():
            size = f"{tool.display_width} x {tool.display_height} pixels"
            about = f"Use a computer ({tool.environment}) with a screen of {size}, one action at a time."
            return _spec("computer", about, _object({"action": _ACTION_SCHEMA}))
    return None


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _spec(name: str, description: str, schema: dict[str, Any]) -> ToolSpec:
    return ToolSpec(name=name, description=description, parameters=schema, strict=True)


def fields_of(kind: str, arguments: str) -> dict[str, Any] | None:
    """The fields that the item of a call has, of what a model wrote; None where that makes no such call."""
    try:
        value = json.loads(arguments)
        match kind:
            case "shell":
                return {"action": _as(ShellAction, value)}
            case "local_shell":
                return {"action": _as(LocalShellAction, {"type": "exec", "env": {}, **value})}
            case "apply_patch":
                return {"operation": _as(PatchOperation, value)}
            case "computer":
                return {"actions": [_as(ScreenAction, one) for one in value["actions"]], "pending_safety_checks": []}
            case "computer_use_preview":
                return {"action": _as(ScreenAction, value["action"]), "pending_safety_checks": []}
            case "tool_search":
                return {"arguments": value} if isinstance(value, dict) else None
    except (ValueError, RecursionError, TypeError, KeyError, ValidationError):
        return None
    return None


def _as(kind: type[Wire], value: Any) -> dict[str, Any]:
    return kind.model_validate(value).model_dump(exclude_none=True)


def arguments_of_call(body: Mapping[str, Any]) -> str:
    """The reverse: the arguments with which a model made the call of an item."""
    match body["type"]:
        case "shell_call":
            value = body["action"]
        case "local_shell_call":
            value = {name: one for name, one in body["action"].items() if name != "type" and one != {}}
        case "apply_patch_call":
            value = body["operation"]
        case "computer_call":
            value = {"actions": body["actions"]} if body.get("actions") else {"action": body.get("action")}
        case "tool_search_call":
            value = body["arguments"]
        case _:
            value = {"code": body["code"]}
    return json.dumps(value, ensure_ascii=False)


def shell_text(output: Sequence[Mapping[str, Any]]) -> str:
    """What commands printed and how they ended, as a model reads it."""
    made = []
    for one in output:
        outcome = one["outcome"]
        end = "timed out" if outcome["type"] == "timeout" else f"exit code {outcome.get('exit_code')}"
        printed = (one["stdout"].rstrip("\n"), one["stderr"].rstrip("\n"))
        made.append("\n".join([*(text for text in printed if text), f"[{end}]"]))
    return "\n".join(made) or "[no command was run]"
