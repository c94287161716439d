"""Whether the server takes requests, what it counts, and what there is at its root."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit import __version__
from llamakit.api.wire import Wire
from llamakit.server.metrics import CONTENT_TYPE
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


class WireHealth(Wire):
    """Whether requests are taken."""

    status: str
    """`OK`, or why not."""


class WireLanding(Wire):
    """What this server is and where to go on."""

    name: str
    version: str
    docs: str
    """Path of the OpenAPI document."""
    openai_base: str
    """What OpenAI's clients call base_url, below this server's address."""


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def health(_: Request) -> Response:
        if service.drain.is_stopping:
            return json_response({"status": "stopping"}, status=503)
        found = await service.inference.health()
        # Anybody may ask, so the reason stays inside.
        return json_response({"status": "OK" if found.ready else "not ready"}, status=200 if found.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    async def landing(http: Request) -> Response:
        if http.headers.get("user-agent", "").lower().startswith("ollama"):
            return Response("Ollama is running", media_type="text/plain")
        return json_response(
            {"name": "llamakit", "version": __version__, "docs": "/openapi.json", "openai_base": "/v1"}
        )

    def health_at(name: str, path: str) -> Operation:
        return Operation(
            name=name,
            method="GET",
            path=path,
            about="Whether requests are taken.",
            endpoint=health,
            tag="health",
            answer=WireHealth,
            is_public=True,
        )

    return [
        health_at("health", "/health"),
        health_at("healthV1", "/v1/health"),
        Operation(
            name="metrics",
            method="GET",
            path="/metrics",
            about="Counters for Prometheus.",
            endpoint=metrics,
            tag="health",
        ),
        Operation(
            name="landing",
            method="GET",
            path="/",
            about="What this server is.",
            endpoint=landing,
            tag="health",
            answer=WireLanding,
        ),
    ]
