"""Embeddings of words and letters in process, with no model at all: what is there when nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError
from llamakit.providers.inline.inference.embedding import EmbeddingInference
from llamakit.rag.ngrams import NgramEncoder

MODEL = "ngrams"


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> EmbeddingInference:
    """The provider; it has no settings of its own."""
    known = {"models", "keep_alive"}
    for key in config:
        if key not in known:
            raise ConfigError(f"the provider has no setting {key!r}{nearest(key, sorted(known))}")
    models = tuple(config.get("models") or (MODEL,))
    if len(models) != 1:
        raise ConfigError(f"the provider has one model, got {len(models)}")
    return EmbeddingInference(models[0], NgramEncoder)
