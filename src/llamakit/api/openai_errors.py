"""OpenAI's error object: the one shape in which every OpenAI route says no."""

from __future__ import annotations

from typing import Any

from llamakit.api.wire import Wire


class ErrorDetail(Wire):
    """What went wrong."""

    message: str
    type: str
    """invalid_request_error, authentication_error, permission_error, rate_limit_error or server_error."""
    param: str | None
    """The field at fault, as a path in the request."""
    code: str | None


class ErrorBody(Wire):
    """Body of every answer that is not a success."""

    error: ErrorDetail


def error_body(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The object as plain values."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
