"""Files that store the head of a tied model a second time: proven equal, then dropped."""

from __future__ import annotations

from pathlib import Path

from llamakit.checkpoints.checked_file import CHUNK_BYTES
from llamakit.checkpoints.names import EMBEDDING, HEAD
from llamakit.checkpoints.stored import StoredTensor
from llamakit.core.errors import CheckpointError
from llamakit.core.model_config import ModelConfig


def drop_tied_head(tensors: dict[str, StoredTensor], config: ModelConfig, path: Path) -> dict[str, StoredTensor]:
    """Without `lm_head.weight` when the config ties it; raises if the file's head is not the embedding."""
    if not config.tie_embeddings or HEAD not in tensors or EMBEDDING not in tensors:
        return tensors
    if not are_equal(tensors[HEAD], tensors[EMBEDDING]):
        raise CheckpointError(
            f"{path}: the config ties head and embedding, but {HEAD} differs from {EMBEDDING}; "
            "set tie_word_embeddings to false to keep the stored head"
        )
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}


def are_equal(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether two plain tensors have the same shape, encoding and bytes; stops at the first difference."""
    if (first.shape, first.encoding, first.stride) != (second.shape, second.encoding, second.stride):
        return False
    if (first.file, first.offset) == (second.file, second.offset):
        return True
    pairs = zip(
        first.file.chunks(first.offset, first.nbytes, CHUNK_BYTES),
        second.file.chunks(second.offset, second.nbytes, CHUNK_BYTES),
        strict=True,
    )
    return all(a == b for a, b in pairs)
