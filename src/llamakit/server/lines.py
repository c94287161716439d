"""Lines of a batch: a body to the answer that its endpoint gives, by the very steps of the route, without HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from llamakit.api import openai_chat, openai_responses, openai_sampling
from llamakit.api.moderations import WireModerationRequest
from llamakit.api.openai_completions import WireCompletionRequest
from llamakit.api.openai_embeddings import WireEmbeddingRequest
from llamakit.api.wire import Wire, read
from llamakit.core.errors import InvalidRequest
from llamakit.server.body import check_ignored
from llamakit.server.errors import describe, status_of
from llamakit.server.exchange import Exchange, Principal
from llamakit.server.routes import openai_chat as chat_route
from llamakit.server.routes import openai_completions as completion_route
from llamakit.server.routes import openai_embeddings as embedding_route
from llamakit.server.service import Service
from llamakit.stack.batches import Answered, Asker

W = TypeVar("W", bound=Wire)
LATER = 1
"""Priority of a line that asks for none: whoever waits for an answer goes first."""


class BatchLines:
    """Answers the lines of batches for one application."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._endpoints: Mapping[str, Callable[[dict[str, Any], Exchange], Awaitable[dict[str, Any]]]] = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/embeddings": self._embedding,
            "/v1/responses": self._response,
            "/v1/moderations": self._moderation,
        }

    async def answer(self, endpoint: str, body: Mapping[str, Any], asker: Asker) -> Answered:
        """What the route would answer; whatever goes wrong is an answer too."""
        principal = Principal(name=asker.owner, salt=asker.salt)
        exchange = Exchange(id=asker.request_id, method="(batch)", route=endpoint, principal=principal, deferred=[])

        def refused(fault: Exception) -> Answered:
            return Answered(status=status_of(fault), body=describe(fault, exchange.id), ignored=exchange.ignored)

        try:
            with self._service.telemetry.alone(f"batch {endpoint}", asker.owner):
                answer = await self._endpoints[endpoint](dict(body), exchange)
        except Exception as fault:  # noqa: BLE001 - every failure becomes the line's answer; describe() logs our bugs
            return refused(fault)
        finally:
            await self._service.guard.charge(exchange)
        kept = tuple(exchange.deferred or ())
        return Answered(status=200, body=answer, ignored=exchange.ignored, kept=kept, refused=refused)

    async def _chat(self, body: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        wire = self._read(openai_chat.ChatCompletionRequest, body, exchange, openai_chat.set_aside)
        return await self._service.body_alone(exchange, chat_route.begin(self._service, _later(wire), exchange))

    async def _completion(self, body: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        wire = self._read(WireCompletionRequest, body, exchange, openai_sampling.set_aside)
        call = await completion_route.begin(self._service, _later(wire), exchange)
        return await self._service.body_alone(exchange, call)

    async def _embedding(self, body: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        wire = self._read(WireEmbeddingRequest, body, exchange)
        return await embedding_route.embed(self._service, wire, exchange)

    async def _response(self, body: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        wire = self._read(openai_responses.ResponseRequest, body, exchange, openai_responses.set_aside)
        if wire.background:
            raise InvalidRequest("background has no meaning in a batch, which is one; leave it out", param="background")
        responses = self._service.stack.responses
        plan = await responses.prepare(exchange.principal.name, wire, exchange.principal.salt)
        chat = self._service.metered_for(exchange)
        return await responses.whole(exchange.principal.name, plan, chat, exchange.deferred)

    async def _moderation(self, body: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        wire = self._read(WireModerationRequest, body, exchange)
        return await self._service.stack.moderations.create(exchange.principal.name, wire)

    def _read(
        self,
        kind: type[W],
        body: dict[str, Any],
        exchange: Exchange,
        set_aside: Callable[[W], tuple[str, ...]] = lambda _: (),
    ) -> W:
        wire, unknown = read(kind, body)
        exchange.ignored = (*unknown, *set_aside(wire))
        check_ignored(exchange.ignored, strict=self._service.config.strict)
        if body.get("stream"):
            raise InvalidRequest("stream has no meaning in a batch; leave it out", param="stream")
        return wire


S = TypeVar("S", bound=openai_sampling.SamplingFields)


def _later(wire: S) -> S:
    return wire if wire.priority is not None else wire.model_copy(update={"priority": LATER})
