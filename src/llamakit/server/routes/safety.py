"""`/v1/moderations`, `/v1/shields` and `/v1/safety/run-shield`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.moderations import WireModerationRequest, WireModerations
from llamakit.api.shields import (
    WireRunShield,
    WireRunShieldAnswer,
    WireShield,
    WireShieldRequest,
    WireShields,
    to_messages,
)
from llamakit.safety.shields import Violation
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    shields, moderations = service.stack.shields, service.stack.moderations

    async def create_moderation(http: Request) -> Response:
        wire = await service.read(http, WireModerationRequest)
        return json_response(await service.wanted(http, moderations.create(_owner(http), wire)))

    async def list_shields(http: Request) -> Response:
        return json_response({"data": await shields.list(_owner(http))})

    async def register_shield(http: Request) -> Response:
        wire = await service.read(http, WireShieldRequest)
        made = shields.register(_owner(http), wire.shield_id, wire.provider_shield_id, wire.provider_id, wire.params)
        return json_response(await made)

    async def get_shield(http: Request) -> Response:
        return json_response(await shields.get(_owner(http), http.path_params["identifier"]))

    async def unregister_shield(http: Request) -> Response:
        await shields.unregister(_owner(http), http.path_params["identifier"])
        return Response(status_code=204)

    async def run_shield(http: Request) -> Response:
        wire = await service.read(http, WireRunShield)
        work = shields.run(_owner(http), wire.shield_id, to_messages(wire))
        return json_response({"violation": _violation(await service.wanted(http, work))})

    one = "/v1/shields/{identifier:path}"
    return [
        Operation(
            name="createModeration",
            method="POST",
            path="/v1/moderations",
            about="Tell whether texts are harmful, and how.",
            endpoint=create_moderation,
            tag="moderations",
            body=WireModerationRequest,
            answer=WireModerations,
        ),
        Operation(
            name="listShields",
            method="GET",
            path="/v1/shields",
            about="Shields: the server's own, and those that were registered.",
            endpoint=list_shields,
            tag="shields",
            answer=WireShields,
        ),
        Operation(
            name="registerShield",
            method="POST",
            path="/v1/shields",
            about="Keep a shield under a name.",
            endpoint=register_shield,
            tag="shields",
            body=WireShieldRequest,
            answer=WireShield,
        ),
        Operation(
            name="getShield",
            method="GET",
            path=one,
            about="A shield.",
            endpoint=get_shield,
            tag="shields",
            answer=WireShield,
        ),
        Operation(
            name="unregisterShield",
            method="DELETE",
            path=one,
            about="Forget a shield.",
            endpoint=unregister_shield,
            tag="shields",
            is_empty=True,
        ),
        Operation(
            name="runShield",
            method="POST",
            path="/v1/safety/run-shield",
            about="Judge the last message of a conversation.",
            endpoint=run_shield,
            tag="shields",
            body=WireRunShield,
            answer=WireRunShieldAnswer,
        ),
    ]


def _owner(http: Request) -> str:
    return exchange_of(http).principal.name


def _violation(found: Violation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "violation_level": found.level,
        "user_message": found.user_message,
        "metadata": {**found.metadata, "categories": list(found.categories)},
    }
