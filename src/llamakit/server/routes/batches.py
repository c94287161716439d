"""`/v1/batches`: files of requests, answered in the background."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.batches import WireBatch, WireBatches, WireBatchRequest
from llamakit.api.openai_lists import read_page
from llamakit.server.exchange import exchange_of
from llamakit.server.routes.openai_responses import PAGE
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    batches = service.stack.batches

    async def create_batch(http: Request) -> Response:
        wire = await service.read(http, WireBatchRequest)
        principal = exchange_of(http).principal
        return json_response(await batches.create(principal.name, principal.salt, wire))

    async def list_batches(http: Request) -> Response:
        return json_response(await batches.list(exchange_of(http).principal.name, read_page(http.query_params)))

    async def get_batch(http: Request) -> Response:
        return json_response(await batches.get(*_which(http)))

    async def cancel_batch(http: Request) -> Response:
        return json_response(await batches.cancel(*_which(http)))

    return [
        Operation(
            name="createBatch",
            method="POST",
            path="/v1/batches",
            about="Answer a file of requests in the background.",
            endpoint=create_batch,
            tag="batches",
            body=WireBatchRequest,
            answer=WireBatch,
        ),
        Operation(
            name="listBatches",
            method="GET",
            path="/v1/batches",
            about="Batches.",
            endpoint=list_batches,
            tag="batches",
            answer=WireBatches,
            query=PAGE,
        ),
        Operation(
            name="getBatch",
            method="GET",
            path="/v1/batches/{batch_id}",
            about="A batch, with how far it is.",
            endpoint=get_batch,
            tag="batches",
            answer=WireBatch,
        ),
        Operation(
            name="cancelBatch",
            method="POST",
            path="/v1/batches/{batch_id}/cancel",
            about="Begin no more requests of a batch; what was answered is kept.",
            endpoint=cancel_batch,
            tag="batches",
            answer=WireBatch,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params["batch_id"]
