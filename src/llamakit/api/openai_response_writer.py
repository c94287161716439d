"""Events of answers -> the events of a response's stream, in the published order; the resource grows beside them.

One writer writes one response, over as many turns as it takes. It makes plain values and numbers nothing:
who sends or keeps the events numbers them. Feed a turn with `push`, ask for its calls with `take_calls`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.api.hosted_tools import HostedKind, HostedResult
from llamakit.api.openai_answer import finish_reason
from llamakit.api.openai_response_items import item_id_of, output_text
from llamakit.api.openai_responses import logprob_bodies, usage_body
from llamakit.core.messages import (
    AnswerEvent,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)

Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offered:
    """A function that the model sees, and whose it is."""

    kind: Literal["function", "custom"] | HostedKind
    label: str = ""
    """The MCP server's."""
    needs_approval: bool = False

    @property
    def is_hosted(self) -> bool:
        """Whether this server runs it."""
        return self.kind not in ("function", "custom")


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


@dataclass(kw_only=True, slots=True)
class _Open:
    """What the model is writing now."""

    position: int
    item: dict[str, Any]
    pieces: list[str]
    logprobs: list[dict[str, Any]]
    name: str = ""
    call_id: str = ""
    offered: Offered | None = None
    """None for a message."""


class ResponseWriter:
    """Writes one response into `resource`."""

    def __init__(
        self,
        resource: dict[str, Any],
        offered: Mapping[str, Offered],
        *,
        include: Collection[str] = (),
        with_logprobs: bool = False,
    ) -> None:
        self.resource = resource
        self.usage = Usage()
        self.is_cut = False
        """Whether the last turn ended for want of tokens."""
        self.is_withheld = False
        """Whether a guard withheld the last turn, or the rest of it."""
        self._offered = offered
        self._include = include
        self._with_logprobs = with_logprobs
        self._output: list[dict[str, Any]] = resource["output"]
        self._open: _Open | None = None
        self._index: int | None = None
        self._calls: list[MadeCall] = []
        self._has_written = False
        self._citations: dict[str, Mapping[str, Any]] = {}

    def begin(self, *, is_queued: bool = False) -> Iterator[Event]:
        """The first events."""
        if is_queued:
            yield self._about("response.created", status="queued")
            yield self._about("response.queued", status="queued")
        else:
            yield self._about("response.created", status="in_progress")
        self.resource["status"] = "in_progress"
        yield self._about("response.in_progress")

    def push(self, event: AnswerEvent) -> Iterator[Event]:
        """The events that `event` makes; raises `EngineStopped` for an end that is no answer."""
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    yield from self._text(event)
            case ToolCallDelta():
                yield from self._call(event)
            case Finish():
                reason = finish_reason(event, called_tools=bool(self._calls))
                self.is_cut, self.is_withheld = reason == "length", reason == "content_filter"
                if not self._has_written and self._open is None:
                    yield from self._open_message()
                yield from self._close(is_last=True)
                self._has_written, self._index = False, None
            case Done():
                self._count(event.usage)
            case PrefillProgress():
                pass

    def take_calls(self) -> list[MadeCall]:
        """The calls of the turn that ended."""
        calls, self._calls = self._calls, []
        return calls

    def add(self, item: dict[str, Any]) -> Iterator[Event]:
        """An item that is whole from the start; it gets its id here."""
        position = len(self._output)
        made = {"id": self._id(item["type"], position), **item}
        self._output.append(made)
        yield _item_event("response.output_item.added", position, made)
        yield _item_event("response.output_item.done", position, made)

    def list_tools(self, label: str, specs: Iterable[ToolSpec]) -> Iterator[Event]:
        """What an MCP server offers."""
        position = len(self._output)
        shown = [
            {"name": spec.name, "description": spec.description, "input_schema": dict(spec.parameters)}
            for spec in specs
        ]
        item = {
            "id": self._id("mcp_list_tools", position),
            "type": "mcp_list_tools",
            "server_label": label,
            "tools": shown,
        }
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": position}
        yield _item_event("response.output_item.added", position, item | {"tools": []})
        yield {"type": "response.mcp_list_tools.in_progress", **place}
        yield {"type": "response.mcp_list_tools.completed", **place}
        yield _item_event("response.output_item.done", position, item)

    def start_call(self, name: str, arguments: str, offered: Offered, **fields: Any) -> tuple[MadeCall, list[Event]]:
        """A call of a tool of this server that no turn of this response made: one that was approved."""
        position = len(self._output)
        item = self._hosted_item(name, offered, position) | fields
        events = list(self._begin_hosted(position, item, offered))
        self._open, self._has_written = None, False
        item["arguments"] = arguments
        call = ToolCall(id=item["id"], name=name, arguments=arguments)
        return MadeCall(call=call, offered=offered, is_known=True, position=position), events

    def running(self, made: MadeCall) -> Iterator[Event]:
        """A tool of this server is at work."""
        stage = {"web_search": "searching", "file_search": "searching", "code_interpreter": "interpreting"}
        if made.offered.kind in stage:
            yield self._stage(made, stage[made.offered.kind])

    def ran(self, made: MadeCall, result: HostedResult) -> Iterator[Event]:
        """A tool of this server gave its result."""
        item = self._output[made.position]
        item.update(self._shown(made, result))
        item["status"] = "failed" if result.is_failed else "completed"
        self._citations |= result.citations
        if made.offered.kind != "mcp" or not result.is_failed:
            yield self._stage(made, "completed")
        else:
            yield self._stage(made, "failed")
        yield _item_event("response.output_item.done", made.position, item)

    def finish(self, completed_at: int) -> Iterator[Event]:
        """The last event of an answer that came to its end, whole or cut."""
        self.resource["completed_at"] = completed_at
        self.resource["usage"] = usage_body(self.usage)
        is_incomplete = self.is_cut or self.is_withheld
        if is_incomplete:
            reason = "content_filter" if self.is_withheld else "max_output_tokens"
            self.resource["incomplete_details"] = {"reason": reason}
        status = "incomplete" if is_incomplete else "completed"
        yield self._about(f"response.{status}", status=status)

    def fail(self, code: str, message: str) -> Iterator[Event]:
        """The last event of an answer that failed; what was begun stays, marked as such."""
        if self._open is not None:
            self._settle(self._open, "incomplete")
            self._open = None
        self.resource["error"] = {"code": code, "message": message}
        self.resource["usage"] = usage_body(self.usage)
        yield self._about("response.failed", status="failed")

    def _about(self, kind: str, *, status: str | None = None) -> Event:
        """An event that carries the resource as it stands."""
        if status is not None:
            self.resource["status"] = status
        return {"type": kind, "response": {**self.resource, "output": list(self._output)}}

    def _id(self, kind: str, position: int) -> str:
        return item_id_of(kind, self.resource["id"], position)

    def _count(self, usage: Usage) -> None:
        mine = self.usage
        self.usage = Usage(
            prompt_tokens=mine.prompt_tokens + usage.prompt_tokens,
            cached_tokens=mine.cached_tokens + usage.cached_tokens,
            completion_tokens=mine.completion_tokens + usage.completion_tokens,
        )

    def _text(self, event: TextDelta) -> Iterator[Event]:
        if self._open is not None and self._open.offered is not None:
            yield from self._close()
        if self._open is None:
            yield from self._open_message()
        assert self._open is not None, "a message was just opened"
        logprobs = logprob_bodies(event.logprobs) if self._with_logprobs else []
        self._open.pieces.append(event.text)
        self._open.logprobs += logprobs
        yield self._part_event("response.output_text.delta", self._open, delta=event.text, logprobs=logprobs)

    def _open_message(self) -> Iterator[Event]:
        position = len(self._output)
        item = {
            "id": self._id("message", position),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._open = self._begin(position, item)
        yield _item_event("response.output_item.added", position, item | {"content": []})
        yield self._part_event("response.content_part.added", self._open, part=output_text(""))

    def _begin(self, position: int, item: dict[str, Any], offered: Offered | None = None) -> _Open:
        self._has_written = True
        self._output.append(item)
        return _Open(position=position, item=item, pieces=[], logprobs=[], offered=offered)

    def _call(self, event: ToolCallDelta) -> Iterator[Event]:
        if self._open is None or self._open.offered is None or self._index != event.index:
            yield from self._close()
            self._index = event.index
            yield from self._open_call(event.name or "")
        assert self._open is not None, "a call was just opened"
        if event.arguments:
            self._open.pieces.append(event.arguments)
            kind = {"function": "response.function_call_arguments", "mcp": "response.mcp_call_arguments"}
            offered = self._open.offered
            if offered is not None and offered.kind in kind and not offered.needs_approval:
                yield _at(f"{kind[offered.kind]}.delta", self._open, delta=event.arguments)

    def _open_call(self, name: str) -> Iterator[Event]:
        offered = self._offered.get(name, UNKNOWN)
        position = len(self._output)
        # Named by its place, so that a response computed again gives its calls the same names, and so that
        # calls of several turns never share one.
        call_id = "call_" + hashlib.sha256(f"{self.resource['id']}/call/{position}".encode()).hexdigest()[:24]
        if offered.needs_approval:
            item = {
                "id": self._id("mcp_approval_request", position),
                "type": "mcp_approval_request",
                "server_label": offered.label,
                "name": name,
                "arguments": "",
            }
            self._open = self._begin(position, item, offered)
        elif offered.is_hosted:
            item = self._hosted_item(name, offered, position)
            yield from self._begin_hosted(position, item, offered)
        else:
            kind, empty = ("custom_tool_call", "input") if offered.kind == "custom" else ("function_call", "arguments")
            item = {
                "id": self._id(kind, position),
                "type": kind,
                "status": "in_progress",
                "call_id": call_id,
                "name": name,
                empty: "",
            }
            self._open = self._begin(position, item, offered)
            yield _item_event("response.output_item.added", position, dict(item))
        assert self._open is not None, "each branch opens"
        self._open.name, self._open.call_id = name, call_id

    def _hosted_item(self, name: str, offered: Offered, position: int) -> dict[str, Any]:
        kind = "mcp_call" if offered.kind == "mcp" else f"{offered.kind}_call"
        own: dict[str, dict[str, Any]] = {
            "mcp_call": {"server_label": offered.label, "name": name, "arguments": "", "output": None, "error": None},
            "web_search_call": {"action": {"type": "search", "query": ""}},
            "file_search_call": {"queries": [], "results": None},
            "code_interpreter_call": {"code": "", "container_id": "", "outputs": None},
        }
        return {"id": self._id(kind, position), "type": kind, "status": "in_progress", **own[kind]}

    def _begin_hosted(self, position: int, item: dict[str, Any], offered: Offered) -> Iterator[Event]:
        self._open = self._begin(position, item, offered)
        yield _item_event("response.output_item.added", position, dict(item))
        yield _at(f"response.{item['type']}.in_progress", self._open)

    def _close(self, *, is_last: bool = False) -> Iterator[Event]:
        """End what is open; `is_last` says that the turn ends with it."""
        opened, self._open = self._open, None
        if opened is None:
            return
        status = "incomplete" if is_last and (self.is_cut or self.is_withheld) else "completed"
        self._settle(opened, status)
        if opened.offered is None:
            opened.item["phase"] = "final_answer" if is_last else "commentary"
            yield from self._close_message(opened)
        else:
            yield from self._close_call(opened, opened.offered, is_whole=status == "completed")

    def _settle(self, opened: _Open, status: str) -> None:
        """Give the item what was written."""
        text = "".join(opened.pieces)
        item = opened.item
        match item["type"]:
            case "message":
                item["content"] = [output_text(text) | {"logprobs": opened.logprobs}]
            case "custom_tool_call":
                item["input"] = _input_of(text)
            case "function_call" | "mcp_approval_request" | "mcp_call":
                item["arguments"] = text
            case "code_interpreter_call":
                item["code"] = _argument(text, "code")
            case "web_search_call":
                item["action"] = {"type": "search", "query": _argument(text, "query")}
            case "file_search_call":
                item["queries"] = [_argument(text, "query")]
        if "status" in item and (opened.offered is None or not opened.offered.is_hosted or status == "incomplete"):
            item["status"] = cut_status(item) if status == "incomplete" else status

    def _close_message(self, opened: _Open) -> Iterator[Event]:
        part = opened.item["content"][0]
        yield self._part_event("response.output_text.done", opened, text=part["text"], logprobs=part["logprobs"])
        for index, annotation in enumerate(self._annotations(part["text"])):
            part["annotations"].append(annotation)
            kind = "response.output_text.annotation.added"
            yield self._part_event(kind, opened, annotation_index=index, annotation=annotation)
        yield self._part_event("response.content_part.done", opened, part=part)
        yield _item_event("response.output_item.done", opened.position, opened.item)

    def _annotations(self, text: str) -> list[dict[str, Any]]:
        """What the answer cites, in the order of its marks."""
        found = [(text.find(mark), mark) for mark in self._citations if mark in text]
        made = []
        for at, mark in sorted(found):
            place = {"start_index": at, "end_index": at + len(mark)}
            annotation = dict(self._citations[mark])
            made.append(annotation | (place if annotation["type"] != "file_citation" else {"index": at}))
        return made

    def _close_call(self, opened: _Open, offered: Offered, *, is_whole: bool) -> Iterator[Event]:
        item, text = opened.item, "".join(opened.pieces)
        match item["type"]:
            case "function_call":
                yield _at("response.function_call_arguments.done", opened, arguments=text)
            case "custom_tool_call":
                yield _at("response.custom_tool_call_input.delta", opened, delta=item["input"])
                yield _at("response.custom_tool_call_input.done", opened, input=item["input"])
            case "mcp_call":
                yield _at("response.mcp_call_arguments.done", opened, arguments=text)
            case "code_interpreter_call":
                yield _at("response.code_interpreter_call_code.delta", opened, delta=item["code"])
                yield _at("response.code_interpreter_call_code.done", opened, code=item["code"])
            case "mcp_approval_request":
                yield _item_event("response.output_item.added", opened.position, item)
        if not offered.is_hosted or offered.needs_approval or not is_whole:
            yield _item_event("response.output_item.done", opened.position, item)
        if is_whole:
            call = ToolCall(id=opened.call_id, name=opened.name, arguments=text)
            is_known = opened.name in self._offered
            self._calls.append(MadeCall(call=call, offered=offered, is_known=is_known, position=opened.position))

    def _shown(self, made: MadeCall, result: HostedResult) -> dict[str, Any]:
        """What the item of a call shows of its result: some only when the request included it."""
        fields = dict(result.fields)
        match made.offered.kind:
            case "mcp":
                return {"output": None if result.is_failed else result.output, "error": fields.get("error")}
            case "file_search" if "file_search_call.results" not in self._include:
                fields.pop("results", None)
            case "code_interpreter" if "code_interpreter_call.outputs" not in self._include:
                fields.pop("outputs", None)
            case "web_search" if "web_search_call.action.sources" not in self._include and "action" in fields:
                fields["action"] = {name: value for name, value in fields["action"].items() if name != "sources"}
        return fields

    def _stage(self, made: MadeCall, stage: str) -> Event:
        item = self._output[made.position]
        kind = f"response.{item['type']}.{stage}"
        return {"type": kind, "item_id": item["id"], "output_index": made.position}

    def _part_event(self, kind: str, opened: _Open, **fields: Any) -> Event:
        return _at(kind, opened, content_index=0, **fields)


def cut_status(item: Mapping[str, Any]) -> str:
    """The word for an item that was not finished; a search of the web has no other than failed."""
    return "failed" if item["type"] == "web_search_call" else "incomplete"


def _at(kind: str, opened: _Open, **fields: Any) -> Event:
    return {"type": kind, "item_id": opened.item["id"], "output_index": opened.position, **fields}


def _item_event(kind: str, position: int, item: Mapping[str, Any]) -> Event:
    return {"type": kind, "output_index": position, "item": dict(item)}


def _argument(text: str, name: str) -> str:
    """A text among the arguments of a call; empty where the model wrote none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _input_of(text: str) -> str:
    """The one text of a free-form call; the arguments themselves where the model wrote something else."""
    return _argument(text, "input") or text
