"""What `llama ps`, `llama stop` and their like ask of a running server."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.inference import read_keep_alive
from llamakit.api.management import (
    WireLoaded,
    WireLoadedModel,
    WireLoadRequest,
    WireUnloaded,
    WireUnloadRequest,
    from_all_loaded,
    from_loaded,
)
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def list_loaded(_: Request) -> Response:
        return json_response(from_all_loaded(await service.inference.loaded()))

    async def load_model(http: Request) -> Response:
        wire = await service.read(http, WireLoadRequest)
        exchange_of(http).model = wire.model
        keep_alive = None if wire.keep_alive is None else read_keep_alive(wire.keep_alive)
        return json_response(from_loaded(await service.inference.load(wire.model, keep_alive)))

    async def unload_model(http: Request) -> Response:
        wire = await service.read(http, WireUnloadRequest)
        exchange_of(http).model = wire.model
        return json_response({"model": wire.model, "unloaded": await service.inference.unload(wire.model)})

    return [
        Operation(
            name="listLoadedModels",
            method="GET",
            path="/v1/llamakit/ps",
            about="The models in memory, how much of it, and until when.",
            endpoint=list_loaded,
            tag="management",
            answer=WireLoaded,
        ),
        Operation(
            name="loadModel",
            method="POST",
            path="/v1/llamakit/load",
            about="Bring a model into memory, or renew its stay there.",
            endpoint=load_model,
            tag="management",
            body=WireLoadRequest,
            answer=WireLoadedModel,
        ),
        Operation(
            name="unloadModel",
            method="POST",
            path="/v1/llamakit/unload",
            about="Let a model go once its requests ended.",
            endpoint=unload_model,
            tag="management",
            body=WireUnloadRequest,
            answer=WireUnloaded,
        ),
    ]
