"""Ollama's models over HTTP: `/api/tags`, `show`, `ps`, `version`, `pull`, `create`, `copy`, `delete`; `HEAD /`.

What adds or removes models stands behind the rule for that, and only where the models are files of this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit import __version__
from llamakit.api.ollama_models import (
    OllamaCopyRequest,
    OllamaCreateRequest,
    OllamaDeleteRequest,
    OllamaDone,
    OllamaProcesses,
    OllamaPullRequest,
    OllamaShown,
    OllamaShowRequest,
    OllamaStatus,
    OllamaTags,
    OllamaVersion,
    from_loaded,
    from_models,
    from_shown,
    named,
)
from llamakit.api.ollama_options import plain_name
from llamakit.api.openai_answer import to_json
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub.download import Progress
from llamakit.server.dialects import JSON_LINES
from llamakit.server.exchange import exchange_of
from llamakit.server.gone import while_wanted
from llamakit.server.recipes import idle_parameters, to_recipe
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service
from llamakit.stack.library import Library

SPOKEN_VERSION = "0.13.0"
"""The version of Ollama whose API this speaks; clients ask before they use what came with one."""


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def tags(_: Request) -> Response:
        return json_response(from_models(await service.inference.models()))

    async def processes(_: Request) -> Response:
        return json_response(from_loaded(await service.inference.loaded()))

    async def version(_: Request) -> Response:
        return json_response({"version": SPOKEN_VERSION, "llamakit": __version__})

    async def heartbeat(_: Request) -> Response:
        return Response("Ollama is running", media_type="text/plain")

    async def show(http: Request) -> Response:
        name = named(await service.read(http, OllamaShowRequest))
        exchange_of(http).model = name
        model = await service.inference.model(name)
        recipe = None if service.stack.library is None else await service.stack.library.recipe(name)
        if recipe is None:
            return json_response(from_shown(model))
        return json_response(
            from_shown(
                model,
                modelfile=recipe.modelfile,
                parent=recipe.parent,
                system=recipe.system,
                parameters=recipe.parameters,
            )
        )

    async def pull(http: Request) -> Response:
        wire = await service.read(http, OllamaPullRequest)
        name = named(wire)
        if wire.insecure:
            raise InvalidRequest("insecure: every file is verified here; leave it out", param="insecure")
        lines = pulling(library(), name)
        if wire.stream is not False:
            return service.sent(http, lines, JSON_LINES)

        async def to_the_end() -> None:
            async with contextlib.aclosing(lines):
                async for _ in lines:
                    pass

        await while_wanted(to_the_end(), http.receive, service.drain)
        return json_response({"status": "success"})

    async def create(http: Request) -> Response:
        wire = await service.read(http, OllamaCreateRequest, idle_parameters)
        name = await library().create(named(wire), to_recipe(wire))
        await let_go(name)
        if wire.stream is False:
            return json_response({"status": "success"})
        return service.sent(http, statuses("reading model metadata", "writing manifest", "success"), JSON_LINES)

    async def copy(http: Request) -> Response:
        wire = await service.read(http, OllamaCopyRequest)
        name = await library().copy(plain_name(wire.source), plain_name(wire.destination))
        await let_go(name)
        return json_response({})

    async def delete(http: Request) -> Response:
        name = named(await service.read(http, OllamaDeleteRequest))
        await let_go(name)
        await library().remove(name)
        return json_response({})

    def library() -> Library:
        if service.stack.library is None:
            raise InvalidRequest("the models of this server are not files of its machine; manage them where they are")
        return service.stack.library

    async def let_go(name: str) -> None:
        """What is in memory under a name that changes its meaning must not answer for it any more."""
        with contextlib.suppress(UnknownModel):
            await service.inference.unload(name)

    def changing(name: str, path: str, about: str, endpoint: Any, body: Any, **more: Any) -> Operation:
        fields = {"method": "POST", "answer": OllamaDone, **more}
        return Operation(
            name=name,
            path=path,
            about=about,
            endpoint=endpoint,
            tag="ollama",
            body=body,
            changes_machine=True,
            **fields,
        )

    streamed = {"answer": OllamaStatus, "chunk": OllamaStatus, "framing": JSON_LINES}
    return [
        Operation(
            name="ollamaTags",
            method="GET",
            path="/api/tags",
            about="The models that can be asked for, in Ollama's form.",
            endpoint=tags,
            tag="ollama",
            answer=OllamaTags,
        ),
        Operation(
            name="ollamaPs",
            method="GET",
            path="/api/ps",
            about="The models in memory, in Ollama's form.",
            endpoint=processes,
            tag="ollama",
            answer=OllamaProcesses,
        ),
        Operation(
            name="ollamaVersion",
            method="GET",
            path="/api/version",
            about="Which version of Ollama's API this speaks.",
            endpoint=version,
            tag="ollama",
            answer=OllamaVersion,
        ),
        Operation(
            name="ollamaShow",
            method="POST",
            path="/api/show",
            about="What a model is: shape, context, recipe.",
            endpoint=show,
            tag="ollama",
            body=OllamaShowRequest,
            answer=OllamaShown,
        ),
        changing("ollamaPull", "/api/pull", "Download a model.", pull, OllamaPullRequest, **streamed),
        changing(
            "ollamaCreate", "/api/create", "Make a model from another one.", create, OllamaCreateRequest, **streamed
        ),
        changing("ollamaCopy", "/api/copy", "Give a model another name.", copy, OllamaCopyRequest),
        changing("ollamaDelete", "/api/delete", "Remove a model.", delete, OllamaDeleteRequest, method="DELETE"),
        Operation(
            name="ollamaHeartbeat",
            method="HEAD",
            path="/",
            about="Whether somebody is there.",
            endpoint=heartbeat,
            tag="ollama",
        ),
    ]


async def pulling(library: Library, name: str) -> AsyncGenerator[str, None]:
    """The lines of a download; nothing is said before it is known that there is something to download."""
    is_first = True
    async with contextlib.aclosing(library.pull(name)) as steps:
        async for step in steps:
            if is_first:
                is_first = False
                yield _status("pulling manifest")
            if isinstance(step, Progress):
                # Clients group by digest, and cut its first seven characters off to name the bar.
                yield _status(f"pulling {step.file}", digest=f"model: {name}", total=step.total, completed=step.done)
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        yield _status(status)


async def statuses(*words: str) -> AsyncGenerator[str, None]:
    """The lines of a change that is done already."""
    for word in words:
        yield _status(word)


def _status(status: str, **more: Any) -> str:
    return to_json({"status": status, **more})
