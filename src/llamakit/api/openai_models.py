"""OpenAI's list of models, with what a client of a local server wants to know besides.

Llama Stack's clients ask at the same paths. The classic ones read `identifier` and its neighbours, the newer ones
`id` and `custom_metadata`; no name means two things, so one object serves them all, and nobody has to be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from llamakit.api.inference import ModelInfo
from llamakit.api.wire import ModelName, Wire


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
    identifier: str | None = None
    """The name once more (Llama Stack)."""
    type: Literal["model"] | None = None
    model_type: Literal["llm", "embedding"] | None = None
    """`kind` once more (Llama Stack)."""
    provider_id: str | None = None
    """Who answers for it (Llama Stack)."""
    provider_resource_id: str | None = None
    """Its name there (Llama Stack)."""
    metadata: dict[str, Any] | None = None
    """`details` once more, with the context length (Llama Stack)."""
    custom_metadata: dict[str, Any] | None = None
    """The same with `model_type` and provider, where newer clients look for them (Llama Stack)."""


class WireModelRegistration(Wire):
    """Body of `POST /v1/models`: a name for a model of a provider."""

    model_id: ModelName
    provider_model_id: ModelName | None = None
    """The provider's own name of it; the same when left out."""
    provider_id: str | None = None
    """May be left out where there is one provider of inference."""
    model_type: Literal["llm", "embedding"] | None = None
    """What it is for; as the provider knows it when left out."""
    metadata: dict[str, Any] | None = None
    """Facts to show."""


class WireModels(Wire):
    """All of them."""

    object: Literal["list"]
    data: list[WireModel]


def from_model(model: ModelInfo) -> dict[str, Any]:
    """The wire form of one model."""
    facts = dict(model.details)
    if model.context_length is not None:
        facts["context_length"] = model.context_length
    # Clients want text here; a provider that stands alone needs no name of its own.
    owner, name = model.provider_id or model.owned_by, model.provider_name or model.name
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "max_model_len": model.context_length,
        "kind": model.kind,
        "details": dict(model.details),
        "identifier": model.name,
        "type": "model",
        "model_type": model.kind,
        "provider_id": owner,
        "provider_resource_id": name,
        "metadata": facts,
        "custom_metadata": {
            **facts,
            "model_type": model.kind,
            "provider_id": owner,
            "provider_resource_id": name,
        },
    }


def from_models(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """The wire form of the list."""
    return {"object": "list", "data": [from_model(model) for model in models]}
