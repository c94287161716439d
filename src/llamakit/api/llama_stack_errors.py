"""Llama Stack's errors: OpenAI's object, which newer clients read, and beside it the `detail` of classic ones."""

from __future__ import annotations

from typing import Any

from llamakit.api.openai_errors import ErrorBody


class LlamaStackError(ErrorBody):
    """Body of every answer that is not a success."""

    detail: str
    """What went wrong, as in `error.message`."""


def llama_stack_error(body: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's error object for readers of either generation."""
    return {**body, "detail": body["error"]["message"]}
