"""Traces and figures: to a real OTLP receiver, into the database, over process borders, and into the log."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.serving import MODELS, chat_body, echo_stack, in_process, served

from llamakit.agents.tools import Tool, ToolBox
from llamakit.core import tracing
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.core.messages import ToolCall, ToolSpec
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import build_app
from llamakit.server.logs import JsonFormatter
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import Distribution, TelemetryConfig, single
from llamakit.stack.run_config import ServeConfig

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
PRIVATE = "the-private-words"


class Collector:
    """Takes what is sent to it by OTLP over HTTP."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        messages = [ExportTraceServiceRequest.FromString(body) for path, _, body in self.got if path == "/v1/traces"]
        return [
            (resource.resource, span)
            for message in messages
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self):
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        bodies = [body for path, _, body in self.got if path == "/v1/metrics"]
        messages = [ExportMetricsServiceRequest.FromString(body) for body in bodies]
        return {
            metric.name: metric
            for message in messages
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def facts(attributes):
    """OTLP's attributes as plain values."""
    kinds = {"string_value", "int_value", "double_value", "bool_value"}
    made = {}
    for entry in attributes:
        kind = entry.value.WhichOneof("value")
        value = getattr(entry.value, kind)
        made[entry.key] = value if kind in kinds else [item.string_value for item in value.values]
    return made


@asynccontextmanager
async def serving(inference=None, *, server=None, **telemetry):
    inference = inference or EchoInference(EchoConfig(models=MODELS))
    distribution = Distribution(telemetry=TelemetryConfig(**telemetry))
    stack = Stack(inference=inference, default_models=("echo",), distribution=distribution)
    app = build_app(stack, server or ServeConfig())
    async with app.router.lifespan_context(app), in_process(app) as client:
        yield client, stack


async def test_a_chat_is_one_trace_with_its_figures():
    pytest.importorskip("opentelemetry.sdk")
    with Collector() as collector:
        settings = {"otlp_endpoint": collector.url, "otlp_headers": {"x-api-key": Secret("collector-secret")}}
        async with serving(**settings, service_name="shop", export_s=60) as (client, _):
            answer = await client.post("/v1/chat/completions", json=chat_body(PRIVATE), headers=PARENT)
            body = chat_body(PRIVATE, stream=True)
            await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "req-7"})
        spans = collector.spans()
        resource, server = next((r, s) for r, s in spans if s.parent_span_id.hex() == SPAN)
        assert server.trace_id.hex() == TRACE and server.name == "POST /v1/chat/completions" and server.kind == 2
        assert facts(resource.attributes)["service.name"] == "shop"
        told = facts(server.attributes)
        assert told["http.response.status_code"] == 200 and told["http.route"] == "/v1/chat/completions"
        assert told["llamakit.request_id"] == answer.headers["x-request-id"]
        asked = next(span for _, span in spans if span.parent_span_id == server.span_id)
        assert asked.name == "chat echo" and asked.kind == 3 and asked.trace_id == server.trace_id
        told = facts(asked.attributes)
        usage = answer.json()["usage"]
        assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.request.model"] == "echo"
        assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
        assert told["gen_ai.response.finish_reasons"] == ["stop"]
        other = next(span for _, span in spans if facts(span.attributes).get("llamakit.request_id") == "req-7")
        assert other.trace_id != server.trace_id and not other.parent_span_id
        assert other.start_time_unix_nano <= other.end_time_unix_nano
        metrics = collector.metrics()
        assert set(metrics) == {
            "http.server.request.duration",
            "gen_ai.server.request.duration",
            "gen_ai.server.time_to_first_token",
            "gen_ai.server.time_per_output_token",
            "gen_ai.client.token.usage",
        }
        points = metrics["gen_ai.client.token.usage"].histogram.data_points
        totals = {facts(point.attributes)["gen_ai.token.type"]: point.sum for point in points}
        assert totals == {"input": 2 * usage["prompt_tokens"], "output": 2 * usage["completion_tokens"]}
        for _, headers, body in collector.got:
            assert headers["x-api-key"] == "collector-secret" and PRIVATE.encode() not in body


async def test_failures_are_marked_and_made_up_models_leave_no_figure():
    pytest.importorskip("opentelemetry.sdk")
    with Collector() as collector:
        async with serving(otlp_endpoint=collector.url, export_s=60) as (client, _):
            await client.post("/v1/chat/completions", json=chat_body(model="made-up"))
            await client.request("INVENTED", "/nowhere")
        spans = {span.name: span for _, span in collector.spans()}
        assert set(spans) == {"POST /v1/chat/completions", "chat made-up", "_OTHER (none)"}
        assert facts(spans["chat made-up"].attributes)["error.type"] == "UnknownModel"
        assert spans["chat made-up"].status.code == 2 and spans["POST /v1/chat/completions"].status.code == 0
        assert set(collector.metrics()) == {"http.server.request.duration"}


async def test_a_collector_that_fails_hurts_nobody(caplog):
    pytest.importorskip("opentelemetry.sdk")
    caplog.set_level(logging.INFO, "llamakit")
    with Collector() as collector:
        collector.status = 503
        async with serving(otlp_endpoint=collector.url, export_s=0.1) as (client, _), asyncio.timeout(20):

            async def ask_until(word: str) -> None:
                while word not in caplog.text:
                    assert (await client.post("/v1/chat/completions", json=chat_body())).status_code == 200
                    await asyncio.sleep(0.05)

            await ask_until("answered 503")
            collector.status = 200
            await ask_until("again")
    told = [record.getMessage() for record in caplog.records if "telemetry" in record.getMessage()]
    assert len(told) == 2 and "answered 503" in told[0] and "again" in told[1]


async def test_traces_are_kept_where_wanted():
    async with serving(keep_spans=100) as (client, stack):
        await client.post("/v1/chat/completions", json=chat_body(PRIVATE), headers=PARENT)
        (trace,) = await stack.traces.traces("local")
        spans = await stack.traces.spans("local")
        assert trace["trace_id"] == TRACE and [span["kind"] for span in spans] == ["server", "client"]
        assert PRIVATE not in json.dumps(spans)


async def noon(_) -> str:
    return "noon"


async def test_tools_and_vectors_are_spans_of_their_own():
    async with serving(keep_spans=100) as (client, stack):
        await client.post("/v1/embeddings", json={"model": "echo", "input": PRIVATE})
        spans = await stack.traces.spans("local")
        assert [span["name"] for span in spans] == ["POST /v1/embeddings", "embeddings echo"]
        assert spans[1]["attributes"]["gen_ai.usage.input_tokens"] > 0
        trace = (tracer := tracing.Tracer([stack.traces.record])).begin("turn", "server", None)
        tracing.PLACE.set(tracing.Place(trace, trace.root))
        box = ToolBox.of([Tool(spec=ToolSpec(name="clock", description="", parameters={}), call=noon)])
        assert (await box.call(ToolCall(id="1", name="clock", arguments="{}"))).text == "noon"
        tracing.PLACE.set(None)
        tracer.end(trace, "local")
        assert "execute_tool clock" in [span["name"] for span in await stack.traces.spans("local")]


async def test_background_work_has_traces_of_its_own():
    async with serving(keep_spans=100) as (client, stack):
        body = {"model": "echo", "input": PRIVATE, "background": True}
        made = await client.post("/v1/responses", json=body, headers=PARENT)
        async with asyncio.timeout(5):
            while (await client.get(f"/v1/responses/{made.json()['id']}")).json()["status"] != "completed":
                await asyncio.sleep(0.02)
        spans = await stack.traces.spans("local")
        (root,) = (span for span in spans if span["name"] == "background answer")
        assert root["parent_id"] is None and root["trace_id"] != TRACE
        assert [span["name"] for span in spans if span["parent_id"] == root["span_id"]] == ["chat echo"]


async def test_what_is_not_sampled_is_not_kept():
    async with serving(keep_spans=100, sample=0.0) as (client, stack):
        await client.get("/v1/models")
        await client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert await stack.traces.traces("local") == []
        await client.get("/v1/models", headers=PARENT)
        assert len(await stack.traces.traces("local")) == 1


def gateway_to(url, **telemetry):
    """The distribution of a gateway to the server at a URL."""
    settings = {"base_url": url, "retries": 0, "models": ("echo",)}
    told = TelemetryConfig(**telemetry)
    return single("remote::llamakit", ("echo",), settings, database=":memory:", telemetry=told)


@pytest.mark.parametrize("records", [True, False])
async def test_a_trace_goes_on_behind_a_gateway(records):
    told = Distribution(telemetry=TelemetryConfig(keep_spans=100))
    behind = Stack(inference=EchoInference(EchoConfig(models=MODELS)), default_models=("echo",), distribution=told)
    with served(behind) as there:
        gateway = build_stack(gateway_to(there.base_url, keep_spans=100 if records else 0))
        app = build_app(gateway, ServeConfig())
        async with in_process(app) as client:
            answer = await client.post("/v1/chat/completions", json=chat_body(), headers=PARENT)
            assert answer.status_code == 200
            mine = await gateway.traces.spans("local")
        await gateway.aclose()
        deadline = time.monotonic() + 5
        found = []
        while not found and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            found = [span for span in await behind.traces.spans("local") if span["kind"] == "server"]
        asked = [span["span_id"] for span in mine if span["kind"] == "client"]
        assert (found[0]["trace_id"], found[0]["parent_id"]) == (TRACE, asked[0] if records else SPAN)


async def test_log_lines_name_request_and_trace(caplog):
    caplog.set_level(logging.INFO, "llamakit")
    lines = []

    class Keep(logging.Handler):
        def emit(self, record) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    handler = Keep()
    logging.getLogger("llamakit").addHandler(handler)
    try:
        async with in_process(build_app(echo_stack(), ServeConfig())) as client:
            await client.get("/v1/models", headers={**PARENT, "x-request-id": "req-9"})
            await client.get("/v1/models")
    finally:
        logging.getLogger("llamakit").removeHandler(handler)
    first, second = (line for line in lines if line["logger"] == "llamakit.server.access")
    assert (first["request_id"], first["trace_id"], first["span_id"]) == ("req-9", TRACE, SPAN)
    assert "trace_id" not in second and second["request_id"].startswith("req")


def test_an_endpoint_with_credentials_is_refused():
    pytest.importorskip("opentelemetry.sdk")
    from llamakit.server.otel import OtelExporter

    with pytest.raises(ConfigError):
        OtelExporter(TelemetryConfig(otlp_endpoint="http://user:secret@localhost:4318"))
