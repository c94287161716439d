"""What the command line asks a running server: which models are in memory, bring one, let one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llamakit.api.inference import LoadedModel
from llamakit.api.wire import ModelName, Wire


class WireLoadRequest(Wire):
    """Body of `POST /v1/llamakit/load`."""

    model: ModelName
    keep_alive: str | float | None = None
    """How long it stays without requests: seconds, or text such as 5m; below zero is for ever."""


class WireUnloadRequest(Wire):
    """Body of `POST /v1/llamakit/unload`."""

    model: ModelName


class WireLoadedModel(Wire):
    """A model in memory."""

    model: str
    memory_bytes: int
    """Weights and cache together."""
    context_length: int
    device: str
    running: int
    """Requests in work."""
    expires_in_s: float | None
    """Seconds until it unloads when nobody asks; null when it stays."""
    expires_at: str | None
    """The same as a time, ISO 8601 in UTC."""


class WireLoaded(Wire):
    """Every model in memory."""

    models: list[WireLoadedModel]


class WireUnloaded(Wire):
    """Whether the model was in memory."""

    model: str
    unloaded: bool


def from_loaded(model: LoadedModel, now: datetime | None = None) -> dict[str, Any]:
    """The wire form of a model in memory."""
    stays = math.isinf(model.expires_in_s)
    until = (now or datetime.now(UTC)) + timedelta(seconds=0 if stays else model.expires_in_s)
    return {
        "model": model.name,
        "memory_bytes": model.memory_bytes,
        "context_length": model.context_length,
        "device": model.device,
        "running": model.running,
        "expires_in_s": None if stays else round(model.expires_in_s, 3),
        "expires_at": None if stays else until.isoformat(timespec="seconds"),
    }


def from_all_loaded(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """The wire form of the list."""
    return {"models": [from_loaded(model) for model in models]}
