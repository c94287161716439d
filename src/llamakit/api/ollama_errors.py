"""Ollama's error object: one sentence."""

from __future__ import annotations

from typing import Any

from llamakit.api.wire import Wire


class OllamaError(Wire):
    """Body of every answer that is not a success, and last line of a stream that failed."""

    error: str


def ollama_error(message: str) -> dict[str, Any]:
    """The object as plain values."""
    return {"error": message}
