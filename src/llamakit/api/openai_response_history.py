"""Items of a conversation, as they are kept, -> the house's messages that a model reads."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from llamakit.api.images import to_image
from llamakit.api.wire import found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, Part, TextPart, ToolCall, system

COMPACTED = "Summary of the conversation so far:\n\n"
DENIED = "The user did not allow this call."


class History:
    """Collects items with `add`, in order; read the messages with `messages`."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._names: dict[str, str] = {}
        self._requests: dict[str, Mapping[str, Any]] = {}

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said so far."""
        return tuple(self._messages)

    def add(self, body: Mapping[str, Any], param: str, hidden: Mapping[str, Any] | None = None) -> None:
        """The next item; `hidden` is what this server knows of a tool it ran. Raises `InvalidRequest`."""
        match body["type"]:
            case "message":
                role = "system" if body["role"] == "developer" else body["role"]
                self._messages.append(Message(role=role, content=_parts(body["content"], f"{param}.content", hidden)))
            case "function_call":
                self._call(body["call_id"], body["name"], arguments_of(body["arguments"], f"{param}.arguments"))
            case "custom_tool_call":
                self._call(body["call_id"], body["name"], json.dumps({"input": body["input"]}))
            case "function_call_output" | "custom_tool_call_output":
                self._result(body["call_id"], _output(body["output"], f"{param}.output", hidden), param)
            case "compaction":
                self._messages.append(system(COMPACTED + read_compaction(body["encrypted_content"], param)))
            case "mcp_approval_request":
                self._requests[body["id"]] = body
            case "mcp_approval_response":
                self._answer(body, param)
            case "mcp_call" if not hidden:
                output = body.get("output") or json.dumps(body.get("error"))
                self._ran(body["id"], {"name": body["name"], "arguments": body["arguments"], "output": output})
            case "shell_call" | "apply_patch_call" | "computer_call" | "program":
                self._call(body["call_id"], body["type"].removesuffix("_call"), _asked(body))
            case "shell_call_output" | "apply_patch_call_output" | "computer_call_output" | "program_output":
                self._result(body["call_id"], (TextPart(text=_gave(body)),), param)
            case "image_generation_call":
                asked = json.dumps({"prompt": body.get("revised_prompt") or ""}, ensure_ascii=False)
                self._ran(body["id"], {"name": "image_generation", "arguments": asked, "output": _gave(body)})
            case _:
                # Reasoning is not shown to models, lists of tools are offered anew, and a search that a client
                # tells of without its results says nothing.
                if hidden:
                    self._ran(body["id"], hidden)

    def request(self, id: str, param: str) -> Mapping[str, Any]:
        """The call that waits for approval under `id`; raises `InvalidRequest` where there is none."""
        if id not in self._requests:
            raise InvalidRequest(
                f"{param}.approval_request_id: no approval request {found(id)} in this conversation",
                param=f"{param}.approval_request_id",
            )
        return self._requests[id]

    def _answer(self, body: Mapping[str, Any], param: str) -> None:
        request = self.request(body["approval_request_id"], param)
        if not body["approve"]:
            reason = body.get("reason")
            output = DENIED if reason is None else f"{DENIED} Reason: {reason}"
            told = {"name": request["name"], "arguments": request["arguments"], "output": output}
            self._ran(body["id"], told)

    def _ran(self, id: str, hidden: Mapping[str, Any]) -> None:
        self._call(id, hidden["name"], hidden["arguments"])
        self._result(id, (TextPart(text=hidden["output"]),), "input")

    def _call(self, id: str, name: str, arguments: str) -> None:
        """A call joins the assistant's message before it: to a model they are one turn."""
        self._names[id] = name
        call = ToolCall(id=id, name=name, arguments=arguments)
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant":
            self._messages[-1] = Message(
                role="assistant", content=last.content, tool_calls=(*last.tool_calls, call), name=last.name
            )
        else:
            self._messages.append(Message(role="assistant", tool_calls=(call,)))

    def _result(self, id: str, content: tuple[Part, ...], param: str) -> None:
        if id not in self._names:
            raise InvalidRequest(
                f"{param}.call_id: no tool call {found(id)} comes before this output", param=f"{param}.call_id"
            )
        self._messages.append(Message(role="tool", content=content, tool_call_id=id, name=self._names[id]))


def _asked(body: Mapping[str, Any]) -> str:
    """What a tool of another server or of the client was asked, as arguments."""
    match body["type"]:
        case "shell_call":
            value = body["action"]
        case "apply_patch_call":
            value = body["operation"]
        case "computer_call":
            value = {"actions": body.get("actions") or [body.get("action")]}
        case _:
            value = {"code": body["code"]}
    return json.dumps(value, ensure_ascii=False)


def _gave(body: Mapping[str, Any]) -> str:
    """What such a tool gave, in words; pictures are told of and not shown."""
    match body["type"]:
        case "shell_call_output":
            return json.dumps(body["output"], ensure_ascii=False)
        case "apply_patch_call_output":
            return body.get("output") or body["status"]
        case "computer_call_output":
            return "A screenshot was taken; it is not shown here."
        case "program_output":
            return body["result"]
    return "An image was made; it is not shown here." if body["status"] == "completed" else body["status"]


def history_of(items: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], param: str = "input") -> History:
    """The history of items, each with what this server knows of it."""
    history = History()
    for index, (body, hidden) in enumerate(items):
        history.add(body, f"{param}[{index}]", hidden)
    return history


def arguments_of(text: str, param: str) -> str:
    """Arguments as JSON text of one object; the empty text that some clients send means none."""
    if not text.strip():
        return "{}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{param} must be JSON text of one object, got {found(text)}", param=param) from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{param} must be JSON text of one object, got {found(value)}", param=param)
    return text


def write_compaction(summary: str) -> str:
    """A summary as the opaque text of a compaction item; opaque, not secret: it is the client's own."""
    return base64.urlsafe_b64encode(json.dumps({"summary": summary}).encode()).decode()


def read_compaction(text: str, param: str) -> str:
    """The summary again; raises `InvalidRequest` for a text that is not ours."""
    param = f"{param}.encrypted_content"
    try:
        value = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
    except (ValueError, binascii.Error, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("summary"), str):
        raise InvalidRequest(f"{param} was not written by this server's compaction", param=param)
    return value["summary"]


def _output(output: str | list[dict[str, Any]], param: str, hidden: Mapping[str, Any] | None) -> tuple[Part, ...]:
    return (TextPart(text=output),) if isinstance(output, str) else _parts(output, param, hidden)


def _parts(parts: Iterable[Mapping[str, Any]], param: str, hidden: Mapping[str, Any] | None) -> tuple[Part, ...]:
    texts = (hidden or {}).get("files", {})
    return tuple(
        TextPart(text=texts[str(index)]) if str(index) in texts else _part(part, f"{param}[{index}]")
        for index, part in enumerate(parts)
    )


def _part(part: Mapping[str, Any], param: str) -> Part:
    match part["type"]:
        case "refusal":
            return TextPart(text=part["refusal"])
        case "input_image":
            return _image(part, param)
        case "input_file":
            raise InvalidRequest(
                f"{param}.type: files are not read at this place; send their text", param=f"{param}.type"
            )
    return TextPart(text=part["text"])


def _image(part: Mapping[str, Any], param: str) -> ImagePart:
    url = part.get("image_url")
    param = f"{param}.image_url"
    head, comma, data = (url or "").partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(
            f"{param} must be a data URL such as data:image/png;base64,...; addresses are not fetched", param=param
        )
    return to_image(data, param, kind=head.removeprefix("data:").removesuffix(";base64"))
