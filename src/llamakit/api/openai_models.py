"""OpenAI's list of models, with what a client of a local server wants to know besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from llamakit.api.inference import ModelInfo
from llamakit.api.wire import Wire


class WireModel(Wire):
    """A model that can be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    shutdown_date: str | None = None
    max_model_len: int | None = None
    """Tokens of prompt and answer together, where known (extension)."""
    kind: Literal["llm", "embedding"] | None = None
    """What it is for (extension)."""
    details: dict[str, str | int | float | bool] | None = None
    """Family, parameters, quantization, licence, where known (extension)."""


class WireModels(Wire):
    """All of them."""

    object: Literal["list"]
    data: list[WireModel]


def from_model(model: ModelInfo) -> dict[str, Any]:
    """The wire form of one model."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "max_model_len": model.context_length,
        "kind": model.kind,
        "details": dict(model.details),
    }


def from_models(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """The wire form of the list."""
    return {"object": "list", "data": [from_model(model) for model in models]}
