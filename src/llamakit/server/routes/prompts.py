"""`/v1/prompts` and their versions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_lists import read_count, read_page
from llamakit.api.prompts import WireDefaultVersion, WirePrompt, WirePromptRequest, WirePrompts, WirePromptUpdate
from llamakit.server.exchange import exchange_of
from llamakit.server.routes.openai_responses import PAGE
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service

MAX_VERSION = 2**31 - 1


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    prompts = service.stack.prompts

    async def list_prompts(http: Request) -> Response:
        page = read_page(http.query_params, limit=100)
        return json_response(await prompts.list(exchange_of(http).principal.name, page))

    async def create_prompt(http: Request) -> Response:
        wire = await service.read(http, WirePromptRequest)
        return json_response(await prompts.create(exchange_of(http).principal.name, wire))

    async def get_prompt(http: Request) -> Response:
        version = read_count(http.query_params, "version", None, low=1, high=MAX_VERSION)
        return json_response(await prompts.get(*_which(http), version))

    async def update_prompt(http: Request) -> Response:
        wire = await service.read(http, WirePromptUpdate)
        return json_response(await prompts.update(*_which(http), wire))

    async def delete_prompt(http: Request) -> Response:
        await prompts.delete(*_which(http))
        return Response(status_code=204)

    async def list_versions(http: Request) -> Response:
        return json_response(await prompts.versions(*_which(http)))

    async def set_default(http: Request) -> Response:
        wire = await service.read(http, WireDefaultVersion)
        return json_response(await prompts.set_default(*_which(http), wire.version))

    one = "/v1/prompts/{prompt_id}"
    return [
        Operation(
            name="listPrompts",
            method="GET",
            path="/v1/prompts",
            about="Prompts, each by its default version.",
            endpoint=list_prompts,
            tag="prompts",
            answer=WirePrompts,
            query=PAGE,
        ),
        Operation(
            name="createPrompt",
            method="POST",
            path="/v1/prompts",
            about="A new prompt.",
            endpoint=create_prompt,
            tag="prompts",
            body=WirePromptRequest,
            answer=WirePrompt,
        ),
        Operation(
            name="getPrompt",
            method="GET",
            path=one,
            about="A version of a prompt.",
            endpoint=get_prompt,
            tag="prompts",
            answer=WirePrompt,
            query=(Query(name="version", about="Which; the default version when left out."),),
        ),
        Operation(
            name="updatePrompt",
            method="PUT",
            path=one,
            about="Make the next version of a prompt.",
            endpoint=update_prompt,
            tag="prompts",
            body=WirePromptUpdate,
            answer=WirePrompt,
        ),
        Operation(
            name="deletePrompt",
            method="DELETE",
            path=one,
            about="Delete a prompt with all its versions.",
            endpoint=delete_prompt,
            tag="prompts",
            is_empty=True,
        ),
        Operation(
            name="listPromptVersions",
            method="GET",
            path=f"{one}/versions",
            about="Every version of a prompt.",
            endpoint=list_versions,
            tag="prompts",
            answer=WirePrompts,
        ),
        Operation(
            name="setDefaultPromptVersion",
            method="PUT",
            path=f"{one}/set-default-version",
            about="Choose the version that readers get who name none.",
            endpoint=set_default,
            tag="prompts",
            body=WireDefaultVersion,
            answer=WirePrompt,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params["prompt_id"]
