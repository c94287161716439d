"""Where in which trace the current work stands: W3C trace context in and out, and spans as plain records.

Knows no exporter and no network. Without a `Tracer` nothing is recorded, and a trace that came with a request is only
handed on. Spans hold names, numbers and ids, never what was said.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["server", "client", "internal"]
Attribute = str | int | float | bool | Sequence[str]

MAX_SPANS = 512
"""Spans of one request; more are counted and not kept."""
MAX_STATE_CHARS = 512
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE = re.compile(r"[\x20-\x7e]*")
_NONE = ("0" * 32, "0" * 16)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One place in a trace."""

    trace_id: str
    """32 lower-case hex digits."""
    span_id: str
    """16 lower-case hex digits."""
    is_sampled: bool = True
    state: str = ""
    """What other tracers want handed on; opaque."""

    @classmethod
    def read(cls, parent: str | None, state: str | None = None) -> TraceContext | None:
        """From the headers `traceparent` and `tracestate`; None where they are absent or ill-formed."""
        match = _PARENT.fullmatch(parent or "")
        if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
            return None
        if match[2] == _NONE[0] or match[3] == _NONE[1]:
            return None
        is_plain = state is not None and len(state) <= MAX_STATE_CHARS and _STATE.fullmatch(state)
        return cls(match[2], match[3], bool(int(match[4], 16) & 1), state if state and is_plain else "")

    def headers(self) -> dict[str, str]:
        """The inverse of `read`."""
        made = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"}
        return made | ({"tracestate": self.state} if self.state else {})


@dataclass(slots=True, eq=False)
class Span:
    """A stretch of work."""

    name: str
    kind: Kind
    context: TraceContext
    parent_id: str | None
    start_ns: int = field(default_factory=time.time_ns)
    end_ns: int = 0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    fault: str | None = None
    """The kind of error it ended by."""


Sink = Callable[[str, Sequence[Span]], None]
"""Takes the ended spans of one request, with the name of whose request it was; must not wait."""


class Tracer:
    """Begins traces, and hands on their spans when they end."""

    def __init__(self, sinks: Sequence[Sink], *, sample: float = 1.0) -> None:
        self._sinks = tuple(sinks)
        self._sample = sample

    def begin(self, name: str, kind: Kind, given: TraceContext | None) -> Trace:
        """A trace of its own, or the part of a given one that is here."""
        # Sampling follows the caller's word; without one the part of all traces that was asked for is kept.
        is_sampled = given.is_sampled if given is not None else random.random() < self._sample
        trace_id = secrets.token_hex(16) if given is None else given.trace_id
        context = TraceContext(trace_id, secrets.token_hex(8), is_sampled, "" if given is None else given.state)
        return Trace(Span(name, kind, context, None if given is None else given.span_id), self)

    def end(self, trace: Trace, owner: str) -> None:
        """Hand on the spans of a trace."""
        trace.is_open = False
        if trace.root.context.is_sampled:
            for sink in self._sinks:
                sink(owner, trace.spans)


class Trace:
    """The part of a trace that happens here, while it happens."""

    __slots__ = ("is_open", "root", "spans", "tracer")

    def __init__(self, root: Span, tracer: Tracer | None) -> None:
        self.root = root
        self.tracer = tracer
        self.spans: list[Span] = [root]
        self.is_open = True

    def child(self, name: str, kind: Kind, parent_id: str) -> Span:
        """A span below another; it is kept while the trace is open and not too long."""
        context = TraceContext(
            self.root.context.trace_id, secrets.token_hex(8), self.root.context.is_sampled, self.root.context.state
        )
        span = Span(name, kind, context, parent_id)
        if self.is_open and len(self.spans) < MAX_SPANS:
            self.spans.append(span)
        return span


@dataclass(frozen=True, slots=True)
class Place:
    """A trace and the span in it that is current."""

    trace: Trace
    span: Span


PLACE: ContextVar[Place | None] = ContextVar("llamakit trace", default=None)


def passing(given: TraceContext) -> Place:
    """The place of work that records nothing and hands a given trace on."""
    span = Span("", "internal", given, None)
    return Place(Trace(span, None), span)


def current() -> TraceContext | None:
    """Where the current work stands; None outside every trace."""
    place = PLACE.get()
    return None if place is None else place.span.context


def outgoing() -> Mapping[str, str]:
    """Headers that let another service go on with the trace; none where there is none, or it has ended."""
    place = PLACE.get()
    return {} if place is None or not place.trace.is_open else place.span.context.headers()


def start(name: str, kind: Kind = "internal") -> Span | None:
    """A span below the current one, which the caller ends by `end`; None where nothing is recorded."""
    place = PLACE.get()
    if place is None or place.trace.tracer is None or not place.trace.is_open:
        return None
    return place.trace.child(name, kind, place.span.context.span_id)


def end(span: Span, fault: BaseException | None = None) -> None:
    """The span has ended; twice changes nothing."""
    if not span.end_ns:
        span.end_ns = time.time_ns()
        span.fault = None if fault is None else type(fault).__name__


@contextmanager
def within(span: Span | None) -> Iterator[None]:
    """Let `span` be the current one inside the block."""
    before = PLACE.get()
    if span is None or before is None:
        yield
        return
    PLACE.set(Place(before.trace, span))
    try:
        yield
    finally:
        # Set rather than reset: a generator may be closed in another context than it was begun in.
        PLACE.set(before)


def tool_span(name: str) -> AbstractContextManager[Span | None]:
    """A span of carrying out a tool, under the names of OpenTelemetry's conventions; not what it was told or said."""
    facts: dict[str, Attribute] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name[:128]}
    return span(f"execute_tool {name[:128]}", attributes=facts)


@contextmanager
def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None
) -> Iterator[Span | None]:
    """Record the block as a span below the current one; nothing happens where nothing is recorded."""
    made = start(name, kind)
    if made is None:
        yield None
        return
    made.attributes.update(attributes or {})
    fault: BaseException | None = None
    try:
        with within(made):
            yield made
    except BaseException as raised:
        fault = raised
        raise
    finally:
        end(made, fault)
