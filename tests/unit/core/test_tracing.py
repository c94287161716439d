"""Trace contexts over the wire, and spans as records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.core import tracing
from llamakit.core.tracing import Place, TraceContext, Tracer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def outside():
    tracing.PLACE.set(None)
    yield
    tracing.PLACE.set(None)


def test_a_context_survives_the_wire():
    context = TraceContext.read(f"00-{TRACE}-{SPAN}-01", "vendor=1")
    assert context == TraceContext(TRACE, SPAN, True, "vendor=1")
    assert TraceContext.read(*context.headers().values()) == context
    assert TraceContext.read(f"00-{TRACE}-{SPAN}-00").headers() == {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    assert TraceContext.read(f"cc-{TRACE}-{SPAN}-01-what-may-come").trace_id == TRACE


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-x",
        f"00-{TRACE}-{SPAN}-01\r\nx: y",
        f"0٠-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_context(parent):
    assert TraceContext.read(parent) is None


@given(st.text(max_size=80), st.text(max_size=80))
def test_headers_of_others_are_never_an_error(parent, state):
    context = TraceContext.read(parent, state)
    assert context is None or TraceContext.read(**dict(zip(("parent", "state"), context.headers().values()))) == context


def test_a_state_that_could_break_a_header_is_left_out():
    assert TraceContext.read(f"00-{TRACE}-{SPAN}-01", "a=1\r\nx: y").state == ""
    assert TraceContext.read(f"00-{TRACE}-{SPAN}-01", "a" * 600).state == ""


def test_spans_are_handed_on_together():
    handed = []
    tracer = Tracer([lambda owner, spans: handed.append((owner, list(spans)))])
    trace = tracer.begin("root", "server", TraceContext(TRACE, SPAN))
    tracing.PLACE.set(Place(trace, trace.root))
    with pytest.raises(ValueError), tracing.span("outer", attributes={"size": 1}) as outer:
        assert tracing.current() == outer.context
        assert tracing.outgoing()["traceparent"] == f"00-{TRACE}-{outer.context.span_id}-01"
        with tracing.span("inner"):
            raise ValueError("what was said stays out of spans")
    tracer.end(trace, "anna")
    ((owner, spans),) = handed
    assert owner == "anna" and [span.name for span in spans] == ["root", "outer", "inner"]
    assert [span.parent_id for span in spans] == [SPAN, trace.root.context.span_id, outer.context.span_id]
    assert spans[2].fault == "ValueError" and outer.attributes == {"size": 1}
    assert tracing.outgoing() == {} and tracing.start("late") is None


def test_without_a_tracer_a_trace_only_passes_through():
    given = TraceContext(TRACE, SPAN)
    tracing.PLACE.set(tracing.passing(given))
    with tracing.span("x") as made:
        assert made is None and tracing.outgoing() == given.headers()


def test_outside_every_trace_nothing_happens():
    with tracing.span("x") as made:
        assert made is None
    assert tracing.outgoing() == {} and tracing.current() is None


@pytest.mark.parametrize(("given", "sample", "kept"), [(None, 0, 0), (None, 1, 1), (True, 0, 1), (False, 1, 0)])
def test_sampling_follows_the_caller(given, sample, kept):
    handed = []
    tracer = Tracer([lambda *_: handed.append(1)], sample=sample)
    context = None if given is None else TraceContext(TRACE, SPAN, given)
    tracer.end(tracer.begin("root", "server", context), "anna")
    assert len(handed) == kept


def test_a_trace_is_bounded():
    tracer = Tracer([])
    trace = tracer.begin("root", "server", None)
    tracing.PLACE.set(Place(trace, trace.root))
    for _ in range(tracing.MAX_SPANS + 10):
        with tracing.span("x"):
            pass
    assert len(trace.spans) == tracing.MAX_SPANS
