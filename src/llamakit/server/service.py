"""What every route works with: the stack, the settings, the limits, and the books."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.inference import AnswerStream, ChatRequest, Inference
from llamakit.api.limits import LIMITS, Limits
from llamakit.api.wire import Wire
from llamakit.core.messages import Answer, AnswerEvent, AnswerFold
from llamakit.core.tracing import within
from llamakit.server.body import read_wire
from llamakit.server.dialects import OPENAI_EVENTS, Framing, framing_for
from llamakit.server.exchange import Exchange, Principal, exchange_of
from llamakit.server.gone import Drain, while_wanted
from llamakit.server.guard import Guard, build_guard
from llamakit.server.merge import merged
from llamakit.server.metrics import Meter, Metrics
from llamakit.server.routing import json_response
from llamakit.server.sse import EventStream, Pieces
from llamakit.server.telemetry import Telemetry, build_telemetry
from llamakit.stack.build import Stack
from llamakit.stack.run_config import ServeConfig

T = TypeVar("T")
W = TypeVar("W", bound=Wire)
Write = Callable[[int, AnswerEvent], Iterator[str]]
"""Chunks that an event of the n-th stream makes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request about to be answered, and how its answer is spelled."""

    model: str
    streams: Sequence[AnswerStream]
    write: Callable[[], Write]
    """Makes the writer of a streamed answer."""
    body: Callable[[Sequence[Answer]], dict[str, Any]]
    """The whole answers of the streams as one body."""
    keep: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    """Keeps such a body before it is sent; a streamed answer is kept by its stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One application's common ground."""

    stack: Stack
    config: ServeConfig
    metrics: Metrics
    limits: Limits = LIMITS
    drain: Drain = field(default_factory=Drain)
    guard: Guard = field(init=False)
    telemetry: Telemetry = field(init=False)

    @property
    def inference(self) -> Inference:
        """The models."""
        return self.stack.inference

    async def read(
        self, request: Request, kind: type[W], set_aside: Callable[[W], tuple[str, ...]] = lambda _: ()
    ) -> W:
        """The request's body as `kind`, under the limits and the strictness of this server."""
        strict = self.config.strict
        return await read_wire(request, kind, limits=self.limits, strict=strict, set_aside=set_aside)

    def __post_init__(self) -> None:
        object.__setattr__(self, "guard", build_guard(self.config, self.stack))
        object.__setattr__(self, "telemetry", build_telemetry(self.stack))
        self.metrics.telemetry = self.telemetry
        self.stack.responses.background.chat = self.metered_alone

    def metered(self, request: Request) -> Callable[[ChatRequest], AnswerStream]:
        """The models, each answer counted on the request's books."""
        return self.metered_for(exchange_of(request))

    def metered_for(self, exchange: Exchange) -> Callable[[ChatRequest], AnswerStream]:
        """The same on the books of any exchange."""
        return lambda asked: _watched(self.inference.chat(asked), self.metrics, asked.model, exchange)

    def metered_alone(self, owner: str) -> Callable[[ChatRequest], AnswerStream]:
        """The same for work that no request waits for: its tokens count against the limits of its owner."""

        async def chat(asked: ChatRequest) -> AnswerStream:
            principal = Principal(name=owner)
            exchange = Exchange(id=asked.context.id, method="(background)", principal=principal, model=asked.model)
            try:
                with self.telemetry.alone("background answer", owner):
                    async with aclosing(self.metered_for(exchange)(asked)) as events:
                        async for event in events:
                            yield event
            finally:
                await self.guard.charge(exchange)

        return chat

    async def wanted(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """The result of work, which ends when the client leaves."""
        return await while_wanted(work, request.receive, self.drain)

    async def body(self, request: Request, call: Call) -> dict[str, Any]:
        """The whole answer to a call, kept where that was asked for; stops when the client leaves."""
        body = call.body(await self.whole(request, call.model, call.streams))
        if call.keep is not None:
            await call.keep(body)
        return body

    async def whole(self, request: Request, model: str, streams: Sequence[AnswerStream]) -> list[Answer]:
        """Every stream to its end, as answers; stops when the client leaves."""
        work = self._folded(exchange_of(request), model, streams)
        return await while_wanted(work, request.receive, self.drain)

    async def body_alone(self, exchange: Exchange, call: Call) -> dict[str, Any]:
        """The same for a call that no request waits for."""
        body = call.body(await self._folded(exchange, call.model, call.streams))
        if call.keep is not None:
            await call.keep(body)
        return body

    async def answered(self, request: Request, call: Call, *, is_streamed: bool) -> Response:
        """The answer to a call, whole or as it comes."""
        if is_streamed:
            return self.streamed(request, call.model, call.streams, call.write())
        return json_response(await self.body(request, call))

    def streamed(
        self,
        request: Request,
        model: str,
        streams: Sequence[AnswerStream],
        write: Write,
        framing: Framing = OPENAI_EVENTS,
    ) -> EventStream:
        """The streams as events or lines; stops when the client leaves."""

        async def pieces() -> AsyncGenerator[str, None]:
            async with aclosing(self._metered(exchange_of(request), model, streams)) as events:
                async for position, event in events:
                    for piece in write(position, event):
                        yield piece

        return self.sent(request, pieces(), framing)

    def sent(self, request: Request, pieces: Pieces, framing: Framing) -> EventStream:
        """Any pieces as they come; stops when the client leaves."""
        exchange = exchange_of(request)
        return EventStream(
            pieces,
            request_id=exchange.id,
            drain=self.drain,
            ping_s=self.config.ping_s,
            framing=framing_for(exchange.dialect, framing),
            dialect=exchange.dialect,
        )

    def _metered(
        self, exchange: Exchange, model: str, streams: Sequence[AnswerStream]
    ) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        watched = [_watched(stream, self.metrics, model, exchange) for stream in streams]
        return merged(watched, self.limits.concurrent_prompts)

    async def _folded(self, exchange: Exchange, model: str, streams: Sequence[AnswerStream]) -> list[Answer]:
        folds = [AnswerFold() for _ in streams]
        if len(folds) == 1:
            (fold,) = folds
            async with aclosing(_watched(streams[0], self.metrics, model, exchange)) as events:
                async for event in events:
                    fold.add(event)
        else:
            async with aclosing(self._metered(exchange, model, streams)) as events:
                async for position, event in events:
                    folds[position].add(event)
        return [fold.answer() for fold in folds]


async def _watched(stream: AnswerStream, metrics: Metrics, model: str, exchange: Exchange) -> AnswerStream:
    """The same events, counted from the moment the first is asked for."""
    meter = Meter(metrics, model, exchange)
    fault: BaseException | None = None
    try:
        async with aclosing(stream) as events:
            # Whom a provider asks it asks before its first event: that belongs below the span of this answer.
            with within(meter.span):
                first = await anext(events, None)
            if first is not None:
                meter.see(first)
                yield first
                async for event in events:
                    meter.see(event)
                    yield event
    except BaseException as raised:
        fault = raised
        raise
    finally:
        meter.end(fault)
