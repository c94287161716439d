"""Reader of Meta's original files: params.json with one consolidated.NN file per model-parallel rank.

Ranks are merged tensor by tensor. Embeddings were divided by columns until Llama 2 and by rows since
Llama 3; key and value heads are repeated when there are more ranks than heads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llamakit.checkpoints import names
from llamakit.checkpoints.checked_file import read_json
from llamakit.checkpoints.meta_config import config_from_meta, generation_of_meta
from llamakit.checkpoints.reader import (
    Generation,
    Metadata,
    Reader,
    TokenizerSource,
    halves_of,
    main_encoding,
    tokenizer_directory,
)
from llamakit.checkpoints.safetensors_file import SafetensorsFile
from llamakit.checkpoints.stored import BYTES, StoredTensor, TensorInfo
from llamakit.checkpoints.tied import are_equal
from llamakit.checkpoints.torch_file import TorchFile
from llamakit.core.errors import CheckpointError
from llamakit.core.model_config import ModelConfig

SHARD = re.compile(r"consolidated\.(?:([0-9]{2})\.)?(pth|safetensors)")
_EMBEDDING, _HEAD, _FIRST_KEYS = "tok_embeddings.weight", "output.weight", "layers.0.attention.wk.weight"
_ROTARY_KEYS = ("attention.wk.weight", "attention.wv.weight")


@dataclass(frozen=True, slots=True)
class _Merged:
    """One tensor over its ranks."""

    parts: tuple[StoredTensor, ...]
    axis: int
    copies: tuple[StoredTensor, ...] = ()
    """Repeated key or value heads, each to be proven equal to the part before it when it is read."""

    @property
    def info(self) -> TensorInfo:
        first = self.parts[0].info
        shape = list(first.shape)
        shape[self.axis] *= len(self.parts)
        return TensorInfo(
            shape=tuple(shape), dtype=first.dtype, encoding=first.encoding, nbytes=first.nbytes * len(self.parts)
        )

    def load(self, dtype: torch.dtype | None) -> Tensor:
        if len(self.parts) == 1:
            return self.parts[0].load(dtype)
        info = self.info
        target = torch.empty(info.shape, dtype=dtype or info.dtype)
        width = self.parts[0].shape[self.axis]
        for rank, part in enumerate(self.parts):
            part.read_into(target.narrow(self.axis, rank * width, width))
        return target


class MetaReader(Reader):
    """A directory with params.json and consolidated files."""

    kind = "meta"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_json(path / "params.json")
        self._shards: list[TorchFile | SafetensorsFile] = []
        try:
            for file in find_shards(path):
                self._shards.append(TorchFile(file) if file.suffix == ".pth" else SafetensorsFile(file))
            self._ranks = self._check_ranks()
            self._config = self._read_config()
            self._tensors = self._merge()
        except BaseException:
            self.close()
            raise

    def _check_ranks(self) -> list[dict[str, StoredTensor]]:
        # Older files carry the rotary frequencies, which follow from the config.
        ranks = [
            {name: tensor for name, tensor in shard.tensors.items() if not name.endswith("rope.freqs")}
            for shard in self._shards
        ]
        shapes = [{name: (tensor.shape, tensor.encoding) for name, tensor in rank.items()} for rank in ranks]
        for number, others in enumerate(shapes[1:], start=1):
            odd = [name for name in shapes[0].keys() | others.keys() if shapes[0].get(name) != others.get(name)]
            if odd:
                first = min(odd)[:200]
                raise CheckpointError(
                    f"{self.path}: ranks 0 and {number} disagree about {len(odd)} tensors, first: {first!r}"
                )
        self._refuse_integers(ranks)
        for name in (_EMBEDDING, _FIRST_KEYS):
            if name not in ranks[0] or len(ranks[0][name].shape) != 2:
                raise CheckpointError(
                    f"{self.path}: no rank has the matrix {name!r}; it is not a Llama of Meta's format"
                )
        return ranks

    def _refuse_integers(self, ranks: list[dict[str, StoredTensor]]) -> None:
        for name, tensor in ranks[0].items():
            if tensor.encoding is BYTES:
                raise CheckpointError(
                    f"{self.path}: {name[:200]!r} holds int8 values, but params.json has no quantization_args"
                )

    def _kv_heads(self) -> dict[str, int]:
        """The number of different key heads, when every rank holds one and neighbours repeat it (405B over 16)."""
        keys = [rank[_FIRST_KEYS] for rank in self._ranks]
        told, heads = self._values.get("n_kv_heads"), self._values.get("n_heads")
        if told != len(keys) or type(heads) is not int or heads < 1 or keys[0].shape[0] * heads != keys[0].shape[1]:
            return {}
        starts = [i for i, key in enumerate(keys) if i == 0 or not are_equal(key, keys[i - 1])]
        repeats = len(keys) // len(starts)
        return {"n_kv_heads": len(starts)} if starts == list(range(0, len(keys), repeats)) else {}

    def _read_config(self) -> ModelConfig:
        rows, columns = self._ranks[0][_EMBEDDING].shape
        # The width is known, so the axis that is short of it is the divided one.
        self._embedding_axis = 0 if columns == self._values.get("dim") else 1
        vocab_size = rows * len(self._ranks) if self._embedding_axis == 0 else rows
        values = self._values | self._kv_heads()
        return config_from_meta(values, self.path / "params.json", vocab_size=vocab_size, tied=self._is_tied())

    def _is_tied(self) -> bool:
        """Whether the head is absent or, as in the 1B and 3B, the embedding stored a second time."""
        if _HEAD not in self._ranks[0]:
            return True
        return all(are_equal(rank[_HEAD], rank[_EMBEDDING]) for rank in self._ranks)

    def _merge(self) -> dict[str, _Merged]:
        merged: dict[str, _Merged] = {}
        for name in self._ranks[0]:
            canonical = names.translate(name, "meta", "hf")
            parts = tuple(rank[name] for rank in self._ranks)
            if canonical is None:
                merged[name] = _Merged(parts[:1], 0)
            elif canonical != names.HEAD or not self._config.tie_embeddings:
                merged[canonical] = self._merge_one(name, canonical, parts)
        return merged

    def _merge_one(self, name: str, canonical: str, parts: tuple[StoredTensor, ...]) -> _Merged:
        split = names.split_of(canonical)
        if split == "none" or len(parts) == 1:
            return _Merged(parts[:1], 0)
        axis = {"rows": 0, "columns": 1, "embedding": self._embedding_axis}[split]
        if len(parts[0].shape) <= axis:
            raise CheckpointError(f"{self.path}: {name!r} has shape {list(parts[0].shape)}, wanted a matrix")
        wanted_rows = self._config.num_kv_heads * self._config.head_dim
        repeats, rest = divmod(parts[0].shape[0] * len(parts), wanted_rows)
        if name.endswith(_ROTARY_KEYS) and rest == 0 and repeats > 1 and len(parts) % repeats == 0:
            copies = tuple(part for rank, part in enumerate(parts) if rank % repeats)
            return _Merged(parts[::repeats], axis, copies)
        return _Merged(parts, axis)

    def config(self) -> ModelConfig:
        return self._config

    def generation(self) -> Generation:
        return generation_of_meta(self._config)

    def metadata(self) -> Metadata:
        infos = self.infos()
        return Metadata(
            architecture="llama",
            name=None,
            quantization=main_encoding(infos),
            num_parameters=self._config.num_parameters,
            num_bytes=sum(info.nbytes for info in infos.values()),
            chat_template=None,
        )

    def tokenizer_source(self) -> TokenizerSource:
        return tokenizer_directory(self.path)

    def infos(self) -> Mapping[str, TensorInfo]:
        return {name: tensor.info for name, tensor in self._tensors.items()}

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        merged = self._tensors[name]
        repeats = 1 + len(merged.copies) // len(merged.parts)
        for number, copy in enumerate(merged.copies):
            if not are_equal(copy, merged.parts[number // (repeats - 1)]):
                raise CheckpointError(f"{self.path}: ranks repeat the heads of {name!r}, but the copies differ")
        return halves_of(self.path, name, merged.load(dtype), self._config)

    def release(self, name: str) -> None:
        for part in self._tensors[name].parts:
            part.release()

    def close(self) -> None:
        for shard in self._shards:
            shard.close()


def find_shards(directory: Path) -> list[Path]:
    """The consolidated files of a directory, in rank order; raises when a rank is missing."""
    found = sorted(file for file in directory.iterdir() if SHARD.fullmatch(file.name))
    suffixes = {file.suffix for file in found}
    if ".safetensors" in suffixes:
        found = [file for file in found if file.suffix == ".safetensors"]
    if found and [file.name for file in found] == [f"consolidated{found[0].suffix}"]:
        return found
    wanted = [f"consolidated.{rank:02}{found[0].suffix}" for rank in range(len(found))] if found else []
    if not found or [file.name for file in found] != wanted:
        listed = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(f"{directory}: wanted consolidated.00.pth and on without a gap, found {listed}")
    return found
