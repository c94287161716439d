"""`/v1/telemetry/*`: the traces that a server keeps, and events that clients add to theirs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.llama_stack_lists import data_body
from llamakit.api.llama_stack_telemetry import (
    LlamaStackCondition,
    LlamaStackEventRequest,
    LlamaStackExportRequest,
    LlamaStackSpan,
    LlamaStackSpanEnd,
    LlamaStackSpans,
    LlamaStackSpansRequest,
    LlamaStackSpanTree,
    LlamaStackStructuredLog,
    LlamaStackTrace,
    LlamaStackTraces,
    LlamaStackTracesRequest,
    LlamaStackTreeRequest,
    ended,
    is_newest_first,
    span_body,
    started,
    trace_body,
)
from llamakit.core.errors import InvalidRequest
from llamakit.core.tracing import Span
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service
from llamakit.stack.telemetry import Filter, Traces

TAG = "llama stack telemetry"
MAX_OPEN = 1000
"""Spans of clients that have begun and not ended; beyond, the oldest is given up."""


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    open_spans: OrderedDict[tuple[str, str, str], Span] = OrderedDict()

    def kept() -> Traces:
        traces = service.stack.traces
        if not traces.is_on:
            raise InvalidRequest(
                "this server keeps no traces; set telemetry.keep_spans in its distribution to how many it may keep"
            )
        return traces

    async def log_event(http: Request) -> Response:
        wire = await service.read(http, LlamaStackEventRequest, lambda asked: _set_aside(asked))
        traces, owner, event = kept(), _owner(http), wire.event
        if not isinstance(event, LlamaStackStructuredLog):
            traces.record(owner, [started(event)])
            return Response(status_code=204)
        place = (owner, event.trace_id, event.span_id)
        if isinstance(event.payload, LlamaStackSpanEnd):
            span = open_spans.pop(place, None)
            if span is None:
                raise InvalidRequest(
                    f"span {event.span_id[:64]!r} has not begun, or too long ago", param="event.span_id"
                )
            traces.record(owner, [ended(span, event)])
        else:
            open_spans[place] = started(event)
            while len(open_spans) > MAX_OPEN:
                open_spans.popitem(last=False)
        return Response(status_code=204)

    async def query_traces(http: Request) -> Response:
        wire = await service.read(http, LlamaStackTracesRequest)
        found = await kept().traces(
            _owner(http),
            _filters(wire.attribute_filters),
            wire.limit or 100,
            wire.offset or 0,
            newest=is_newest_first(wire.order_by),
        )
        return json_response(data_body([trace_body(trace) for trace in found]))

    async def get_trace(http: Request) -> Response:
        return json_response(trace_body(await kept().trace(_owner(http), http.path_params["trace_id"])))

    async def get_span(http: Request) -> Response:
        path = http.path_params
        return json_response(span_body(await kept().span(_owner(http), path["trace_id"], path["span_id"])))

    async def query_spans(http: Request) -> Response:
        wire = await service.read(http, LlamaStackSpansRequest)
        found = await matching(http, wire.attribute_filters, wire.max_depth)
        return json_response(data_body([span_body(span, wire.attributes_to_return) for span in found]))

    async def export_spans(http: Request) -> Response:
        wire = await service.read(http, LlamaStackExportRequest)
        found = await matching(http, wire.attribute_filters, wire.max_depth)
        rows = [span_body(span, wire.attributes_to_save) for span in found]
        await service.stack.datasets.append(_owner(http), wire.dataset_id, rows)
        return Response(status_code=204)

    async def span_tree(http: Request) -> Response:
        wire = await service.read(http, LlamaStackTreeRequest)
        tree = await kept().span_tree(_owner(http), http.path_params["span_id"], wire.max_depth)
        wanted = wire.attributes_to_return or ()
        return json_response({"data": {id: span_body(span, wanted) for id, span in tree.items()}})

    async def matching(
        http: Request, conditions: Sequence[LlamaStackCondition], depth: int | None
    ) -> list[dict[str, Any]]:
        """Spans that fulfil every condition, each with so many levels below it, every span once."""
        traces, owner = kept(), _owner(http)
        found = await traces.spans(owner, _filters(conditions))
        if not depth:
            return found
        together: dict[str, dict[str, Any]] = {}
        for span in found:
            together |= await traces.span_tree(owner, span["span_id"], depth)
        return sorted(together.values(), key=lambda span: span["start_ns"])

    return [
        Operation(
            name="logTelemetryEvent",
            method="POST",
            path="/v1/telemetry/events",
            about="Add a message, a figure, or the beginning or end of a span to a trace of one's own.",
            endpoint=log_event,
            tag=TAG,
            body=LlamaStackEventRequest,
            is_empty=True,
        ),
        Operation(
            name="queryTraces",
            method="POST",
            path="/v1/telemetry/traces",
            about="Traces with a span that fulfils every condition.",
            endpoint=query_traces,
            tag=TAG,
            body=LlamaStackTracesRequest,
            answer=LlamaStackTraces,
        ),
        Operation(
            name="getTrace",
            method="GET",
            path="/v1/telemetry/traces/{trace_id}",
            about="A trace.",
            endpoint=get_trace,
            tag=TAG,
            answer=LlamaStackTrace,
        ),
        Operation(
            name="getSpan",
            method="GET",
            path="/v1/telemetry/traces/{trace_id}/spans/{span_id}",
            about="A span.",
            endpoint=get_span,
            tag=TAG,
            answer=LlamaStackSpan,
        ),
        Operation(
            name="querySpans",
            method="POST",
            path="/v1/telemetry/spans",
            about="Spans that fulfil every condition.",
            endpoint=query_spans,
            tag=TAG,
            body=LlamaStackSpansRequest,
            answer=LlamaStackSpans,
        ),
        Operation(
            name="exportSpans",
            method="POST",
            path="/v1/telemetry/spans/export",
            about="Append spans that fulfil every condition to a dataset.",
            endpoint=export_spans,
            tag=TAG,
            body=LlamaStackExportRequest,
            is_empty=True,
        ),
        Operation(
            name="getSpanTree",
            method="POST",
            path="/v1/telemetry/spans/{span_id}/tree",
            about="A span and those below it.",
            endpoint=span_tree,
            tag=TAG,
            body=LlamaStackTreeRequest,
            answer=LlamaStackSpanTree,
        ),
    ]


def _owner(http: Request) -> str:
    return exchange_of(http).principal.name


def _filters(conditions: Sequence[LlamaStackCondition] | None) -> list[Filter]:
    return [Filter(one.key, one.op, one.value) for one in conditions or ()]


def _set_aside(wire: LlamaStackEventRequest) -> tuple[str, ...]:
    return () if wire.ttl_seconds is None else ("ttl_seconds",)
