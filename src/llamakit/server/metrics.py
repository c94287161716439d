"""What the server counts, in Prometheus' text form; vLLM's names where the meaning is the same.

Times are taken at the server, from its own monotonic clock, at the events of an answer; what only the engine
knows is asked of it when somebody looks. Every application has a registry of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llamakit import __version__
from llamakit.api.inference import ModelStats
from llamakit.core.messages import AnswerEvent, Done, Finish, PrefillProgress, TextDelta, ToolCallDelta
from llamakit.server.exchange import Exchange
from llamakit.server.histogram import Tally, TallyHistogram
from llamakit.server.telemetry import Telemetry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_NEXT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 40, 80)
_WHOLE_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_MODEL = ("model_name",)
M = TypeVar("M", Counter, Histogram)


class Metrics:
    """Counters and histograms of one application."""

    def __init__(self, stats: Callable[[], Sequence[ModelStats]]) -> None:
        self.registry = CollectorRegistry()
        self.telemetry = Telemetry()
        """Who is told of every generation beside these counters."""
        self.registry.register(_EngineCollector(stats))
        ProcessCollector(registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, _MODEL, buckets=buckets, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self.first_s = histogram("vllm:time_to_first_token_seconds", "Time to first token.", _FIRST_S)
        self.next_s = TallyHistogram(
            "vllm:inter_token_latency_seconds", "Time between events of an answer.", _MODEL[0], _NEXT_S
        )
        self.registry.register(self.next_s)
        self.whole_s = histogram("vllm:e2e_request_latency_seconds", "Time of a whole request.", _WHOLE_S)
        self.queue_s = histogram("vllm:request_queue_time_seconds", "Time a request waited.", _WHOLE_S)
        self.prefill_s = histogram("vllm:request_prefill_time_seconds", "Time of a request's prefill.", _WHOLE_S)
        self.decode_s = histogram("vllm:request_decode_time_seconds", "Time of a request's decoding.", _WHOLE_S)
        self.prompt_size = histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", _TOKENS)
        self.answer_size = histogram("vllm:request_generation_tokens", "Generated tokens of a request.", _TOKENS)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens processed.", *_MODEL)
        self.answer_tokens = counter("vllm:generation_tokens", "Tokens generated.", *_MODEL)
        self.cached_tokens = counter("llamakit:prompt_tokens_cached", "Prompt tokens found in cache.", *_MODEL)
        self.success = counter("vllm:request_success", "Choices that ended, by reason.", *_MODEL, "finished_reason")
        self.accepted = counter("llamakit:generations_accepted", "Generations begun.")
        self.ended = counter("llamakit:generations_ended", "Generations ended, by outcome.", "outcome")
        self.in_work = Gauge("llamakit:generations_in_work", "Generations in work.", registry=self.registry)
        self.http = counter("llamakit:http_requests", "HTTP requests answered.", "method", "route", "status")
        info = Gauge("llamakit:build_info", "Version of this server.", ("version",), registry=self.registry)
        info.labels(version=__version__).set(1)
        self._labelled: dict[tuple[Any, tuple[str, ...]], Any] = {}

    def of(self, metric: M, *labels: str) -> M:
        """A metric under its labels; found once, since finding it costs more than counting."""
        found: M | None = self._labelled.get((metric, labels))
        if found is None:
            found = cast(M, metric.labels(*labels))
            self._labelled[metric, labels] = found
        return found

    def seen(self, exchange: Exchange, seconds: float) -> None:
        """Count an HTTP request; the method is the route's, so that nobody can invent label values."""
        method = exchange.method if exchange.route != "(none)" else "(none)"
        self.of(self.http, method, exchange.route, str(exchange.status)).inc()

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


class Meter:
    """Watches the events of one generation: `see` each, `end` once.

    The model's name comes from the client. It becomes a label only with the first event, when a provider
    answered for it, so that made-up names leave nothing behind.
    """

    def __init__(self, metrics: Metrics, model: str, exchange: Exchange) -> None:
        self._metrics = metrics
        self._model = model
        self._exchange = exchange
        self._started = self._last = time.monotonic()
        self._next_s: Tally | None = None
        self._reasons: list[str] = []
        self._done: Done | None = None
        self._has_ended = False
        self._first_s: float | None = None
        self._generation = metrics.telemetry.generation(model, exchange)
        self.span = self._generation.span
        """The span of this generation, where one is recorded."""
        metrics.accepted.inc()
        metrics.in_work.inc()

    def see(self, event: AnswerEvent) -> None:
        """The next event."""
        match event:
            case TextDelta() | ToolCallDelta():
                now = time.monotonic()
                if self._next_s is None:
                    self._next_s = self._metrics.next_s.of(self._model)
                    self._first_s = now - self._started
                    self._metrics.of(self._metrics.first_s, self._model).observe(self._first_s)
                else:
                    self._next_s.observe(now - self._last)
                self._last = now
            case Finish():
                self._reasons.append(event.reason)
            case Done():
                self._done = event
            case PrefillProgress():
                pass

    def end(self, fault: BaseException | None = None) -> None:
        """The generation ended: well if `Done` was seen, else by `fault` or because nobody waited any more."""
        if self._has_ended:
            return
        self._has_ended = True
        outcome = "finished" if self._done is not None else "failed" if isinstance(fault, Exception) else "cancelled"
        metrics, model = self._metrics, self._model
        metrics.in_work.dec()
        metrics.of(metrics.ended, outcome).inc()
        self._exchange.outcome = outcome
        self._generation.end(
            None if self._done is None else self._done.usage,
            self._reasons,
            fault if outcome == "failed" else None,
            first_s=self._first_s,
            last_s=None if self._first_s is None else self._last - self._started,
        )
        if self._done is None:
            return
        usage, timings = self._done.usage, self._done.timings
        self._exchange.prompt_tokens += usage.prompt_tokens
        self._exchange.completion_tokens += usage.completion_tokens
        for histogram, value in (
            (metrics.whole_s, time.monotonic() - self._started),
            (metrics.queue_s, timings.queue_s),
            (metrics.prefill_s, timings.prefill_s),
            (metrics.decode_s, timings.decode_s),
            (metrics.prompt_size, usage.prompt_tokens),
            (metrics.answer_size, usage.completion_tokens),
        ):
            metrics.of(histogram, model).observe(value)
        metrics.of(metrics.prompt_tokens, model).inc(usage.prompt_tokens)
        metrics.of(metrics.answer_tokens, model).inc(usage.completion_tokens)
        metrics.of(metrics.cached_tokens, model).inc(usage.cached_tokens)
        for reason in self._reasons:
            metrics.of(metrics.success, model, reason).inc()


class _EngineCollector(Collector):
    """Asks the engines when somebody looks."""

    def __init__(self, stats: Callable[[], Sequence[ModelStats]]) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        """Nothing is promised before the first look, so registering asks no engine."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One family per figure, a sample per loaded model."""
        families = (
            (GaugeMetricFamily, "vllm:num_requests_running", "Requests in a batch.", lambda s: s.running),
            (GaugeMetricFamily, "vllm:num_requests_waiting", "Requests waiting for room.", lambda s: s.waiting),
            (
                GaugeMetricFamily,
                "vllm:kv_cache_usage_perc",
                "Share of cache in use.",
                lambda s: s.cache_usage,
            ),
            (CounterMetricFamily, "vllm:prefix_cache_queries", "Tokens looked up.", lambda s: s.prefix_queries),
            (CounterMetricFamily, "vllm:prefix_cache_hits", "Tokens found.", lambda s: s.prefix_hits),
            (CounterMetricFamily, "vllm:num_preemptions", "Requests set back for room.", lambda s: s.preemptions),
            (CounterMetricFamily, "vllm:spec_decode_num_draft_tokens", "Proposed.", lambda s: s.drafted_tokens),
            (CounterMetricFamily, "vllm:spec_decode_num_accepted_tokens", "Kept.", lambda s: s.accepted_tokens),
        )
        stats = self._stats()
        for family, name, text, value in families:
            metric = family(name, text, labels=_MODEL)
            for one in stats:
                metric.add_metric((one.model,), value(one))
            yield metric
