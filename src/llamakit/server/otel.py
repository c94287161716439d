"""Spans and figures to an OpenTelemetry collector: OTLP over HTTP, by the SDK's batching and our outbound client.

The SDK collects, batches and encodes; the bytes leave through the one guarded client, to the one configured host.
Imported only where an endpoint is configured; the packages are the extra `otel`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from llamakit import __version__
from llamakit.core.errors import ConfigError, LlamakitError, MissingExtra
from llamakit.core.tracing import Attribute, Span, TraceContext
from llamakit.outbound.client import OutboundClient, OutboundLimits
from llamakit.outbound.policy import OutboundPolicy
from llamakit.stack.distribution import TelemetryConfig

try:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
except ImportError as error:
    raise MissingExtra("telemetry.otlp_endpoint needs OpenTelemetry: pip install 'llamakit[otel]'") from error

log = logging.getLogger(__name__)

SEND_S = 5.0
"""Seconds that a collector gets for a batch; a server that stops waits no longer either."""
MAX_QUEUE = 4096
"""Spans that wait to be sent; more are dropped by the SDK."""
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_WHOLE = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

HISTOGRAMS: dict[str, tuple[str, str, Sequence[float]]] = {
    # name: unit, meaning, boundaries; as the conventions have them
    "http.server.request.duration": ("s", "Duration of HTTP server requests.", _SECONDS),
    "gen_ai.server.request.duration": ("s", "Duration of a model's answer.", _WHOLE),
    "gen_ai.server.time_to_first_token": ("s", "Time until the first token of an answer.", _FIRST),
    "gen_ai.server.time_per_output_token": ("s", "Time per token after the first.", _EACH),
    "gen_ai.client.token.usage": ("{token}", "Tokens of prompts and answers.", _TOKENS),
}


class OtelExporter:
    """Sends spans and figures to one collector."""

    def __init__(self, config: TelemetryConfig) -> None:
        sender = _Sender(config)
        self._resource = Resource.create({"service.name": config.service_name, "service.version": __version__})
        self._scope = InstrumentationScope("llamakit", __version__)
        self._processor = BatchSpanProcessor(
            _Spans(sender), max_queue_size=MAX_QUEUE, schedule_delay_millis=config.export_s * 1000
        )
        reader = PeriodicExportingMetricReader(
            _Metrics(sender), export_interval_millis=config.export_s * 1000, export_timeout_millis=SEND_S * 1000
        )
        self._meters = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
        meter = self._meters.get_meter("llamakit", __version__)
        self._histograms = {
            name: meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=bounds)
            for name, (unit, about, bounds) in HISTOGRAMS.items()
        }

    def spans(self, owner: str, spans: Sequence[Span]) -> None:
        """Have ended spans sent with the next batch."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def measure(self, name: str, value: float, attributes: Mapping[str, Attribute]) -> None:
        """Count a value."""
        self._histograms[name].record(value, dict(attributes))

    async def aclose(self) -> None:
        """Send what waits; the SDK's threads end."""
        await asyncio.gather(asyncio.to_thread(self._processor.shutdown), asyncio.to_thread(self._meters.shutdown))

    def _readable(self, span: Span) -> ReadableSpan:
        parent = None if span.parent_id is None else _context(span.context, span.parent_id)
        return ReadableSpan(
            name=span.name,
            context=_context(span.context, span.context.span_id),
            parent=parent,
            resource=self._resource,
            attributes=dict(span.attributes),
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET if span.fault is None else StatusCode.ERROR),
            start_time=span.start_ns,
            end_time=span.end_ns or span.start_ns,
            instrumentation_scope=self._scope,
        )


def _context(context: TraceContext, span_id: str) -> SpanContext:
    return SpanContext(
        trace_id=int(context.trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([context.state] if context.state else []),
    )


class _Sender:
    """Posts encoded batches from the SDK's threads, each on a loop of its own."""

    def __init__(self, config: TelemetryConfig) -> None:
        self._base = (config.otlp_endpoint or "").rstrip("/")
        parts = urlsplit(self._base)
        if parts.query or parts.username:
            raise ConfigError("telemetry.otlp_endpoint has no query and no credentials; they go into otlp_headers")
        self._policy = OutboundPolicy.to(self._base)
        self._headers = {name: value.reveal() for name, value in config.otlp_headers.items()}
        self._has_failed = False
        self._lock = threading.Lock()

    def send(self, path: str, body: bytes) -> bool:
        """Whether the collector took it; what it did not take is dropped, and said once."""
        try:
            status = asyncio.run(self._post(path, body))
            reason = "" if 200 <= status < 300 else f"it answered {status}"
        except (LlamakitError, OSError) as fault:
            reason = str(fault)
        # Spans and figures come from two threads.
        with self._lock:
            had_failed, self._has_failed = self._has_failed, bool(reason)
        if reason and not had_failed:
            log.warning("telemetry could not be sent to %s%s and is dropped: %s", self._base, path, reason)
        elif not reason and had_failed:
            log.info("telemetry is sent to %s again", self._base)
        return not reason

    async def _post(self, path: str, body: bytes) -> int:
        client = OutboundClient(self._policy, limits=OutboundLimits(max_bytes=1 << 20, total_s=SEND_S))
        try:
            headers = {**self._headers, "content-type": "application/x-protobuf"}
            return (await client.request("POST", f"{self._base}{path}", headers=headers, content=body)).status
        finally:
            await client.aclose()


class _Spans(SpanExporter):
    def __init__(self, sender: _Sender) -> None:
        self._sender = sender

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        taken = self._sender.send("/v1/traces", encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE


class _Metrics(MetricExporter):
    def __init__(self, sender: _Sender) -> None:
        super().__init__()
        self._sender = sender

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        taken = self._sender.send("/v1/metrics", encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS if taken else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing is held here."""
