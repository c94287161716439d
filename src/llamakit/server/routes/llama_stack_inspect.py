"""`/v1/providers`, `/v1/inspect/routes` and `/v1/version`: what the server is made of."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit import __version__
from llamakit.api.llama_stack_inspect import (
    LlamaStackProvider,
    LlamaStackProviders,
    LlamaStackRoutes,
    LlamaStackVersion,
    health_body,
    shown,
)
from llamakit.api.llama_stack_lists import data_body
from llamakit.api.wire import found
from llamakit.core.errors import InvalidRequest, LlamakitError, NotFound
from llamakit.providers.specs import Api
from llamakit.server.dialects import CLASSIC_OPENAI
from llamakit.server.routing import GuardedRoute, Operation, Query, json_response
from llamakit.server.service import Service
from llamakit.stack.providers import Provider

TAG = "llama stack inspect"
LEVELS = ("v1", "v1alpha", "v1beta")
HEALTH_S = 5.0
"""Seconds that a provider has to say how it is."""
_APIS = {
    Api.inference: ("chat", "completions", "embeddings", "inference", "models", "messages", "responses", "agents"),
    Api.tools: ("toolgroups", "tools", "tool-runtime"),
}
"""Which providers stand behind a path, by what follows `/v1/`."""
_WORDS = {Api.tools: "tool_runtime"}
"""What Llama Stack calls an API, where that is another word."""


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def list_providers(_: Request) -> Response:
        rows = service.stack.providers.entries
        return json_response(data_body(await asyncio.gather(*(provider_body(row) for row in rows))))

    async def get_provider(http: Request) -> Response:
        wanted = http.path_params["provider_id"]
        for row in service.stack.providers.entries:
            if row.entry.provider_id == wanted:
                return json_response(await provider_body(row))
        there = ", ".join(dict.fromkeys(row.entry.provider_id for row in service.stack.providers.entries))
        raise NotFound(f"no provider {wanted[:80]!r}; there are: {there or 'none'}")

    async def list_routes(http: Request) -> Response:
        level = http.query_params.get("api_filter") or None
        if level not in (None, "deprecated", *LEVELS):
            raise InvalidRequest(
                f"api_filter must be one of {', '.join(LEVELS)} or deprecated, got {found(level)}", param="api_filter"
            )
        routes = (route.operation for route in http.app.routes if isinstance(route, GuardedRoute))
        wanted = (operation for operation in routes if is_wanted(operation, level))
        return json_response(data_body([route_body(operation) for operation in wanted]))

    async def version(_: Request) -> Response:
        return json_response({"version": __version__})

    async def provider_body(row: Provider) -> dict[str, Any]:
        return {
            "api": _WORDS.get(row.api, str(row.api)),
            "provider_id": row.entry.provider_id,
            "provider_type": row.entry.provider_type,
            "config": shown(row.entry.config),
            "health": await health_of(row),
        }

    async def health_of(row: Provider) -> dict[str, Any]:
        if row.api != Api.inference:
            return health_body("Not Implemented", "this kind of provider is not asked")
        try:
            async with asyncio.timeout(HEALTH_S):
                health = await row.instance.health()
        except TimeoutError:
            return health_body("Error", f"no answer within {HEALTH_S:.0f} s")
        except LlamakitError as fault:
            return health_body("Error", str(fault))
        return health_body("OK") if health.ready else health_body("Error", health.detail)

    def route_body(operation: Operation) -> dict[str, Any]:
        parts = operation.path.split("/")
        group = parts[2] if len(parts) > 2 else ""
        api = next((api for api, groups in _APIS.items() if group in groups), None)
        types = (row.entry.provider_type for row in service.stack.providers.entries if row.api == api)
        path = operation.path.replace(":path}", "}")
        return {"route": path, "method": operation.method, "provider_types": list(dict.fromkeys(types))}

    return [
        Operation(
            name="listProviders",
            method="GET",
            path="/v1/providers",
            about="The providers of this server, by API.",
            endpoint=list_providers,
            tag=TAG,
            answer=LlamaStackProviders,
        ),
        Operation(
            name="getProvider",
            method="GET",
            path="/v1/providers/{provider_id}",
            about="One of them.",
            endpoint=get_provider,
            tag=TAG,
            answer=LlamaStackProvider,
        ),
        Operation(
            name="listRoutes",
            method="GET",
            path="/v1/inspect/routes",
            about="What this server answers.",
            endpoint=list_routes,
            tag=TAG,
            answer=LlamaStackRoutes,
            query=(Query(name="api_filter", about="v1, v1alpha, v1beta, or deprecated; all but these when left out."),),
        ),
        Operation(
            name="version",
            method="GET",
            path="/v1/version",
            about="The version of this server.",
            endpoint=version,
            tag=TAG,
            answer=LlamaStackVersion,
        ),
    ]


def is_wanted(operation: Operation, level: str | None) -> bool:
    """Whether a filter lets an operation through; those at classic paths of OpenAI's are what is deprecated."""
    is_deprecated = operation.path.startswith(CLASSIC_OPENAI)
    if level is None or level == "deprecated":
        return is_deprecated == (level == "deprecated")
    return operation.path.startswith(f"/{level}/") and not is_deprecated
