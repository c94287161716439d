"""The models that come with the package: found among its data, described by their own card.

Each lives in `hub/embedded/<name>/` as a Hugging Face directory beside `card.json`, which says what it is, how
it was trained and how it measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llamakit.core.errors import CheckpointError

ROOT = Path(__file__).parent / "embedded"
FILES = ("model.safetensors", "config.json", "tokenizer.model", "card.json")
DEFAULT = "cria"


def names() -> list[str]:
    """Names of the models in the package."""
    if not ROOT.is_dir():
        return []
    return sorted(entry.name for entry in ROOT.iterdir() if (entry / "config.json").is_file())


def find(name: str) -> Path | None:
    """Directory of an embedded model, or None; `cria:latest` is `cria`."""
    stem = name.strip().lower().removesuffix(":latest")
    return ROOT / stem if stem in names() else None


def missing_files(directory: Path) -> list[str]:
    """Files an embedded model should have and does not."""
    return [file for file in FILES if not (directory / file).is_file()]


def card(directory: Path) -> dict[str, Any]:
    """What the model says about itself; raises `CheckpointError` when the package is damaged."""
    path = directory / "card.json"
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise CheckpointError(f"{path} cannot be read ({fault}); reinstall llamakit") from fault
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object; reinstall llamakit")
    return data
