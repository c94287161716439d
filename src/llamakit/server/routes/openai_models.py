"""`GET /v1/models` and `GET /v1/models/{model}`; names may hold '/' and ':'."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_models import WireModel, WireModels, from_model, from_models
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def list_models(_: Request) -> Response:
        return json_response(from_models(await service.inference.models()))

    async def retrieve_model(http: Request) -> Response:
        return json_response(from_model(await service.inference.model(http.path_params["model"])))

    return [
        Operation(
            name="listModels",
            method="GET",
            path="/v1/models",
            about="The models that can be asked for.",
            endpoint=list_models,
            tag="models",
            answer=WireModels,
        ),
        Operation(
            name="retrieveModel",
            method="GET",
            path="/v1/models/{model:path}",
            about="One of them.",
            endpoint=retrieve_model,
            tag="models",
            answer=WireModel,
        ),
    ]
