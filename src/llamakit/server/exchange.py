"""What the server remembers of one HTTP request while it answers it: for headers, logs and metrics.

Holds no header, no key and no text of the request or the answer.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope as HttpScope

from llamakit.server.dialects import Dialect
from llamakit.stack.access import ALL_SCOPES, NO_LIMITS, KeyLimits, Scope
from llamakit.storage.sql import Statement


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Who asks."""

    name: str
    """Safe to log: `local`, or the beginning of the hash of a key."""
    salt: str = ""
    """Keeps cached prefixes of one principal from the others."""
    scopes: frozenset[Scope] = ALL_SCOPES
    limits: KeyLimits = NO_LIMITS
    meter: str = ""
    """What its use is counted on; by default its name."""
    key: str | None = None
    """Id of its key in the database: when that key ends, its requests end."""
    called: str | None = None
    """What people call the key; safe to log."""
    ends_at: float | None = None
    """Seconds since 1970 at which what let it in runs out."""


ANONYMOUS = Principal(name="local")
UNKNOWN = Principal(name="unknown", scopes=frozenset())
"""Whoever has not said yet who he is, or said it wrongly."""
REQUEST_ID: ContextVar[str] = ContextVar("llamakit request", default="")
"""Id of the request that is being answered; for log lines of whoever does not know of requests."""


@dataclass(kw_only=True, slots=True)
class Exchange:
    """One request and what became of it."""

    id: str
    method: str
    dialect: Dialect = "openai"
    """Shape of its errors."""
    route: str = "(none)"
    """Template of the route that matched, never the path itself."""
    principal: Principal = ANONYMOUS
    model: str | None = None
    ignored: tuple[str, ...] = ()
    """Paths of request fields that were set aside."""
    status: int = 0
    outcome: str = ""
    """How a generation ended: finished, cancelled, failed."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    """Headers of the answer that tell of the caller's limits."""
    deferred: list[Statement] | None = None
    """What the answer keeps, for whoever commits it together with the answer; None: it is committed at once."""


def attach(scope: HttpScope, exchange: Exchange) -> None:
    """Put the record where `exchange_of` finds it."""
    scope.setdefault("state", {})["exchange"] = exchange


def exchange_of(request: Request) -> Exchange:
    """The record of this request."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange


def owner_of(request: Request) -> str:
    """Whose things a request means."""
    return exchange_of(request).principal.name
