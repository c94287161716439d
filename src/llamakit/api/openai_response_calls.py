"""Calls a model makes, as items of a response: how each kind begins, fills with what is written, and is whole.

Knows items and events of single calls; the order in which a response has them is the writer's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.api.hosted_tools import HostedKind, HostedResult
from llamakit.api.openai_machine_calls import fields_of
from llamakit.core.messages import ToolCall

Event = dict[str, Any]
ClientKind = Literal["function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offered:
    """A function that the model sees, and whose it is."""

    kind: ClientKind | HostedKind
    label: str = ""
    """The MCP server's."""
    needs_approval: bool = False
    is_hosted: bool = False
    """Whether this server runs it."""
    name: str | None = None
    """Its name on the wire, where the model sees another one; else the same."""
    namespace: str | None = None
    container_id: str | None = None
    """Of a shell that runs in one which the request names."""


UNKNOWN = Offered(kind="function")
"""A function that the model made up: shown as it is, and told so to the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeCall:
    """A call that the model made."""

    call: ToolCall
    offered: Offered
    is_known: bool
    position: int
    """Of its item in the output."""


_ITEMS: Mapping[str, str] = {
    "function": "function_call",
    "custom": "custom_tool_call",
    "computer_use_preview": "computer_call",
}
_LATE = ("shell", "local_shell", "apply_patch", "computer", "computer_use_preview", "tool_search")
"""Kinds whose items have fields of their own, and are shown once these are whole."""
TELLS_ALL = ("shell", "tool_search")
"""Kinds run here whose items are all that a model is told of them."""


def is_late(offered: Offered) -> bool:
    """Whether the item is shown only when the call is whole."""
    return offered.needs_approval or offered.kind in _LATE


def item_kind(offered: Offered) -> str:
    """The type of the item of a call."""
    if offered.needs_approval:
        return "mcp_approval_request"
    return _ITEMS.get(offered.kind, f"{offered.kind}_call")


def begun(offered: Offered, name: str, call_id: str) -> dict[str, Any]:
    """The item of a call that nothing was written of yet, without its id."""
    shown, kind = offered.name or name, item_kind(offered)
    if offered.needs_approval:
        return {"type": kind, "server_label": offered.label, "name": shown, "arguments": ""}
    own: dict[str, dict[str, Any]] = {
        "function_call": {"call_id": call_id, "name": shown, "arguments": ""},
        "custom_tool_call": {"call_id": call_id, "name": shown, "input": ""},
        "mcp_call": {"server_label": offered.label, "name": shown, "arguments": "", "output": None, "error": None},
        "web_search_call": {"action": {"type": "search", "query": ""}},
        "file_search_call": {"queries": [], "results": None},
        "code_interpreter_call": {"code": "", "container_id": "", "outputs": None},
        "image_generation_call": {"result": None},
    }
    space = {} if offered.namespace is None else {"namespace": offered.namespace}
    return {"type": kind, "status": "in_progress", **own.get(kind, {"call_id": call_id}), **space}


def fill(item: dict[str, Any], offered: Offered | None, name: str, text: str) -> None:
    """Give the item of a call what was written.

    A call of a machine's tool that makes no sense is shown as a call of a function, with the model's words.
    """
    match item["type"]:
        case "custom_tool_call":
            item["input"] = argument_of(text, "input") or text
        case "function_call" | "mcp_approval_request" | "mcp_call":
            item["arguments"] = text
        case "code_interpreter_call":
            item["code"] = argument_of(text, "code")
        case "web_search_call":
            item["action"] = {"type": "search", "query": argument_of(text, "query")}
        case "file_search_call":
            item["queries"] = [argument_of(text, "query")]
        case "image_generation_call":
            item["revised_prompt"] = argument_of(text, "prompt")
        case _ if offered is not None:
            _fill_late(item, offered, name, text)


def _fill_late(item: dict[str, Any], offered: Offered, name: str, text: str) -> None:
    fields = fields_of(offered.kind, text)
    if fields is None and not offered.is_hosted:
        item |= {"type": "function_call", "name": name, "arguments": text}
        return
    match offered.kind:
        case "shell":
            place = {"type": "local"}
            if offered.is_hosted:
                place = {"type": "container_reference", "container_id": offered.container_id or ""}
            item |= fields or {"action": {"commands": []}}
            item["environment"] = place
        case "tool_search":
            item |= fields or {"arguments": {}}
            item["execution"] = "server" if offered.is_hosted else "client"
            if offered.is_hosted:
                item["call_id"] = None
        case _:
            item |= fields or {}


def written(item: Mapping[str, Any], offered: Offered, text: str, at: Mapping[str, Any]) -> Iterator[Event]:
    """The events that say what a call is, once it is whole; `at` tells its item and place."""
    match item["type"]:
        case "function_call" if not is_late(offered):
            yield {"type": "response.function_call_arguments.done", **at, "arguments": text}
        case "custom_tool_call":
            yield {"type": "response.custom_tool_call_input.delta", **at, "delta": item["input"]}
            yield {"type": "response.custom_tool_call_input.done", **at, "input": item["input"]}
        case "mcp_call":
            yield {"type": "response.mcp_call_arguments.done", **at, "arguments": text}
        case "code_interpreter_call":
            yield {"type": "response.code_interpreter_call_code.delta", **at, "delta": item["code"]}
            yield {"type": "response.code_interpreter_call_code.done", **at, "code": item["code"]}
        case "shell_call":
            for index, command in enumerate(item["action"]["commands"]):
                place = {"output_index": at["output_index"], "command_index": index}
                yield {"type": "response.shell_call_command.added", **place, "command": ""}
                yield {"type": "response.shell_call_command.delta", **place, "delta": command}
                yield {"type": "response.shell_call_command.done", **place, "command": command}


def as_begun(item: Mapping[str, Any]) -> dict[str, Any]:
    """A late item as it is first shown: under way, its commands still to come."""
    made = dict(item)
    if made["type"] == "shell_call":
        made["action"] = {**made["action"], "commands": []}
    if "status" in made:
        made["status"] = "in_progress"
    return made


def shown_result(offered: Offered, result: HostedResult, include: Collection[str]) -> dict[str, Any]:
    """What the item of a call shows of its result: some only when the request included it."""
    fields = dict(result.fields)
    fault = fields.get("error")
    match offered.kind:
        case "mcp":
            if isinstance(fault, str):  # of this side; the server's own has the protocol's form already
                fault = {"type": "mcp_protocol_error", "code": -32000, "message": fault}
            return {"output": None if result.is_failed else result.output, "error": fault}
        case "image_generation":
            fields.pop("usage", None)
            if isinstance(fault, str):
                fields["error"] = {"type": "tool_error", "code": None, "message": fault, "param": None}
        case "file_search" if "file_search_call.results" not in include:
            fields.pop("results", None)
        case "code_interpreter" if "code_interpreter_call.outputs" not in include:
            fields.pop("outputs", None)
        case "web_search" if "web_search_call.action.sources" not in include and "action" in fields:
            fields["action"] = {name: value for name, value in fields["action"].items() if name != "sources"}
    return fields


def gave(call: Mapping[str, Any], offered: Offered, result: HostedResult) -> dict[str, Any] | None:
    """The item of what a tool of this server gave, without its id, where that is an item of its own."""
    match offered.kind:
        case "shell":
            output = result.fields.get("output") or [
                {"stdout": "", "stderr": result.output, "outcome": {"type": "exit", "exit_code": 1}}
            ]
            limit = call["action"].get("max_output_length")
            more = {} if limit is None else {"max_output_length": limit}
            body = {"type": "shell_call_output", "call_id": call["call_id"], "output": output, **more}
            return {**body, "status": "completed"}
        case "tool_search":
            body = {"type": "tool_search_output", "call_id": None, "execution": "server"}
            return {**body, "status": "completed", "tools": list(result.fields.get("tools") or ())}
    return None


def gave_events(item: Mapping[str, Any], at: Mapping[str, Any]) -> Iterator[Event]:
    """The events between the beginning and the end of such an item."""
    if item["type"] == "shell_call_output":
        for index, one in enumerate(item["output"]):
            place = {**at, "command_index": index}
            delta = {name: one[name] for name in ("stdout", "stderr") if one[name]}
            if delta:
                yield {"type": "response.shell_call_output_content.delta", **place, "delta": delta}
            yield {"type": "response.shell_call_output_content.done", **place, "output": [one]}


def argument_of(text: str, name: str) -> str:
    """A text among the arguments of a call; empty where the model wrote none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
