"""What a server tells of its requests while and after it answers them: one trace each, and figures.

Names follow OpenTelemetry's conventions for HTTP servers and for generative AI. Of what is said in a request or an
answer nothing is told. Knows sinks and no exporter: `otel.py` has that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from starlette.datastructures import Headers

from llamakit.core import tracing
from llamakit.core.messages import Usage
from llamakit.core.tracing import PLACE, Attribute, Place, Sink, Span, TraceContext, Tracer
from llamakit.server.exchange import Exchange
from llamakit.stack.build import Stack

PROVIDER = "llamakit"
"""`gen_ai.provider.name`: this server, whoever computes behind it."""


class Exporter(Protocol):
    """Takes spans and figures, and sends them somewhere behind the back of the requests."""

    def spans(self, owner: str, spans: Sequence[Span]) -> None:
        """Ended spans of one request."""
        ...

    def measure(self, name: str, value: float, attributes: Mapping[str, Attribute]) -> None:
        """One value of a histogram."""
        ...

    async def aclose(self) -> None:
        """Send what waits."""
        ...


class Telemetry:
    """The traces and figures of one server."""

    def __init__(self, sinks: Sequence[Sink] = (), exporter: Exporter | None = None, *, sample: float = 1.0) -> None:
        sinks = (*sinks, *((exporter.spans,) if exporter is not None else ()))
        self._tracer = Tracer(sinks, sample=sample) if sinks else None
        self._exporter = exporter

    def begin(self, exchange: Exchange, headers: Headers) -> Place | None:
        """A request came: its place in its trace, which is the current one from now on."""
        given = TraceContext.read(headers.get("traceparent"), headers.get("tracestate"))
        if self._tracer is not None:
            trace = self._tracer.begin(exchange.method, "server", given)
            place = Place(trace, trace.root)
        elif given is not None:
            place = tracing.passing(given)
        else:
            return None
        PLACE.set(place)
        return place

    def end(self, exchange: Exchange, place: Place | None, seconds: float) -> None:
        """The answer has been sent."""
        # The method is the route's, so that nobody can invent names.
        method = exchange.method if exchange.route != "(none)" else "_OTHER"
        attributes: dict[str, Attribute] = {
            "http.request.method": method,
            "http.route": exchange.route,
            "http.response.status_code": exchange.status,
        }
        if exchange.status >= 500:
            attributes["error.type"] = str(exchange.status)
        if place is not None and self._tracer is not None:
            root = place.trace.root
            root.name = f"{method} {exchange.route}"
            root.attributes |= attributes | {"llamakit.request_id": exchange.id, "user.id": exchange.principal.name}
            tracing.end(root)
            root.fault = str(exchange.status) if exchange.status >= 500 else None
            self._tracer.end(place.trace, exchange.principal.name)
        if place is not None:
            PLACE.set(None)
        if self._exporter is not None:
            self._exporter.measure("http.server.request.duration", seconds, attributes)

    @contextmanager
    def alone(self, name: str, owner: str) -> Iterator[None]:
        """Record the block as a trace of its own: work that no request waits for."""
        if self._tracer is None:
            yield
            return
        trace, before = self._tracer.begin(name, "internal", None), PLACE.get()
        PLACE.set(Place(trace, trace.root))
        fault: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            fault = raised
            raise
        finally:
            PLACE.set(before)
            tracing.end(trace.root, fault)
            self._tracer.end(trace, owner)

    def generation(self, model: str, exchange: Exchange) -> Generation:
        """A model is about to be asked."""
        return Generation(model, _operation(exchange.route), self._exporter)

    def embedding(self, model: str) -> AbstractContextManager[Span | None]:
        """A model is asked for vectors inside the block."""
        facts: dict[str, Attribute] = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": PROVIDER}
        facts["gen_ai.request.model"] = model[:128]
        return tracing.span(f"embeddings {model[:128]}", "client", facts)

    async def aclose(self) -> None:
        """Send what waits."""
        if self._exporter is not None:
            await self._exporter.aclose()


class Generation:
    """One answer of a model: a span below the request's, and its figures."""

    def __init__(self, model: str, operation: str, exporter: Exporter | None) -> None:
        self._model = model
        self._operation = operation
        self._exporter = exporter
        self._started = time.monotonic()
        self.span = tracing.start(f"{operation} {model[:128]}", "client")

    def end(
        self,
        usage: Usage | None,
        reasons: Sequence[str],
        fault: BaseException | None,
        *,
        first_s: float | None,
        last_s: float | None,
    ) -> None:
        """It ended; `first_s` and `last_s` are when the first and the last piece came, from the beginning."""
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": self._model[:128],
        }
        if fault is not None:
            attributes["error.type"] = type(fault).__name__
        if self.span is not None:
            self.span.attributes |= attributes
            if usage is not None:
                self.span.attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
                self.span.attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
                self.span.attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
                self.span.attributes["gen_ai.response.finish_reasons"] = list(reasons)
                self.span.attributes["gen_ai.response.model"] = self._model[:128]
            tracing.end(self.span, fault)
        # A model that nobody serves is a name that the client made up: no figure is kept under it.
        if self._exporter is None or (usage is None and first_s is None):
            return
        measure = self._exporter.measure
        measure("gen_ai.server.request.duration", time.monotonic() - self._started, attributes)
        if first_s is not None:
            measure("gen_ai.server.time_to_first_token", first_s, attributes)
        if usage is not None:
            if first_s is not None and last_s is not None and usage.completion_tokens > 1:
                each_s = (last_s - first_s) / (usage.completion_tokens - 1)
                measure("gen_ai.server.time_per_output_token", each_s, attributes)
            for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
                measure("gen_ai.client.token.usage", tokens, attributes | {"gen_ai.token.type": kind})


def build_telemetry(stack: Stack) -> Telemetry:
    """What the distribution asks for; raises `MissingExtra` where it needs what is not installed."""
    config = stack.distribution.telemetry
    exporter: Exporter | None = None
    if config.otlp_endpoint is not None:
        from llamakit.server.otel import OtelExporter

        exporter = OtelExporter(config)
    return Telemetry([stack.traces.record] if stack.traces.is_on else [], exporter, sample=config.sample)


def _operation(route: str) -> str:
    return "text_completion" if route.endswith("/completions") and "chat" not in route else "chat"
