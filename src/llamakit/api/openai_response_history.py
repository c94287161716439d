"""Items of a conversation, as they are kept, -> the house's messages that a model reads."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from llamakit.api.images import to_image
from llamakit.api.openai_machine_calls import arguments_of_call, shell_text
from llamakit.api.openai_response_tools import seen_name
from llamakit.api.wire import found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, Part, TextPart, ToolCall, system

Replaces = Literal["none", "past", "all"]
"""What a summary stands for: nothing that is still said beside it, all before the last turn, or everything."""
COMPACTED = "Summary of the conversation so far:\n\n"
DENIED = "The user did not allow this call."
UNSEEN = "A screenshot was taken; it is not shown here."
SEEN = "This is the screen now."
_CALLS = ("shell_call", "local_shell_call", "apply_patch_call", "computer_call", "program")
_OUTPUTS = tuple(f"{kind}_output" for kind in _CALLS)


class History:
    """Collects items with `add`, in order; read the messages with `messages`.

    With `shows_screens` a model sees the pictures of a screen that it works on; else it is told of them.
    """

    def __init__(self, *, shows_screens: bool = False) -> None:
        self._shows_screens = shows_screens
        self._messages: list[Message] = []
        self._names: dict[str, str] = {}
        self._requests: dict[str, Mapping[str, Any]] = {}
        self._aliases: dict[str, str] = {}
        """Ids of items by which their outputs may name a call."""
        self._searches: list[tuple[str, str]] = []
        """Searches for tools that this server makes and that have not ended: id and arguments."""
        self.tools: list[dict[str, Any]] = []
        """Tools that were found or added on the way."""
        self.update: dict[str, Any] = {}
        """The last update of the configuration, the fields of earlier ones beside it."""

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
                self._call(body["call_id"], _seen(body), arguments_of(body["arguments"], f"{param}.arguments"))
            case "custom_tool_call":
                self._call(body["call_id"], _seen(body), json.dumps({"input": body["input"]}))
            case "function_call_output" | "custom_tool_call_output":
                self._result(body["call_id"], _output(body["output"], f"{param}.output", hidden), param)
            case "compaction":
                self._compact(*read_compaction(body["encrypted_content"], param))
            case "configuration_update":
                self.update |= {name: value for name, value in body.items() if name in ("reasoning", "text")}
            case "additional_tools":
                self.tools += body["tools"]
            case "tool_search_call" if body.get("call_id") is None:
                self._searches.append((body["id"], arguments_of_call(body)))
            case "tool_search_call":
                self._call(body["call_id"], "tool_search", arguments_of_call(body))
            case "tool_search_output":
                self._found(body, param)
            case "mcp_approval_request":
                self._requests[body["id"]] = body
            case "mcp_approval_response":
                self._answer(body, param)
            case "mcp_call" if not hidden:
                output = body.get("output") or json.dumps(body.get("error"))
                self._ran(body["id"], {"name": body["name"], "arguments": body["arguments"], "output": output})
            case kind if kind in _CALLS:
                self._call(body["call_id"], kind.removesuffix("_call"), arguments_of_call(body))
                if kind == "local_shell_call":
                    self._aliases[body["id"]] = body["call_id"]
            case "computer_call_output" if self._shows_screens:
                self._screen(body, param, hidden)
            case kind if kind in _OUTPUTS:
                self._result(body.get("call_id") or "", (TextPart(text=_gave(body)),), param)
            case "image_generation_call" if not hidden:
                asked = json.dumps({"prompt": body.get("revised_prompt") or ""}, ensure_ascii=False)
                self._ran(body["id"], {"name": "image_generation", "arguments": asked, "output": _gave(body)})
            case _:
                # Reasoning is not shown to models, lists of tools are offered anew, a search that a client tells of
                # without its results says nothing, and a trigger concerns its own request alone.
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

    def _compact(self, summary: str, replaces: Replaces) -> None:
        """A summary, beside what was said or in its place."""
        self._messages = compacted(self._messages, summary, replaces)

    def _found(self, body: Mapping[str, Any], param: str) -> None:
        self.tools += body["tools"]
        text = found_text(body["tools"])
        if body.get("call_id") is not None:
            self._result(body["call_id"], (TextPart(text=text),), param)
        elif self._searches:
            id, arguments = self._searches.pop(0)
            self._ran(id, {"name": "tool_search", "arguments": arguments, "output": text})

    def _screen(self, body: Mapping[str, Any], param: str, hidden: Mapping[str, Any] | None) -> None:
        """A picture of the screen, which a person seems to show: results of tools are words in most formats."""
        self._result(body["call_id"], (TextPart(text=SEEN),), param)
        shown = _parts([body["output"] | {"type": "input_image"}], f"{param}.output", hidden)
        self._messages.append(Message(role="user", content=shown))

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
        id = self._aliases.get(id, id)
        if id not in self._names:
            raise InvalidRequest(
                f"{param}.call_id: no tool call {found(id)} comes before this output", param=f"{param}.call_id"
            )
        self._messages.append(Message(role="tool", content=content, tool_call_id=id, name=self._names[id]))


def _seen(body: Mapping[str, Any]) -> str:
    return seen_name(body["name"], body.get("namespace"))


def _gave(body: Mapping[str, Any]) -> str:
    """What such a tool gave, in words; pictures are told of and not shown."""
    match body["type"]:
        case "shell_call_output":
            return shell_text(body["output"])
        case "local_shell_call_output":
            return body["output"]
        case "apply_patch_call_output":
            return body.get("output") or body["status"]
        case "computer_call_output":
            return UNSEEN
        case "program_output":
            return body["result"]
    return "An image was made; it is not shown here." if body["status"] == "completed" else body["status"]


def found_text(tools: Iterable[Mapping[str, Any]]) -> str:
    """What a model is told of the tools that a search found."""
    names: list[str] = []
    for tool in tools:
        match tool["type"]:
            case "namespace":
                names += [seen_name(one["name"], tool["name"]) for one in tool["tools"]]
            case "mcp":
                allowed = tool.get("allowed_tools")
                names += allowed if isinstance(allowed, list) else [tool["server_label"]]
            case kind:
                names.append(tool.get("name") or kind)
    return f"These tools can be called now: {', '.join(names)}" if names else "No tool was found."


def instructions(messages: Iterable[Message]) -> list[Message]:
    """The instructions among messages, without the summaries that stand for others."""
    kept = (message for message in messages if message.role == "system")
    return [message for message in kept if not message.text.startswith(COMPACTED)]


def last_turn(messages: Sequence[Message]) -> int:
    """Where the last thing that a person said stands; the end where nobody said anything."""
    places = [at for at, message in enumerate(messages) if message.role == "user"]
    return places[-1] if places else len(messages)


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


def compacted(messages: Sequence[Message], summary: str, replaces: Replaces) -> list[Message]:
    """The messages with a summary, beside what was said or in its place."""
    at = last_turn(messages) if replaces == "past" else len(messages)
    before = list(messages[:at]) if replaces == "none" else instructions(messages[:at])
    return [*before, system(COMPACTED + summary), *messages[at:]]


def write_compaction(summary: str, replaces: Replaces = "none") -> str:
    """A summary as the opaque text of a compaction item; opaque, not secret: it is the client's own."""
    value = {"summary": summary, **({} if replaces == "none" else {"replaces": replaces})}
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def read_compaction(text: str, param: str) -> tuple[str, Replaces]:
    """The summary again, and what it stands for; raises `InvalidRequest` for a text that is not ours."""
    param = f"{param}.encrypted_content"
    try:
        value = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
    except (ValueError, binascii.Error, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("summary"), str):
        raise InvalidRequest(f"{param} was not written by this server's compaction", param=param)
    replaces = value.get("replaces")
    return value["summary"], replaces if replaces in ("past", "all") else "none"


def _output(output: str | list[dict[str, Any]], param: str, hidden: Mapping[str, Any] | None) -> tuple[Part, ...]:
    return (TextPart(text=output),) if isinstance(output, str) else _parts(output, param, hidden)


def _parts(parts: Iterable[Mapping[str, Any]], param: str, hidden: Mapping[str, Any] | None) -> tuple[Part, ...]:
    """The parts as a model sees them; what was read of files is in `hidden`, by their places."""
    known = hidden or {}
    texts, images = known.get("files", {}), known.get("images", {})
    made: list[Part] = []
    for index, part in enumerate(parts):
        place = str(index)
        if place in texts:
            made.append(TextPart(text=texts[place]))
        elif place in images:
            made.append(to_image(images[place]["data"], param, kind=images[place]["mime"]))
        else:
            made.append(_part(part, f"{param}[{index}]"))
    return tuple(made)


def _part(part: Mapping[str, Any], param: str) -> Part:
    match part["type"]:
        case "refusal":
            return TextPart(text=part["refusal"])
        case "input_image":
            return _image(part, param)
        case "computer_screenshot":
            return TextPart(text=UNSEEN)
        case "input_file":
            raise InvalidRequest(
                f"{param}.type: files are not read at this place; send their text", param=f"{param}.type"
            )
    return TextPart(text=part["text"])


def _image(part: Mapping[str, Any], param: str) -> ImagePart:
    head, comma, data = (part.get("image_url") or "").partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(
            f"{param}.image_url must be a data URL, or leave it out for a file_id", param=f"{param}.image_url"
        )
    return to_image(data, f"{param}.image_url", kind=head.removeprefix("data:").removesuffix(";base64"))
