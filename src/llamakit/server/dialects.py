"""Which API a request speaks: how its errors look, and how its streams are framed.

Decided by path and version header before anything else is known, because a refusal at the door must be
readable too. Decides nothing about access.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import Headers

from llamakit.api.anthropic_errors import AnthropicError, anthropic_error
from llamakit.api.ollama_errors import OllamaError, ollama_error
from llamakit.api.openai_answer import to_json
from llamakit.api.openai_errors import ErrorBody
from llamakit.api.wire import Wire

Dialect = Literal["openai", "anthropic", "ollama"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """How the pieces of a stream become bytes."""

    media_type: str
    before: str
    after: str
    error_before: str
    """Stands before the last piece of a stream that failed."""
    end: bytes = b""
    """Ends a stream that is whole."""
    ping: bytes = b""
    """Sent in silence; nothing where the format has no room for it."""

    def frame(self, piece: str) -> bytes:
        """The bytes of one piece."""
        return f"{self.before}{piece}{self.after}".encode()

    def frame_error(self, body: dict[str, Any]) -> bytes:
        """The bytes of an error."""
        return f"{self.error_before}{to_json(body)}{self.after}".encode()


OPENAI_EVENTS = Framing(
    media_type="text/event-stream",
    before="data: ",
    after="\n\n",
    error_before="data: ",
    end=b"data: [DONE]\n\n",
    ping=b": ping\n\n",
)
NAMED_EVENTS = Framing(
    media_type="text/event-stream",
    before="",
    after="\n\n",
    error_before="event: error\ndata: ",
    ping=b'event: ping\ndata: {"type":"ping"}\n\n',
)
"""Pieces bring their `event:` and `data:` lines themselves."""
RESPONSE_EVENTS = Framing(
    media_type="text/event-stream",
    before="",
    after="\n\n",
    error_before="event: error\ndata: ",
    end=b"data: [DONE]\n\n",
    ping=b": ping\n\n",
)
"""The same, with the end mark that OpenAI's clients know."""
JSON_LINES = Framing(media_type="application/x-ndjson", before="", after="\n", error_before="")


def dialect_of(path: str, headers: Headers | None = None) -> Dialect:
    """The dialect of a path; the list of models is shared, and its readers are told apart by a header."""
    if path.startswith("/api/"):
        return "ollama"
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "anthropic"
    is_models = path == "/v1/models" or path.startswith("/v1/models/")
    return "anthropic" if is_models and headers is not None and "anthropic-version" in headers else "openai"


def error_kind(dialect: Dialect) -> type[Wire]:
    """The wire type of a dialect's errors."""
    kinds: dict[Dialect, type[Wire]] = {"openai": ErrorBody, "anthropic": AnthropicError, "ollama": OllamaError}
    return kinds[dialect]


def shaped(dialect: Dialect, body: dict[str, Any], *, status: int, request_id: str) -> dict[str, Any]:
    """OpenAI's error object in the shape of a dialect."""
    message = body["error"]["message"]
    shapes: dict[Dialect, Callable[[], dict[str, Any]]] = {
        "openai": lambda: body,
        "anthropic": lambda: anthropic_error(status, message, request_id),
        "ollama": lambda: ollama_error(message),
    }
    return shapes[dialect]()
