"""Llama Stack's telemetry on the wire: questions about traces and spans, and events of a client's own work."""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.wire import FIRST, Texts, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.tracing import Span, TraceContext

_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
Attributes = dict[str, str | int | float | bool | None]


class LlamaStackCondition(Wire):
    """A wish about an attribute of a span."""

    key: Annotated[str, Field(min_length=1, max_length=256)]
    op: Literal["eq", "ne", "gt", "lt"]
    value: str | int | float | bool


LlamaStackConditions = Annotated[list[LlamaStackCondition], FIRST]


class LlamaStackTracesRequest(Wire):
    """Body of `POST /v1/telemetry/traces`."""

    attribute_filters: LlamaStackConditions | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] | None = None
    """100 when left out."""
    offset: Annotated[int, Field(ge=0, le=5000)] | None = None
    order_by: Texts | None = None
    """`start_time`, or `-start_time` for the newest first, which is the default."""


class LlamaStackSpansRequest(Wire):
    """Body of `POST /v1/telemetry/spans`."""

    attribute_filters: LlamaStackConditions
    attributes_to_return: Texts
    """All of them where it is empty."""
    max_depth: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Levels below a matching span that come with it; none when left out."""


class LlamaStackTreeRequest(Wire):
    """Body of `POST /v1/telemetry/spans/{span_id}/tree`."""

    attributes_to_return: Texts | None = None
    max_depth: Annotated[int, Field(ge=0, le=1000)] | None = None


class LlamaStackExportRequest(Wire):
    """Body of `POST /v1/telemetry/spans/export`."""

    attribute_filters: LlamaStackConditions
    attributes_to_save: Texts
    dataset_id: Annotated[str, Field(min_length=1, max_length=256)]
    max_depth: Annotated[int, Field(ge=0, le=1000)] | None = None


class LlamaStackSpanStart(Wire):
    """A span begins."""

    type: Literal["span_start"]
    name: Annotated[str, Field(max_length=256)]
    parent_span_id: str | None = None


class LlamaStackSpanEnd(Wire):
    """A span ends."""

    type: Literal["span_end"]
    status: Literal["ok", "error"]


class LlamaStackEventFields(Wire):
    """Where in which trace, and when."""

    trace_id: str
    """32 lower-case hex digits."""
    span_id: str
    """16 lower-case hex digits."""
    timestamp: str
    """ISO 8601."""
    attributes: Attributes | None = None


class LlamaStackLog(LlamaStackEventFields):
    """A message."""

    type: Literal["unstructured_log"]
    message: str
    severity: Literal["verbose", "debug", "info", "warn", "error", "critical"]


class LlamaStackMetricEvent(LlamaStackEventFields):
    """A figure."""

    type: Literal["metric"]
    metric: Annotated[str, Field(max_length=256)]
    value: float | int
    unit: str


class LlamaStackStructuredLog(LlamaStackEventFields):
    """The beginning or the end of a span."""

    type: Literal["structured_log"]
    payload: Annotated[LlamaStackSpanStart | LlamaStackSpanEnd, Field(discriminator="type")]


class LlamaStackEventRequest(Wire):
    """Body of `POST /v1/telemetry/events`."""

    event: Annotated[LlamaStackLog | LlamaStackMetricEvent | LlamaStackStructuredLog, Field(discriminator="type")]
    ttl_seconds: Annotated[int, Field(ge=0)] | None = None
    """Set aside: the oldest go when there are too many."""


class LlamaStackSpan(Wire):
    """A stretch of work."""

    span_id: str
    trace_id: str
    parent_span_id: str | None = None
    name: str
    start_time: str
    end_time: str | None = None
    attributes: dict[str, Any]
    status: Literal["ok", "error"] | None = None


class LlamaStackTrace(Wire):
    """Everything that one request caused."""

    trace_id: str
    root_span_id: str
    start_time: str
    end_time: str | None = None


class LlamaStackSpans(Wire):
    """Spans."""

    data: Annotated[list[LlamaStackSpan], FIRST]


class LlamaStackTraces(Wire):
    """Traces."""

    data: Annotated[list[LlamaStackTrace], FIRST]


class LlamaStackSpanTree(Wire):
    """A span and those below it, by their ids."""

    data: dict[str, LlamaStackSpan]


def trace_body(trace: Mapping[str, Any]) -> dict[str, Any]:
    """A trace as it is kept -> as it is told."""
    return {
        "trace_id": trace["trace_id"],
        "root_span_id": trace["root_span_id"],
        "start_time": _moment(trace["start_time_ns"]),
        "end_time": _moment(trace["end_time_ns"]),
    }


def span_body(span: Mapping[str, Any], attributes: Sequence[str] = ()) -> dict[str, Any]:
    """A span as it is kept -> as it is told, with those attributes, or all."""
    kept = span["attributes"]
    return {
        "span_id": span["span_id"],
        "trace_id": span["trace_id"],
        "parent_span_id": span["parent_id"],
        "name": span["name"],
        "start_time": _moment(span["start_ns"]),
        "end_time": _moment(span["end_ns"]),
        "attributes": {name: kept[name] for name in attributes if name in kept} if attributes else kept,
        "status": span["status"],
    }


def is_newest_first(order: Sequence[str] | None) -> bool:
    """What `order_by` asks for; raises `InvalidRequest` for what traces cannot be ordered by."""
    match list(order or ()):
        case [] | ["-start_time"]:
            return True
        case ["start_time"]:
            return False
    raise InvalidRequest("order_by must be ['start_time'] or ['-start_time']", param="order_by")


def started(event: LlamaStackStructuredLog | LlamaStackLog | LlamaStackMetricEvent) -> Span:
    """The span that an event begins, or is: a message and a figure are points below the span they name."""
    context = TraceContext(_id(_TRACE_ID, event.trace_id, "trace_id"), _id(_SPAN_ID, event.span_id, "span_id"))
    at = _nanoseconds(event.timestamp)
    attributes = {name: value for name, value in (event.attributes or {}).items() if value is not None}
    match event:
        case LlamaStackStructuredLog():
            assert isinstance(event.payload, LlamaStackSpanStart), "only a beginning makes a span"
            parent = event.payload.parent_span_id
            parent = None if parent is None else _id(_SPAN_ID, parent, "payload.parent_span_id")
            return Span(event.payload.name, "client", context, parent, at, at, {**attributes})
        case LlamaStackLog():
            attributes |= {"severity": event.severity, "message": event.message[:4096]}
            name = "log"
        case LlamaStackMetricEvent():
            attributes |= {"metric": event.metric, "value": event.value, "unit": event.unit}
            name = "metric"
    point = TraceContext(context.trace_id, secrets.token_hex(8))
    return Span(name, "client", point, context.span_id, at, at, {**attributes})


def ended(span: Span, event: LlamaStackStructuredLog) -> Span:
    """The span that the event ends."""
    assert isinstance(event.payload, LlamaStackSpanEnd), "only an end ends a span"
    span.end_ns = max(_nanoseconds(event.timestamp), span.start_ns)
    span.fault = "error" if event.payload.status == "error" else None
    span.attributes |= {name: value for name, value in (event.attributes or {}).items() if value is not None}
    return span


def _id(pattern: re.Pattern[str], text: str, name: str) -> str:
    if pattern.fullmatch(text) is None:
        digits = 32 if pattern is _TRACE_ID else 16
        raise InvalidRequest(f"event.{name} must be {digits} lower-case hex digits, got {text[:64]!r}", param=name)
    return text


def _nanoseconds(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"event.timestamp must be ISO 8601 such as 2026-01-31T12:00:00Z, got {text[:64]!r}", param="event.timestamp"
        ) from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
    nanoseconds = int(aware.timestamp() * 1e6) * 1000
    if not 0 <= nanoseconds < 2**63:
        raise InvalidRequest(f"event.timestamp {text[:64]!r} is out of range", param="event.timestamp")
    return nanoseconds


def _moment(ns: int) -> str:
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat()
