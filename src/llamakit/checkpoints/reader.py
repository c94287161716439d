"""What every checkpoint can tell, whatever its format: config, tensors by canonical name, tokenizer, habits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from llamakit.checkpoints import names
from llamakit.checkpoints.stored import TensorInfo
from llamakit.core.errors import CheckpointError
from llamakit.core.model_config import ModelConfig
from llamakit.kernels.grouped import GroupedWeight
from llamakit.kernels.packed import PackedWeight
from llamakit.kernels.table import TableWeight
from llamakit.quant.grouped import LowRank
from llamakit.text.gguf_vocab import TokenizerFields


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMatrix:
    """A matrix as integers and scales, and what an adapter adds to it."""

    weight: GroupedWeight | PackedWeight | TableWeight
    correction: LowRank | None = None


Kind = Literal["hf", "meta", "gguf", "packed"]
TokenizerSource = Path | TokenizerFields | None
"""A directory with tokenizer files, the fields embedded in the file, or nothing."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""Files beside the weights that belong to the tokenizer; only the first two hold a vocabulary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """How the publisher means the model to generate; None and empty where the checkpoint does not say."""

    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    """Every id that ends an answer, in the order of the file."""
    pad_id: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Facts for people and for choosing a prompt format. The chat template is text; nothing here runs it."""

    architecture: str
    name: str | None
    quantization: str
    """The encoding of most weights, as in "BF16" or "Q4_K_M"."""
    num_parameters: int
    num_bytes: int
    """Bytes of all tensors on disk."""
    chat_template: str | None


class Reader(ABC):
    """An open checkpoint. Names and shapes are known at once; tensor data is read when asked for."""

    kind: Kind
    path: Path

    @abstractmethod
    def config(self) -> ModelConfig:
        """The model's shape; raises `UnsupportedFormat` naming the field this build cannot honour."""

    @abstractmethod
    def generation(self) -> Generation:
        """End ids and sampling defaults."""

    @abstractmethod
    def metadata(self) -> Metadata:
        """Facts about the file."""

    @abstractmethod
    def tokenizer_source(self) -> TokenizerSource:
        """Where the tokenizer lies."""

    def tokenizer_digest(self) -> str | None:
        """SHA-256 of a tokenizer inside the checkpoint, found without reading it; None where it lies beside."""
        return None

    @abstractmethod
    def infos(self) -> Mapping[str, TensorInfo]:
        """Canonical name -> shape and dtype of every tensor; names that are no tensor of a Llama stay as they are."""

    @abstractmethod
    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor in canonical order, on the CPU.

        Without `dtype`, or when it is stored so, the tensor is a copy-on-write view of the file where the
        format allows. Conversions go piece by piece, so nothing but the result is held whole.
        """

    def matrix(self, name: str) -> StoredMatrix | None:
        """The matrix in the integers it is stored in, in canonical order; None where it is stored as plain numbers.

        What is read this way stands for the numbers `tensor` gives, up to the rounding that its format's module names.
        """
        return None

    def is_quantized(self) -> bool:
        """Whether most of the matrices are stored so that `matrix` gives them."""
        return False

    def release(self, name: str) -> None:
        """Let go of memory that a tensor handed out by `tensor` shares with the file; it stays valid, unchanged."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the files; tensors that were handed out stay valid."""

    def names(self) -> tuple[str, ...]:
        """Canonical names of all tensors."""
        return tuple(self.infos())

    def tensors(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
        """Every (canonical name, tensor), one at a time."""
        for name in self.names():
            yield name, self.tensor(name, dtype)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def halves_of(path: Path, name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """A tensor as Meta and GGUF store it -> canonical order; only q and k weights change."""
    heads = names.rotary_heads(name, config)
    if heads is None:
        return tensor
    if tensor.ndim != 2 or tensor.shape[0] != heads * config.head_dim:
        raise CheckpointError(
            f"{path}: {name} has shape {list(tensor.shape)}, wanted {heads} heads of {config.head_dim} rows"
        )
    return names.to_halves(tensor, heads)


def main_encoding(infos: Mapping[str, TensorInfo]) -> str:
    """The encoding that holds the most bytes of the matrices."""
    sizes: Counter[str] = Counter()
    for info in infos.values():
        sizes[info.encoding] += info.nbytes if len(info.shape) > 1 else 0
    return sizes.most_common(1)[0][0] if sizes else "unknown"


def tokenizer_directory(directory: Path) -> Path | None:
    """The directory itself if a vocabulary lies in it."""
    return directory if any((directory / name).is_file() for name in TOKENIZER_FILES[:2]) else None
