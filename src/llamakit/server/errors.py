"""An error -> HTTP status and the error object of the dialect asked in. Status codes are decided here and nowhere else.

Errors of `core.errors` speak for themselves. Anything else is our own bug: it is logged with the request's
id, and the client learns the id and nothing of the inside.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from llamakit.api.openai_answer import to_json
from llamakit.api.openai_errors import error_body
from llamakit.core.errors import (
    CheckpointError,
    Conflict,
    DownloadError,
    EngineStopped,
    GatedModel,
    InvalidRequest,
    LlamakitError,
    MissingExtra,
    NotFound,
    Offline,
    OutboundFailed,
    OutboundRefused,
    Overloaded,
    RateLimited,
    StorageError,
    StorageFull,
    UnknownModel,
)
from llamakit.server.dialects import Dialect, shaped

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0


class Unauthenticated(LlamakitError, PermissionError):
    """No key came with the request, or a wrong one."""


class Forbidden(LlamakitError, PermissionError):
    """The host name or the web page behind the request is not one this server answers."""


class MissingScope(Forbidden):
    """The caller is known and does not hold what the operation wants."""

    def __init__(self, message: str, *, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class BodyTooLarge(LlamakitError, ValueError):
    """The request body has more bytes than the limit."""


class BodyTooSlow(LlamakitError, TimeoutError):
    """The request body was not complete in time."""


class WrongMediaType(LlamakitError, ValueError):
    """The request body is not plain JSON by its own headers."""


class NoRoute(LlamakitError, LookupError):
    """Nothing is at that path."""


class WrongMethod(LlamakitError, ValueError):
    """Something is at that path, and does not take that method."""


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    kind: str
    code: str | None


_ROWS: tuple[tuple[type[BaseException], _Row], ...] = (
    (InvalidRequest, _Row(400, "invalid_request_error", None)),
    (Unauthenticated, _Row(401, "authentication_error", "invalid_api_key")),
    (MissingScope, _Row(403, "permission_error", "insufficient_scope")),
    (Forbidden, _Row(403, "permission_error", "forbidden")),
    (UnknownModel, _Row(404, "invalid_request_error", "model_not_found")),
    (NoRoute, _Row(404, "invalid_request_error", "unknown_url")),
    (NotFound, _Row(404, "invalid_request_error", "not_found")),
    (WrongMethod, _Row(405, "invalid_request_error", "method_not_allowed")),
    (BodyTooSlow, _Row(408, "invalid_request_error", "request_timeout")),
    (Conflict, _Row(409, "invalid_request_error", "conflict")),
    (BodyTooLarge, _Row(413, "invalid_request_error", "request_too_large")),
    (WrongMediaType, _Row(415, "invalid_request_error", "unsupported_media_type")),
    (RateLimited, _Row(429, "rate_limit_error", "rate_limit_exceeded")),
    (Overloaded, _Row(503, "server_error", "overloaded")),
    (EngineStopped, _Row(503, "server_error", "engine_stopped")),
    (MissingExtra, _Row(501, "server_error", "missing_extra")),
    (Offline, _Row(503, "server_error", "offline")),
    (GatedModel, _Row(403, "permission_error", "gated_model")),
    (OutboundRefused, _Row(403, "permission_error", "outbound_refused")),
    (OutboundFailed, _Row(502, "server_error", "remote_failed")),
    (DownloadError, _Row(502, "server_error", "download_failed")),
    (StorageFull, _Row(507, "server_error", "storage_full")),
    (StorageError, _Row(503, "server_error", "storage_unavailable")),
    (CheckpointError, _Row(500, "server_error", "checkpoint_error")),
    (LlamakitError, _Row(500, "server_error", None)),
)


def status_of(fault: BaseException) -> int:
    """The HTTP status of an error; 500 for what is our own bug."""
    return _row(fault).status


def describe(fault: BaseException, request_id: str, dialect: Dialect = "openai") -> dict[str, Any]:
    """The error object in the shape of a dialect; logs what is our own bug."""
    return shaped(dialect, _describe(fault, request_id), status=status_of(fault), request_id=request_id)


def _describe(fault: BaseException, request_id: str) -> dict[str, Any]:
    row = _row(fault)
    if not isinstance(fault, LlamakitError):
        log.error("request %s failed by a bug", request_id, exc_info=fault)
        return error_body(f"internal error; the server's log has it under request id {request_id}", kind=row.kind)
    message, param, code = str(fault), None, row.code
    match fault:
        case InvalidRequest():
            param, code = fault.param, fault.code
        case UnknownModel():
            param = "model"
            if fault.name is not None and "llama pull" not in message:
                message += f" (to get it: `llama pull {fault.name}`)"
    return error_body(message, kind=row.kind, param=param, code=code)


def headers_of(fault: BaseException) -> dict[str, str]:
    """Headers that an error's answer carries."""
    match fault:
        case Overloaded():
            return {"retry-after": str(max(1, math.ceil(fault.retry_after_s)))}
        case EngineStopped():
            return {"retry-after": str(math.ceil(RETRY_AFTER_S))}
        case Unauthenticated():
            return {"www-authenticate": "Bearer"}
        case MissingScope():
            return {"www-authenticate": f'Bearer error="insufficient_scope", scope="{fault.scope}"'}
        case BodyTooLarge() | BodyTooSlow():
            # What is left of the body is never read, so the connection cannot carry another request.
            return {"connection": "close"}
    return {}


def error_response(fault: BaseException, request_id: str, dialect: Dialect = "openai") -> Response:
    """The whole answer to a request that failed before it had one."""
    return Response(
        to_json(describe(fault, request_id, dialect)),
        status_code=status_of(fault),
        headers=headers_of(fault),
        media_type="application/json",
    )


def _row(fault: BaseException) -> _Row:
    return next((row for kind, row in _ROWS if isinstance(fault, kind)), _Row(500, "server_error", "internal_error"))
