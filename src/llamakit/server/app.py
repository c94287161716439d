"""The application: a stack and its settings -> everything that answers HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.limits import LIMITS, Limits
from llamakit.server.aliases import aliases
from llamakit.server.apis import served
from llamakit.server.envelope import Envelope
from llamakit.server.errors import NoRoute, WrongMethod, error_response
from llamakit.server.exchange import Exchange
from llamakit.server.limits import EXPOSED
from llamakit.server.lines import BatchLines
from llamakit.server.metrics import Metrics
from llamakit.server.openapi import OpenApiDocument, openapi_document
from llamakit.server.origin import OriginGuard
from llamakit.server.routes import (
    anthropic,
    batches,
    health,
    llama_stack_agents,
    llama_stack_evals,
    llama_stack_inference,
    llama_stack_inspect,
    llama_stack_rerank,
    llama_stack_telemetry,
    llama_stack_tools,
    llama_stack_vector_io,
    management,
    ollama,
    ollama_models,
    openai_chat,
    openai_completions,
    openai_containers,
    openai_conversations,
    openai_embeddings,
    openai_files,
    openai_models,
    openai_responses,
    openai_stored_chats,
    prompts,
    safety,
    tokenize,
    vector_store_files,
    vector_stores,
)
from llamakit.server.routing import GuardedRoute, Operation, json_response, to_routes
from llamakit.server.service import Service
from llamakit.stack.build import Stack
from llamakit.stack.run_config import ServeConfig

ROUTES = (
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_models,
    openai_responses,
    openai_conversations,
    openai_containers,
    openai_stored_chats,
    prompts,
    batches,
    safety,
    tokenize,
    anthropic,
    ollama,
    ollama_models,
    llama_stack_agents,
    llama_stack_evals,
    llama_stack_telemetry,
    llama_stack_inference,
    llama_stack_inspect,
    llama_stack_rerank,
    llama_stack_tools,
    llama_stack_vector_io,
    management,
    health,
    openai_files,
    vector_stores,
    vector_store_files,
)
CORS_HEADERS = ("*",)
"""Clients in pages send many of their own. A page that may call brings its key in one of them, never a cookie."""
CORS_EXPOSED = ("x-request-id", "x-llamakit-ignored", "retry-after", *EXPOSED)


class Application(Starlette):
    """The ASGI application, which can tell what it serves."""

    def __init__(self, operations: Sequence[Operation], **settings: Any) -> None:
        super().__init__(**settings)
        self._operations = operations
        self._document: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made when it is first asked for."""
        if self._document is None:
            self._document = openapi_document(self._operations)
        return self._document


def build_app(stack: Stack, config: ServeConfig, *, limits: Limits = LIMITS) -> Application:
    """The ASGI application; closes the stack when it shuts down."""
    return build_service_app(
        Service(
            stack=stack,
            config=config,
            metrics=Metrics(stack.inference.stats),
            limits=limits,
        )
    )


def build_service_app(service: Service) -> Application:
    """The same from its parts, for whoever must hold them: the process that drains before it ends."""
    service.stack.batches.answer_with(BatchLines(service).answer)
    every = [operation for routes in ROUTES for operation in routes.operations(service)]
    operations = served(every, service.stack.distribution.apis)
    operations += aliases(operations)

    async def show_document(_: Request) -> Response:
        return json_response(app.openapi())

    operations.append(
        Operation(
            name="openapi",
            method="GET",
            path="/openapi.json",
            about="This document.",
            endpoint=show_document,
            tag="health",
            answer=OpenApiDocument,
        )
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await service.stack.start()
            yield
        finally:
            await service.guard.aclose()
            await service.stack.aclose()
            await service.telemetry.aclose()

    app = Application(operations, lifespan=lifespan, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    app.router.routes.extend(to_routes(operations, service.guard))
    if service.config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.config.cors_origins,
            allow_methods=sorted({operation.method for operation in operations}),
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
        )
    app.add_middleware(OriginGuard, config=service.config)
    app.add_middleware(
        Envelope,
        seen=service.metrics.seen,
        telemetry=service.telemetry,
        # On a loopback name a browser would hold every other server of this machine to it, too.
        is_only_https=service.config.tls_cert is not None and service.config.is_exposed,
    )
    return app


def operations_of(app: Application) -> list[Operation]:
    """Every operation of an application, read from its router."""
    return [route.operation for route in app.router.routes if isinstance(route, GuardedRoute)]


async def _no_route(request: Request, fault: Exception) -> Response:
    exchange: Exchange = request.scope["state"]["exchange"]
    if isinstance(fault, HTTPException) and fault.status_code == 405:
        response = error_response(
            WrongMethod(f"{request.method[:16]} is not a method of this path"), exchange.id, exchange.dialect
        )
        response.headers.update(fault.headers or {})
        return response
    return error_response(
        NoRoute("nothing is at this path; GET /openapi.json lists what there is"), exchange.id, exchange.dialect
    )
