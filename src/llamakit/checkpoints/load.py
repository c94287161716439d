"""A path -> a model with weights: shape first, then tensor by tensor.

A tensor that is stored in the wanted dtype stays in the file's pages (copy-on-write, shared between
processes); any other is converted piece by piece. Peak memory is the weights plus a few MiB. While
such a model lives its file must not be changed in place: replace it instead, as every downloader does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.reader import Generation, Kind, Metadata, Reader, TokenizerSource
from llamakit.checkpoints.weights import Progress, check_weights, natural_dtype
from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.models.llama import Llama, build
from llamakit.quant.convert import install, pack_matrix
from llamakit.quant.schemes import Scheme, resolve_scheme

STORED: Final = "stored"
"""The scheme that rounds nothing: matrices stay as a quantized checkpoint has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model and what its checkpoint says about it."""

    model: Llama
    config: ModelConfig
    generation: Generation
    metadata: Metadata
    kind: Kind
    path: Path

    @property
    def tokenizer_source(self) -> TokenizerSource:
        """Where the tokenizer lies; read from the checkpoint when asked, for a vocabulary takes longer than a map."""
        with open_checkpoint(self.path) as reader:
            return reader.tokenizer_source()


def load_model(
    path: str | Path | Reader,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    scheme: str | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Build the model of a checkpoint, or of an open one, which stays open, and give it its weights.

    `dtype` None keeps what most weights are stored in (bfloat16 for quantized files). `scheme` packs matrices as they
    are read, so that no more than one is ever held as floats: `STORED` takes those of a quantized checkpoint in the
    integers they are stored in, a name of `quant.schemes` rounds every matrix. Raises `CheckpointError` before any
    weight is read when tensors are missing, unexpected or mis-shaped, `ConfigError` when `scheme` cannot be had.
    """
    chosen = None if scheme in (None, STORED) else resolve_scheme(scheme)
    if scheme is not None and torch.device(device).type != "cpu":
        raise ConfigError(f"packed weights are computed with on the CPU, not on {device}")
    with _opened(path) as reader:
        infos = reader.infos()
        loaded = _empty(reader, dtype)
        done, total = 0, sum(info.nbytes for info in infos.values())
        for name, info in infos.items():
            if scheme != STORED or not _take_stored(loaded.model, reader, name):
                _take_tensor(loaded.model, reader, name, device, chosen)
            done += info.nbytes
            if progress is not None:
                progress(done, total)
        return loaded


def load_shape(path: str | Path | Reader, *, dtype: torch.dtype | None = None) -> Loaded:
    """What `load_model` gives, with a model on `meta`: for weights that come from elsewhere."""
    with _opened(path) as reader:
        return _empty(reader, dtype)


def _opened(path: str | Path | Reader) -> AbstractContextManager[Reader]:
    return nullcontext(path) if isinstance(path, Reader) else open_checkpoint(path)


def _empty(reader: Reader, dtype: torch.dtype | None) -> Loaded:
    config, infos = reader.config(), reader.infos()
    check_weights(infos, config, reader.path)
    model = build(config, device="meta", dtype=dtype or natural_dtype(infos))
    return Loaded(
        model=model.eval(),
        config=config,
        generation=reader.generation(),
        metadata=reader.metadata(),
        kind=reader.kind,
        path=reader.path,
    )


def _take_stored(model: Llama, reader: Reader, name: str) -> bool:
    """Whether the checkpoint has the matrix in integers; then the model has it, too."""
    found = reader.matrix(name)
    if found is None:
        return False
    install(model, name.removesuffix(".weight"), found.weight, model.dtype, found.correction)
    reader.release(name)
    return True


def _take_tensor(model: Llama, reader: Reader, name: str, device: torch.device | str, scheme: Scheme | None) -> None:
    tensor = reader.tensor(name, model.dtype)
    if scheme is not None and pack_matrix(model, name.removesuffix(".weight"), tensor, scheme):
        reader.release(name)
    else:
        _assign(model, name, tensor.to(device))


def _assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=module.get_parameter(leaf).requires_grad))
