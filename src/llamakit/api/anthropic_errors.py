"""Anthropic's error object: the one shape in which the Messages routes say no."""

from __future__ import annotations

from typing import Any, Literal

from llamakit.api.wire import Wire


class AnthropicErrorDetail(Wire):
    """What went wrong."""

    type: str
    """invalid_request_error, authentication_error, permission_error, not_found_error, request_too_large,
    rate_limit_error, timeout_error, overloaded_error or api_error."""
    message: str


class AnthropicError(Wire):
    """Body of every answer that is not a success, and data of an `error` event."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None = None


_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(status: int, message: str, request_id: str) -> dict[str, Any]:
    """The object as plain values; the kind follows from the HTTP status."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
