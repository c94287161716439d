"""A remote service's error -> one of the house's, which says who refused and what to do.

What a service says of a bad request is passed on; what it says of our key is not, as some repeat parts of it.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamakit.core.errors import (
    InvalidRequest,
    LlamakitError,
    Overloaded,
    PromptTooLong,
    RateLimited,
    RemoteFailed,
    UnknownModel,
)

MAX_TEXT_CHARS = 500
MAX_RETRY_AFTER_S = 3600.0
_TOO_LONG = ("context_length", "context length", "maximum context", "too many tokens", "prompt is too long")


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What an error body says."""

    text: str = ""
    kind: str = ""
    code: str = ""
    param: str | None = None


def refusal(service: str, key_hint: str, status: int, headers: Mapping[str, str], body: bytes) -> LlamakitError:
    """The error for an answer that is not a success."""
    said = read_error(body)
    shown = f"{service} answered {status}" + (f": {said.text}" if said.text else "")
    if 300 <= status < 400:
        return RemoteFailed(f"{service} redirects ({status}); set its base URL to where it leads", status=status)
    if status in (401, 403):
        return RemoteFailed(f"{service} refused our key ({status}); {key_hint}", status=status)
    if status == 404 and not (said.code == "model_not_found" or "model" in said.text.lower()):
        return RemoteFailed(f"{service} has nothing at that path (404); check its base URL", status=status)
    if status == 404:
        return UnknownModel(shown)
    if status in (400, 413, 415, 422):
        return _bad_request(said, shown)
    if status == 429:
        return RateLimited(shown, retry_after_s=retry_after(headers))
    if status in (503, 529):
        return Overloaded(shown, retry_after_s=retry_after(headers))
    return RemoteFailed(shown, status=status)


def interruption(service: str, error: Any) -> LlamakitError:
    """The error for an error object inside a stream, which has no status."""
    said = _said(error)
    shown = f"{service} broke the answer off" + (f": {said.text}" if said.text else "")
    words = f"{said.kind} {said.code}"
    if "rate_limit" in words:
        return RateLimited(shown)
    if "overloaded" in words:
        return Overloaded(shown)
    return _bad_request(said, shown) if "invalid_request" in words else RemoteFailed(shown)


def read_error(body: bytes) -> Said:
    """What an error body says, in any of the shapes that are about; nothing where it says nothing."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return Said()
    if not isinstance(value, dict):
        return Said()
    return _said(value.get("error", value))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait, from a number or a date; 1 where nothing is said."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.replace(".", "", 1).isdigit() and len(given) < 12:
        return min(float(given), MAX_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(given).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 1.0
    return min(max(0.0, moment - time.time()), MAX_RETRY_AFTER_S)


def _bad_request(said: Said, shown: str) -> InvalidRequest:
    if any(word in f"{said.code} {said.text}".lower() for word in _TOO_LONG):
        return PromptTooLong(shown, param=said.param)
    return InvalidRequest(shown, param=said.param, code=said.code or None)


def _said(error: Any) -> Said:
    if isinstance(error, str):
        return Said(text=_clean(error))
    if not isinstance(error, dict):
        return Said()
    text = next((error[name] for name in ("message", "detail") if isinstance(error.get(name), str)), "")
    param = error.get("param")
    return Said(
        text=_clean(text),
        kind=_clean(str(error.get("type") or "")),
        code=_clean(str(error.get("code") or "")),
        param=_clean(param) if isinstance(param, str) else None,
    )


def _clean(text: str) -> str:
    """One short line without control characters."""
    line = "".join(char if char.isprintable() else " " for char in text[: 2 * MAX_TEXT_CHARS])
    return line if len(line) <= MAX_TEXT_CHARS else f"{line[:MAX_TEXT_CHARS]}…"
