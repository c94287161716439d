"""Traces in the database: by owner, found by filters, as trees, and never more than allowed."""

from __future__ import annotations

import pytest
from tests.postgres import empty_database

from llamakit.core import tracing
from llamakit.core.errors import ConfigError, InvalidRequest, NotFound
from llamakit.stack import telemetry
from llamakit.stack.distribution import TelemetryConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage
from llamakit.stack.telemetry import Filter, Traces


@pytest.fixture
async def traces(tmp_path):
    storage = Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS)
    traces = Traces(storage, max_spans=1000)
    yield traces
    await traces.aclose()
    await storage.aclose()


def record(traces, owner="anna", name="POST /v1/chat/completions", **attributes):
    """A trace of a request with one span below another."""
    tracer = tracing.Tracer([traces.record])
    trace = tracer.begin(name, "server", None)
    trace.root.attributes.update(attributes)
    tracing.PLACE.set(tracing.Place(trace, trace.root))
    with tracing.span("chat echo", "client", {"tokens": 7}), tracing.span("deep"):
        pass
    tracing.PLACE.set(None)
    tracing.end(trace.root)
    tracer.end(trace, owner)
    return trace


async def test_a_trace_is_found_with_its_spans(traces):
    made = record(traces, route="/v1/x", status=200)
    (found,) = await traces.traces("anna")
    assert found["trace_id"] == made.root.context.trace_id and found["root_span_id"] == made.root.context.span_id
    assert found["end_time_ns"] >= found["start_time_ns"]
    assert await traces.trace("anna", found["trace_id"]) == found
    spans = await traces.spans("anna")
    assert [span["name"] for span in spans] == [made.root.name, "chat echo", "deep"]
    root = await traces.span("anna", found["trace_id"], found["root_span_id"])
    assert root["attributes"] == {"route": "/v1/x", "status": 200} and root["status"] == "ok"
    tree = await traces.span_tree("anna", found["root_span_id"])
    assert [span["depth"] for span in tree.values()] == [0, 1, 2]
    assert len(await traces.span_tree("anna", found["root_span_id"], 1)) == 2


async def test_filters(traces):
    record(traces, model="a", status=200)
    record(traces, model="b", status=500)

    async def count(*filters):
        return len(await traces.traces("anna", filters))

    assert await count(Filter("model", "eq", "a")) == 1
    assert await count(Filter("status", "gt", 300)) == await count(Filter("status", "lt", 300)) == 1
    assert await count(Filter("status", "gt", "x")) == await count(Filter("nothing", "eq", 1)) == 0
    assert await count(Filter("name", "eq", "deep")) == 2
    assert await count(Filter("model", "eq", "a"), Filter("status", "eq", 500)) == 0
    assert len(await traces.spans("anna", [Filter("tokens", "eq", 7)])) == 2
    newest, oldest = await traces.traces("anna")
    assert newest["start_time_ns"] > oldest["start_time_ns"]
    assert await traces.traces("anna", limit=1, offset=1) == [oldest]
    with pytest.raises(InvalidRequest):
        await traces.traces("anna", limit=0)


async def test_traces_belong_to_whoever_made_them(traces):
    made = record(traces)
    context = made.root.context
    assert await traces.traces("boris") == [] == await traces.spans("boris")
    for owner, trace, span in (
        ("boris", context.trace_id, context.span_id),
        ("anna", "0" * 32, context.span_id),
        ("anna", "%", context.span_id),
        ("anna", context.trace_id, "0" * 16),
    ):
        with pytest.raises(NotFound):
            await traces.span(owner, trace, span)
    for owner, span in (("boris", context.span_id), ("anna", "x' OR 1=1")):
        with pytest.raises(NotFound):
            await traces.span_tree(owner, span)


async def test_the_oldest_leave(traces, monkeypatch):
    monkeypatch.setattr(telemetry, "TRIM_EVERY", 1)
    traces._max_spans = 6
    made = [record(traces, number=number) for number in range(5)]
    kept = await traces.spans("anna")
    assert len(kept) == 6 and kept[-1]["trace_id"] == made[-1].root.context.trace_id


async def test_a_flood_is_bounded(traces, monkeypatch):
    monkeypatch.setattr(telemetry, "MAX_WAITING", 4)
    for _ in range(5):
        record(traces)
    assert len(await traces.spans("anna")) == 4 and traces._num_dropped == 11


async def test_nothing_is_kept_unless_wanted(tmp_path):
    storage = Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS)
    traces = Traces(storage)
    record(traces)
    assert not traces.is_on and await traces.spans("anna") == []
    await storage.aclose()


def test_circles_end():
    """Spans that name one another as parents, as a client may say."""
    spans = [
        {"trace_id": "t", "span_id": one, "parent_id": other, "start_ns": 1, "end_ns": 2}
        for one, other in (("a", "b"), ("b", "a"))
    ]
    assert telemetry._trace(spans)["root_span_id"] == "a"


@pytest.mark.parametrize("wrong", [{"sample": 2}, {"export_s": 0}, {"keep_spans": -1}, {"otlp_endpoint": "collector"}])
def test_settings(wrong):
    with pytest.raises(ConfigError):
        TelemetryConfig(**wrong)


async def test_on_postgres(postgres_server, monkeypatch):
    monkeypatch.setattr(telemetry, "TRIM_EVERY", 1)
    async with empty_database(postgres_server) as url:
        storage = Storage(url, STEPS)
        traces = Traces(storage, max_spans=3)
        made = record(traces, status=200)
        record(traces, status=500)
        assert len(await traces.spans("anna")) == 3
        assert len(await traces.span_tree("anna", (await traces.spans("anna"))[-1]["span_id"])) == 1
        assert [span["attributes"] for span in await traces.spans("anna", [Filter("status", "gt", 300)])]
        with pytest.raises(NotFound):
            await traces.trace("anna", made.root.context.trace_id)
        await traces.aclose()
        await storage.aclose()
