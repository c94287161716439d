"""Objects of OpenAI's wire beside answers -> the house's: models, what is in memory, vectors; every field checked."""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from llamakit.api.inference import LoadedModel, ModelInfo
from llamakit.core.errors import RemoteFailed

_CONTEXTS = ("max_model_len", "context_window", "context_length")
"""Names that vendors have for the tokens of prompt and answer together."""


def read_models(service: str, made: Any, *, owner: str) -> Sequence[ModelInfo]:
    """A list of models; some vendors send it bare. Raises `RemoteFailed`."""
    entries = made if isinstance(made, list) else field_of(service, made, "data", list)
    return [_model(service, entry, owner) for entry in entries]


def read_loaded(service: str, entry: Any) -> LoadedModel:
    """A model in memory, as a llamakit server tells it; raises `RemoteFailed`."""
    left = entry.get("expires_in_s") if isinstance(entry, dict) else None
    return LoadedModel(
        name=field_of(service, entry, "model", str),
        memory_bytes=field_of(service, entry, "memory_bytes", int),
        context_length=field_of(service, entry, "context_length", int),
        device=field_of(service, entry, "device", str),
        expires_in_s=float(left) if isinstance(left, int | float) else math.inf,
        running=field_of(service, entry, "running", int),
    )


def read_vectors(service: str, made: Any, num_inputs: int) -> tuple[Sequence[array[float]], int]:
    """One vector per input, in the inputs' order, and the tokens counted; raises `RemoteFailed`."""
    entries = field_of(service, made, "data", list)
    if len(entries) != num_inputs:
        raise RemoteFailed(f"{service} gave {len(entries)} vectors for {num_inputs} inputs")
    vectors: dict[int, array[float]] = {}
    for number, entry in enumerate(entries):
        index = entry.get("index", number) if isinstance(entry, dict) else None
        if not isinstance(index, int) or not 0 <= index < num_inputs or index in vectors:
            raise bad_field(service, "data[].index")
        vectors[index] = _vector(service, entry.get("embedding"))
    usage = made.get("usage")
    counted = usage.get("prompt_tokens") if isinstance(usage, dict) else 0
    return [vectors[index] for index in range(num_inputs)], counted if isinstance(counted, int) else 0


def field_of(service: str, value: Any, name: str, kind: type) -> Any:
    """A field that must be there and of that kind; raises `RemoteFailed`."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise bad_field(service, name)
    return found


def bad_field(service: str, name: str) -> RemoteFailed:
    """The error for a field that is not what it should be."""
    return RemoteFailed(f"{service} sent an answer whose {name} is not what it should be")


def _model(service: str, entry: Any, owner: str) -> ModelInfo:
    name = field_of(service, entry, "id", str)
    created, given = entry.get("created"), entry.get("owned_by")
    contexts = (entry.get(key) for key in _CONTEXTS)
    is_embedding = "embedding" in (entry.get("kind"), entry.get("type"))
    return ModelInfo(
        name=name,
        created=created if isinstance(created, int) and 0 <= created < 2**40 else 0,
        owned_by=given if isinstance(given, str) and given else owner,
        context_length=next((length for length in contexts if isinstance(length, int)), None),
        kind="embedding" if is_embedding else "llm",
    )


def _vector(service: str, value: Any) -> array[float]:
    try:
        if isinstance(value, str):
            vector = array("f")
            vector.frombytes(base64.b64decode(value, validate=True))
            if sys.byteorder == "big":
                vector.byteswap()
        else:
            vector = array("f", value)
    except (TypeError, ValueError, OverflowError, binascii.Error):
        raise bad_field(service, "data[].embedding") from None
    if not vector or not all(map(math.isfinite, vector)):
        raise bad_field(service, "data[].embedding")
    return vector
