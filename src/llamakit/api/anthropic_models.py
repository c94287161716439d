"""Anthropic's list of models: a page of them, from a cursor on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from llamakit.api.inference import ModelInfo
from llamakit.api.wire import Wire, found
from llamakit.core.errors import InvalidRequest

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


class AnthropicModel(Wire):
    """A model that can be asked for."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    """RFC 3339; the epoch where it is not known."""
    lifecycle: Literal["active"]
    max_input_tokens: int | None = None
    """Tokens of prompt and answer together, where known."""


class AnthropicModels(Wire):
    """A page of them."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


def from_model(model: ModelInfo) -> dict[str, Any]:
    """The wire form of one model."""
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": model.context_length,
    }


def to_page(models: Sequence[ModelInfo], query: Mapping[str, str]) -> dict[str, Any]:
    """The page that `after_id` or `before_id` and `limit` ask for; raises `InvalidRequest`."""
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= MAX_LIMIT):
        raise InvalidRequest(f"limit must be an integer in [1, {MAX_LIMIT}], got {found(limit)}", param="limit")
    names = [model.name for model in models]
    begin, end = 0, len(models)
    for param in ("after_id", "before_id"):
        if param in query and query[param] not in names:
            raise InvalidRequest(f"{param} names no model: {found(query[param])}", param=param)
    if "after_id" in query:
        begin = names.index(query["after_id"]) + 1
    if "before_id" in query:
        end = names.index(query["before_id"])
        begin = max(begin, end - int(limit))
    page = models[begin : min(end, begin + int(limit))]
    has_more = begin > 0 if "before_id" in query else begin + len(page) < end
    return {
        "data": [from_model(model) for model in page],
        "has_more": has_more,
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }
