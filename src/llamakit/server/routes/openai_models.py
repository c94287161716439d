"""`GET /v1/models` and `GET /v1/models/{model}`; names may hold '/' and ':'.

Anthropic's clients ask at the same paths and are told apart by their version header.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api import anthropic_models
from llamakit.api.openai_models import WireModel, WireModels, from_model, from_models
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def list_models(http: Request) -> Response:
        models = await service.inference.models()
        if exchange_of(http).dialect == "anthropic":
            return json_response(anthropic_models.to_page(models, http.query_params))
        return json_response(from_models(models))

    async def retrieve_model(http: Request) -> Response:
        model = await service.inference.model(http.path_params["model"])
        is_anthropic = exchange_of(http).dialect == "anthropic"
        return json_response(anthropic_models.from_model(model) if is_anthropic else from_model(model))

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
