"""Quantized weights for a checkpoint: packed at the first start, mapped from a file of our own at every later one.

The files lie in the data directory under `packed/`, one for a checkpoint and a way of packing; a newer one takes the
place of an older one, and any may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from llamakit.checkpoints.gguf_parts import part_paths
from llamakit.checkpoints.load import STORED, Loaded, load_model, load_shape
from llamakit.checkpoints.reader import Reader
from llamakit.core.config import data_home
from llamakit.core.errors import CheckpointError
from llamakit.models.llama import Llama
from llamakit.quant.packed_file import load_packed, save_packed, source_of

_log = logging.getLogger(__name__)


def load_quantized(
    reader: Reader, scheme: str, dtype: torch.dtype, progress: Callable[[int, int], None] | None = None
) -> Loaded:
    """The model of an open checkpoint with its matrices packed as `scheme` says; raises what `load_model` raises.

    Each matrix is packed as it is read: memory peaks at the packed weights and one matrix.
    """
    if scheme == STORED and reader.kind == "packed":
        return load_model(reader, dtype=dtype, scheme=scheme, progress=progress)  # mapped as it is
    path = reader.path
    settings = (scheme, str(dtype))
    kept, source = packed_path(path, *settings), source_of(path, *settings, *_stamps(path))
    loaded = load_shape(reader, dtype=dtype)
    if _restore(loaded.model, kept, source):
        return loaded
    loaded = load_model(reader, dtype=dtype, scheme=scheme, progress=progress)
    try:
        save_packed(loaded.model, kept, source)
    except OSError as error:
        _log.warning("the packed weights are not kept for the next start: %s", error)
    return loaded


def _stamps(path: Path) -> list[str]:
    """What tells whether the other files of a GGUF in parts are still the same."""
    found = [other.stat() for other in part_paths(path)[1:] if other.is_file()]
    return [f"{status.st_size} {status.st_mtime_ns}" for status in found]


def packed_path(checkpoint: Path, *settings: str) -> Path:
    """Where the packed weights of a checkpoint are kept."""
    name = hashlib.sha256(repr((str(checkpoint.resolve()), settings)).encode()).hexdigest()
    return data_home() / "packed" / f"{name[:32]}.packed"


def _restore(model: Llama, kept: Path, source: str) -> bool:
    try:
        return load_packed(model, kept, source)
    except CheckpointError as error:
        _log.warning("packing again: %s", error)
        return False
