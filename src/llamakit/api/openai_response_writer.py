"""Events of answers -> the events of a response's stream, in the published order; the resource grows beside them.

One writer writes one response, over as many turns as it takes. It makes plain values and numbers nothing:
who sends or keeps the events numbers them. Feed a turn with `push`, ask for its calls with `take_calls`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llamakit.api.hosted_tools import HostedResult
from llamakit.api.openai_answer import finish_reason
from llamakit.api.openai_response_calls import (
    UNKNOWN,
    Event,
    MadeCall,
    Offered,
    as_begun,
    begun,
    fill,
    gave,
    gave_events,
    is_late,
    shown_result,
    written,
)
from llamakit.api.openai_response_items import item_id_of, output_text
from llamakit.api.openai_response_resource import logprob_bodies, tool_usage_body, usage_body
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

_STAGES = {
    "web_search": "searching",
    "file_search": "searching",
    "code_interpreter": "interpreting",
    "image_generation": "generating",
}
"""What a tool of this server is doing while it runs."""
_CUT = {"web_search_call": "failed", "image_generation_call": "failed", "apply_patch_call": "in_progress"}


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
        self._image_usage: list[Mapping[str, Any]] = []

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
                self.count(event.usage)
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

    def list_tools(self, label: str, specs: Iterable[ToolSpec], fault: str | None = None) -> Iterator[Event]:
        """What an MCP server offers, or the fault for which it offers nothing."""
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
        if fault is not None:
            item["error"] = fault
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": position}
        end = "completed" if fault is None else "failed"
        begun_as = {name: value for name, value in item.items() if name != "error"} | {"tools": []}
        yield _item_event("response.output_item.added", position, begun_as)
        yield {"type": "response.mcp_list_tools.in_progress", **place}
        yield {"type": f"response.mcp_list_tools.{end}", **place}
        yield _item_event("response.output_item.done", position, item)

    def compaction(self, encrypted: str) -> Iterator[Event]:
        """The conversation so far, made short."""
        position = len(self._output)
        item = self._identified({"type": "compaction", "encrypted_content": encrypted}, position)
        self._output.append(item)
        yield _item_event("response.output_item.added", position, item | {"encrypted_content": ""})
        place = {"item_id": item["id"], "output_index": position}
        yield {"type": "response.compaction.compacting", **place}
        yield _item_event("response.output_item.done", position, item)

    def start_call(self, name: str, arguments: str, offered: Offered, **fields: Any) -> tuple[MadeCall, list[Event]]:
        """A call of a tool of this server that no turn of this response made: one that was approved."""
        position = len(self._output)
        offered = replace(offered, needs_approval=False)
        item = self._identified(begun(offered, name, ""), position) | fields
        events = list(self._begin_hosted(position, item, offered))
        self._open, self._has_written = None, False
        item["arguments"] = arguments
        call = ToolCall(id=item["id"], name=name, arguments=arguments)
        return MadeCall(call=call, offered=offered, is_known=True, position=position), events

    def running(self, made: MadeCall) -> Iterator[Event]:
        """A tool of this server is at work."""
        if made.offered.kind in _STAGES:
            yield self._stage(made, _STAGES[made.offered.kind])

    def ran(self, made: MadeCall, result: HostedResult) -> Iterator[Event]:
        """A tool of this server gave its result."""
        item = self._output[made.position]
        given = gave(item, made.offered, result)
        if given is not None:
            yield from self._give(made, item, given, result)
            return
        item.update(shown_result(made.offered, result, self._include))
        if made.offered.kind == "image_generation":
            self._image_usage.append(result.fields.get("usage") or {})
        item["status"] = "failed" if result.is_failed else "completed"
        self._citations |= result.citations
        if made.offered.kind == "mcp" and result.is_failed:
            yield self._stage(made, "failed")
        elif made.offered.kind != "image_generation" or not result.is_failed:
            yield self._stage(made, "completed")
        yield _item_event("response.output_item.done", made.position, item)

    def _give(
        self, made: MadeCall, call: dict[str, Any], given: dict[str, Any], result: HostedResult
    ) -> Iterator[Event]:
        """What a tool gave as an item of its own; the call learns which container it ran in."""
        if made.offered.kind == "shell" and result.fields.get("container_id"):
            call["environment"]["container_id"] = result.fields["container_id"]
        position = len(self._output)
        item = self._identified(given, position)
        self._output.append(item)
        empty = {name: [] for name in ("output", "tools") if name in item}
        yield _item_event("response.output_item.added", position, item | empty | {"status": "in_progress"})
        yield from gave_events(item, {"item_id": item["id"], "output_index": position})
        yield _item_event("response.output_item.done", position, item)

    def count(self, usage: Usage) -> None:
        """Tokens that were spent on the way."""
        mine = self.usage
        self.usage = Usage(
            prompt_tokens=mine.prompt_tokens + usage.prompt_tokens,
            cached_tokens=mine.cached_tokens + usage.cached_tokens,
            completion_tokens=mine.completion_tokens + usage.completion_tokens,
        )

    def finish(self, completed_at: int) -> Iterator[Event]:
        """The last event of an answer that came to its end, whole or cut."""
        self.resource["completed_at"] = completed_at
        self.resource["usage"] = usage_body(self.usage)
        self.resource["tool_usage"] = tool_usage_body(self._output, self._image_usage)
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

    def _identified(self, item: dict[str, Any], position: int) -> dict[str, Any]:
        return {"id": self._id(item["type"], position), **item}

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
            if offered is not None and offered.kind in kind and not is_late(offered):
                yield _at(f"{kind[offered.kind]}.delta", self._open, delta=event.arguments)

    def _open_call(self, name: str) -> Iterator[Event]:
        offered = self._offered.get(name, UNKNOWN)
        position = len(self._output)
        # Named by its place, so that a response computed again gives its calls the same names, and so that
        # calls of several turns never share one.
        call_id = "call_" + hashlib.sha256(f"{self.resource['id']}/call/{position}".encode()).hexdigest()[:24]
        item = self._identified(begun(offered, name, call_id), position)
        if offered.is_hosted and not is_late(offered):
            yield from self._begin_hosted(position, item, offered)
        else:
            self._open = self._begin(position, item, offered)
            if not is_late(offered):
                yield _item_event("response.output_item.added", position, dict(item))
        assert self._open is not None, "each branch opens"
        self._open.name, self._open.call_id = name, call_id

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
        if item["type"] == "message":
            item["content"] = [output_text(text) | {"logprobs": opened.logprobs}]
        else:
            fill(item, opened.offered, opened.name, text)
            item["id"] = self._id(item["type"], opened.position)
        is_ending = opened.offered is None or not opened.offered.is_hosted or is_late(opened.offered)
        if "status" in item and (is_ending or status == "incomplete"):
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
        if is_late(offered):
            yield _item_event("response.output_item.added", opened.position, as_begun(item))
        yield from written(item, offered, text, {"item_id": item["id"], "output_index": opened.position})
        if not offered.is_hosted or is_late(offered) or not is_whole:
            yield _item_event("response.output_item.done", opened.position, item)
        if is_whole:
            call = ToolCall(id=opened.call_id, name=opened.name, arguments=text)
            is_known = opened.name in self._offered
            self._calls.append(MadeCall(call=call, offered=offered, is_known=is_known, position=opened.position))

    def _stage(self, made: MadeCall, stage: str) -> Event:
        item = self._output[made.position]
        kind = f"response.{item['type']}.{stage}"
        return {"type": kind, "item_id": item["id"], "output_index": made.position}

    def _part_event(self, kind: str, opened: _Open, **fields: Any) -> Event:
        return _at(kind, opened, content_index=0, **fields)


def cut_status(item: Mapping[str, Any]) -> str:
    """The word for an item that was not finished; not every kind has a word for just that."""
    return _CUT.get(item["type"], "incomplete")


def _at(kind: str, opened: _Open, **fields: Any) -> Event:
    return {"type": kind, "item_id": opened.item["id"], "output_index": opened.position, **fields}


def _item_event(kind: str, position: int, item: Mapping[str, Any]) -> Event:
    return {"type": kind, "output_index": position, "item": dict(item)}
