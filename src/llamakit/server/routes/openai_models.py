"""`/v1/models`: listed, read, and named by Llama Stack's clients; names may hold '/' and ':'.

Anthropic's clients ask at the same paths and are told apart by their version header.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api import anthropic_models
from llamakit.api.openai_lists import WireDeleted, deleted_body
from llamakit.api.openai_models import WireModel, WireModelRegistration, WireModels, from_model, from_models
from llamakit.core.errors import InvalidRequest
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service
from llamakit.stack.registered_models import RegisteredModels


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def list_models(http: Request) -> Response:
        await refresh()
        models = await service.inference.models()
        if exchange_of(http).dialect == "anthropic":
            return json_response(anthropic_models.to_page(models, http.query_params))
        return json_response(from_models(models))

    async def retrieve_model(http: Request) -> Response:
        await refresh()
        model = await service.inference.model(http.path_params["model"])
        is_anthropic = exchange_of(http).dialect == "anthropic"
        return json_response(anthropic_models.from_model(model) if is_anthropic else from_model(model))

    async def register_model(http: Request) -> Response:
        wire = await service.read(http, WireModelRegistration)
        made = await names().register(
            wire.model_id, wire.provider_id, wire.provider_model_id, wire.model_type, wire.metadata or {}
        )
        return json_response(from_model(made))

    async def unregister_model(http: Request) -> Response:
        name = http.path_params["model"]
        await names().unregister(name)
        return json_response(deleted_body("model", name))

    async def refresh() -> None:
        """Learn of the names that another server on the same database has given."""
        if service.stack.registered_models is not None:
            await service.stack.registered_models.refresh()

    def names() -> RegisteredModels:
        if service.stack.registered_models is None:
            raise InvalidRequest("this server's models have the names that they have")
        return service.stack.registered_models

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
        Operation(
            name="registerModel",
            method="POST",
            path="/v1/models",
            about="Give a name to a model of a provider.",
            endpoint=register_model,
            tag="models",
            body=WireModelRegistration,
            answer=WireModel,
        ),
        Operation(
            name="unregisterModel",
            method="DELETE",
            path="/v1/models/{model:path}",
            about="Take such a name away.",
            endpoint=unregister_model,
            tag="models",
            answer=WireDeleted,
        ),
    ]
