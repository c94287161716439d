"""Telemetry over HTTP: what a server noted of its own requests, and what clients add."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager

import pytest
from tests.serving import chat_body, echo_stack, in_process

from llamakit.api.llama_stack_telemetry import LlamaStackSpans, LlamaStackSpanTree, LlamaStackTraces
from llamakit.core.config import Secret
from llamakit.server.app import build_app
from llamakit.stack.distribution import Distribution
from llamakit.stack.run_config import ServeConfig

KEYS = ("key-of-anna", "key-of-boris")
ANNA, BORIS = ({"authorization": f"Bearer {key}"} for key in KEYS)
TRACE, SPAN, CHILD = "ab" * 16, "cd" * 8, "ef" * 8


@asynccontextmanager
async def client_of(keep: int = 1000, **settings):
    server = ServeConfig(**settings)
    plain = Distribution(server=server)
    distribution = dataclasses.replace(plain, telemetry=dataclasses.replace(plain.telemetry, keep_spans=keep))
    stack = dataclasses.replace(echo_stack(), distribution=distribution)
    async with in_process(build_app(stack, server)) as client:
        try:
            yield client
        finally:
            await stack.aclose()


def event(kind: str, span: str = SPAN, at: str = "2026-01-31T12:00:00Z", **fields) -> dict:
    return {"event": {"type": kind, "trace_id": TRACE, "span_id": span, "timestamp": at, **fields}}


async def test_requests_leave_traces_that_can_be_asked_for():
    async with client_of() as client:
        await client.post("/v1/chat/completions", json=chat_body())
        found = (await client.post("/v1/telemetry/traces", json={})).json()
        LlamaStackTraces.model_validate(found)
        chats = [{"key": "gen_ai.request.model", "op": "eq", "value": "echo"}]
        (trace,) = (await client.post("/v1/telemetry/traces", json={"attribute_filters": chats})).json()["data"]
        assert (await client.get(f"/v1/telemetry/traces/{trace['trace_id']}")).json() == trace
        asked = {"attribute_filters": chats, "attributes_to_return": ["gen_ai.request.model"]}
        spans = (await client.post("/v1/telemetry/spans", json=asked)).json()
        LlamaStackSpans.model_validate(spans)
        assert all(span["attributes"] == {"gen_ai.request.model": "echo"} for span in spans["data"])
        one = spans["data"][0]
        path = f"/v1/telemetry/traces/{one['trace_id']}/spans/{one['span_id']}"
        assert (await client.get(path)).json()["name"] == one["name"]
        tree = await client.post(f"/v1/telemetry/spans/{trace['root_span_id']}/tree", json={})
        LlamaStackSpanTree.model_validate(tree.json())
        assert trace["root_span_id"] in tree.json()["data"]


async def test_clients_add_spans_messages_and_figures():
    async with client_of() as client:
        begin = {"type": "span_start", "name": "work"}
        child = {"type": "span_start", "name": "part", "parent_span_id": SPAN}
        done = {"type": "span_end", "status": "ok"}
        events = [
            event("structured_log", payload=begin, attributes={"n": 1}),
            event("structured_log", CHILD, payload=child),
            event("unstructured_log", message="hello", severity="info"),
            event("metric", metric="tokens", value=3, unit="1"),
            event("structured_log", CHILD, "2026-01-31T12:00:01Z", payload=done | {"status": "error"}),
            event("structured_log", SPAN, "2026-01-31T12:00:02Z", payload=done, attributes={"m": 2}),
        ]
        for one in events:
            assert (await client.post("/v1/telemetry/events", json=one)).status_code == 204
        tree = (await client.post(f"/v1/telemetry/spans/{SPAN}/tree", json={})).json()["data"]
        assert sorted(span["name"] for span in tree.values()) == ["log", "metric", "part", "work"]
        assert tree[SPAN]["attributes"] == {"n": 1, "m": 2} and tree[CHILD]["status"] == "error"
        assert tree[SPAN]["end_time"].startswith("2026-01-31T12:00:02")
        dataset = {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": []}, "dataset_id": "spans"}
        await client.post("/v1/datasets", json=dataset)
        work = [{"key": "name", "op": "eq", "value": "work"}]
        export = {"attribute_filters": work, "attributes_to_save": ["n"], "dataset_id": "spans", "max_depth": 1}
        assert (await client.post("/v1/telemetry/spans/export", json=export)).status_code == 204
        rows = (await client.get("/v1/datasetio/iterrows/spans")).json()["data"]
        assert len(rows) == 4 and {"n": 1} in [row["attributes"] for row in rows]


@pytest.mark.parametrize(
    "bad",
    [
        event("metric", "xyz", metric="m", value=1, unit="1"),
        event("metric", at="yesterday", metric="m", value=1, unit="1"),
        event("structured_log", payload={"type": "span_end", "status": "ok"}),
        event("gossip"),
    ],
)
async def test_events_that_make_no_sense_are_refused(bad: dict):
    async with client_of() as client:
        assert (await client.post("/v1/telemetry/events", json=bad)).status_code == 400


async def test_a_server_that_keeps_nothing_says_how_to():
    async with client_of(keep=0) as client:
        answer = await client.post("/v1/telemetry/traces", json={})
        assert answer.status_code == 400 and "keep_spans" in answer.json()["detail"]


async def test_traces_belong_to_who_made_them():
    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        await client.post("/v1/chat/completions", json=chat_body(), headers=ANNA)
        (trace,) = (await client.post("/v1/telemetry/traces", json={}, headers=ANNA)).json()["data"]
        mine = (await client.post("/v1/telemetry/traces", json={}, headers=BORIS)).json()["data"]
        assert trace["trace_id"] not in [one["trace_id"] for one in mine]
        for path in (f"traces/{trace['trace_id']}", f"traces/{trace['trace_id']}/spans/{trace['root_span_id']}"):
            assert (await client.get(f"/v1/telemetry/{path}", headers=BORIS)).status_code == 404
        tree = f"/v1/telemetry/spans/{trace['root_span_id']}/tree"
        assert (await client.post(tree, json={}, headers=BORIS)).status_code == 404
