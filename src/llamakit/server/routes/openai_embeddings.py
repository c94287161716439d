"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
from llamakit.api.openai_embeddings import WireEmbeddingRequest, WireEmbeddings, to_body, to_request
from llamakit.server.exchange import Exchange, exchange_of
from llamakit.server.gone import while_wanted
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def create_embedding(http: Request) -> Response:
        wire = await service.read(http, WireEmbeddingRequest)
        work = embed(service, wire, exchange_of(http))
        return json_response(await while_wanted(work, http.receive, service.drain))

    return [
        Operation(
            name="createEmbedding",
            method="POST",
            path="/v1/embeddings",
            about="Vectors of texts or token ids.",
            endpoint=create_embedding,
            tag="embeddings",
            body=WireEmbeddingRequest,
            answer=WireEmbeddings,
        )
    ]


async def embed(service: Service, wire: WireEmbeddingRequest, exchange: Exchange) -> dict[str, Any]:
    """The body of the answer; raises `InvalidRequest`."""
    exchange.model = wire.model
    request = to_request(wire, request_id=new_id("embd"), salt=exchange.principal.salt)
    with service.telemetry.embedding(wire.model) as span:
        made = await service.inference.embed(request)
        if span is not None:
            span.attributes["gen_ai.usage.input_tokens"] = made.prompt_tokens
    exchange.prompt_tokens = made.prompt_tokens
    return to_body(wire, made)
