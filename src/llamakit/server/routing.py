"""Routes as data: what each takes and gives, and the guard that every one of them stands behind.

The table serves three readers: the router, the OpenAPI document, and the tests that walk over every route.
There is no other way to add a route, so none can be forgotten by the guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llamakit.api.wire import Wire
from llamakit.server.dialects import OPENAI_EVENTS, Framing
from llamakit.server.errors import error_response
from llamakit.server.exchange import Exchange, exchange_of
from llamakit.server.gone import ClientGone
from llamakit.server.guard import Guard
from llamakit.server.scopes import scope_of
from llamakit.storage.jobs import ALLOWED_BY

Endpoint = Callable[[Request], Awaitable[Response]]

CLIENT_CLOSED_REQUEST = 499
"""What the log says of a request whose client left; nobody receives it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A parameter in the query string."""

    name: str
    about: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method on one path."""

    name: str
    """Unique; the operation id of the OpenAPI document."""
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE"]
    path: str
    about: str
    endpoint: Endpoint
    tag: str
    body: type[Wire] | None = None
    body_media: str = "application/json"
    """Media type of the body; a form is described by its fields."""
    answer: type[BaseModel] | None = None
    """Type of the JSON answer; None for text."""
    answer_media: str = "text/plain"
    """Media type of an answer that is no JSON."""
    is_empty: bool = False
    """Answered with 204 and no body."""
    chunk: type[BaseModel] | None = None
    """Type of a streamed piece, where the answer can be streamed."""
    framing: Framing = OPENAI_EVENTS
    """How a stream of them is sent."""
    query: tuple[Query, ...] = ()
    is_public: bool = False
    """Answered without a key: only what tells nothing but that the server is there."""
    changes_machine: bool = False
    """Adds or removes files of the server's machine: refused where strangers come in without a key."""
    alias_of: str | None = None
    """The name of the operation that this is once more, at another path."""


class GuardedRoute(Route):
    """A route whose endpoint runs only for a known principal."""

    def __init__(self, operation: Operation, guard: Guard) -> None:
        self.operation = operation
        self._guard = guard
        self._wanted = scope_of(operation)
        super().__init__(operation.path, _answered(operation), methods=[operation.method], name=operation.name)
        # Starlette lets HEAD follow GET; here a route answers what it says and nothing else.
        self.methods = {operation.method}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, let in before anything of it is read and held to its permission until all is sent."""
        if scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        exchange: Exchange = scope["state"]["exchange"]
        exchange.route = self.operation.path
        try:
            permit = await self._guard.enter(self._wanted, exchange, Headers(scope=scope), receive)
        except Exception as fault:  # noqa: BLE001 - every failure becomes an answer; describe() logs our bugs
            await error_response(fault, exchange.id, exchange.dialect)(scope, receive, send)
            return
        allowed_by = ALLOWED_BY.set(exchange.principal.key)
        try:
            await self.app(scope, permit.receive, send)
        finally:
            ALLOWED_BY.reset(allowed_by)
            permit.close()


def to_routes(operations: Iterable[Operation], guard: Guard) -> list[GuardedRoute]:
    """The routes of a table of operations."""
    return [GuardedRoute(operation, guard) for operation in operations]


def json_response(value: Any, *, status: int = 200) -> Response:
    """Plain values as a JSON answer."""
    return Response(to_json(value, inf_nan_mode="null"), status_code=status, media_type="application/json")


def _answered(operation: Operation) -> Endpoint:
    """The endpoint, every failure of which is an answer."""

    async def endpoint(request: Request) -> Response:
        exchange = exchange_of(request)
        try:
            return await operation.endpoint(request)
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except asyncio.CancelledError:
            raise
        except Exception as fault:  # noqa: BLE001 - every failure becomes an answer; describe() logs our bugs
            return error_response(fault, exchange.id, exchange.dialect)

    return endpoint
