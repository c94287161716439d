"""Which API a request speaks: how its errors look, and how its streams are framed.

Decided by path and version header before anything else is known, because a refusal at the door must be
readable too. Decides nothing about access.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import Headers

from llamakit.api.anthropic_errors import AnthropicError, anthropic_error
from llamakit.api.llama_stack_errors import LlamaStackError, llama_stack_error
from llamakit.api.ollama_errors import OllamaError, ollama_error
from llamakit.api.openai_answer import to_json
from llamakit.api.openai_errors import ErrorBody
from llamakit.api.wire import Wire

Dialect = Literal["openai", "anthropic", "ollama", "llama-stack"]

CLASSIC_OPENAI = "/v1/openai/v1/"
"""What classic Llama Stack put before OpenAI's paths."""
_LLAMA_STACK = (
    CLASSIC_OPENAI,
    "/v1alpha/",
    "/v1beta/",
    "/v1/agents",
    "/v1/datasetio/",
    "/v1/datasets",
    "/v1/inference/",
    "/v1/inspect/",
    "/v1/providers",
    "/v1/safety/",
    "/v1/scoring",
    "/v1/shields",
    "/v1/telemetry/",
    "/v1/tool-runtime/",
    "/v1/toolgroups",
    "/v1/tools",
    "/v1/vector-dbs",
    "/v1/vector-io/",
    "/v1/version",
)
"""Beginnings of the paths that are Llama Stack's own."""


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
PLAIN_EVENTS = dataclasses.replace(OPENAI_EVENTS, end=b"")
"""Every event is JSON: a stream ends where it ends."""
JSON_LINES = Framing(media_type="application/x-ndjson", before="", after="\n", error_before="")


def dialect_of(path: str, headers: Headers | None = None) -> Dialect:
    """The dialect of a path; the list of models is shared, and its readers are told apart by a header."""
    if path.startswith("/api/"):
        return "ollama"
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "anthropic"
    if path.startswith(_LLAMA_STACK):
        return "llama-stack"
    is_models = path == "/v1/models" or path.startswith("/v1/models/")
    return "anthropic" if is_models and headers is not None and "anthropic-version" in headers else "openai"


def framing_for(dialect: Dialect, framing: Framing) -> Framing:
    """How a stream is sent in a dialect: classic Llama Stack clients read every event as JSON, the end mark too."""
    return dataclasses.replace(framing, end=b"") if dialect == "llama-stack" else framing


def error_kind(dialect: Dialect) -> type[Wire]:
    """The wire type of a dialect's errors."""
    kinds: dict[Dialect, type[Wire]] = {
        "openai": ErrorBody,
        "anthropic": AnthropicError,
        "ollama": OllamaError,
        "llama-stack": LlamaStackError,
    }
    return kinds[dialect]


def shaped(dialect: Dialect, body: dict[str, Any], *, status: int, request_id: str) -> dict[str, Any]:
    """OpenAI's error object in the shape of a dialect."""
    message = body["error"]["message"]
    shapes: dict[Dialect, Callable[[], dict[str, Any]]] = {
        "openai": lambda: body,
        "anthropic": lambda: anthropic_error(status, message, request_id),
        "ollama": lambda: ollama_error(message),
        "llama-stack": lambda: llama_stack_error(body),
    }
    return shapes[dialect]()
