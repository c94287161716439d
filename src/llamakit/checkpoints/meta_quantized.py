"""Reader of Meta's quantized Llama 3.2 files: SpinQuant and QLoRA, integers with scales under Meta's names.

Linear layers of the blocks are int8 values -8 .. 7 with a scale for each group of 32 inputs (`weight`, `scales`, and
perhaps `zeros`); embedding and head are int8 with a scale a row. SpinQuant has turned the weights so that outliers are
small; all turns but one are already in the weights, the last is done at run time: the input of `w2` goes through a
normalised Hadamard transform. QLoRA keeps low-rank adapters beside the integers (`adaptor.A`, `adaptor.B`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llamakit.checkpoints import names
from llamakit.checkpoints.checked_file import read_json
from llamakit.checkpoints.fields import Fields
from llamakit.checkpoints.meta import MetaReader
from llamakit.checkpoints.reader import Metadata, StoredMatrix, halves_of
from llamakit.checkpoints.stored import BYTES, StoredTensor, TensorInfo
from llamakit.checkpoints.tied import are_equal
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.core.model_config import ModelConfig
from llamakit.kernels.grouped import GROUP, group
from llamakit.kernels.packed import rotate
from llamakit.quant.grouped import LowRank

SCHEME = "int4_weight_int8_dynamic_activation"
_CONTEXT = 8192
"""Tokens that these releases were trained and evaluated with, by their model card; their params.json does not say."""
_CHUNK_ROWS = 1024
_MAX_RANK = 1024
_PARTS = {"scales": "scales", "zeros": "zeros", "adaptor.A.weight": "down", "adaptor.B.weight": "up"}
_TABLES = ("output", "tok_embeddings")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scheme:
    """What params.json says about the integers."""

    group_size: int
    spinquant: bool
    rank: int | None
    lora_scale: float

    @property
    def name(self) -> str:
        return "INT4-SpinQuant" if self.spinquant else "INT4" if self.rank is None else "INT4-QLoRA"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Integers:
    """One matrix: stored tensors, checked against one another."""

    weight: StoredTensor
    scales: StoredTensor
    zeros: StoredTensor | None = None
    down: StoredTensor | None = None
    up: StoredTensor | None = None
    bits: int
    group_size: int
    """Inputs that share a scale; all of them for a table."""
    rotation: int = 0

    @property
    def info(self) -> TensorInfo:
        parts = (self.weight, self.scales, self.zeros, self.down, self.up)
        nbytes = sum(part.nbytes for part in parts if part is not None)
        return TensorInfo(shape=self.weight.shape, dtype=torch.float32, encoding=f"INT{self.bits}", nbytes=nbytes)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Runs of rows: int8 codes `[n, in]`, float32 scales and zeros `[n, groups]`."""
        codes, rows = self.weight.map(), self.weight.shape[0]
        scales = self.scales.load(torch.float32).view(rows, -1)
        zeros = None if self.zeros is None else self.zeros.load(torch.float32).view(rows, -1)
        for start in range(0, rows, _CHUNK_ROWS):
            run = slice(start, start + _CHUNK_ROWS)
            yield codes[run], scales[run], None if zeros is None else zeros[run]


class QuantizedMetaReader(MetaReader):
    """A directory of one consolidated file whose params.json has `quantization_args`."""

    def __init__(self, path: Path) -> None:
        self._integers: dict[str, _Integers] = {}
        super().__init__(path)

    def _check_ranks(self) -> list[dict[str, StoredTensor]]:
        ranks = super()._check_ranks()
        if len(ranks) != 1:
            raise UnsupportedFormat(f"{self.path}: quantized files of {len(ranks)} ranks are not read, only of one")
        return ranks

    def _refuse_integers(self, ranks: list[dict[str, StoredTensor]]) -> None:
        """Here they are wanted."""

    def _read_config(self) -> ModelConfig:
        self._scheme = _read_scheme(self._values, self.path / "params.json")
        ours = {"quantization_args", "lora_args"}
        self._values = {"max_seq_len": _CONTEXT} | {k: v for k, v in self._values.items() if k not in ours}
        return super()._read_config()

    def _is_tied(self) -> bool:
        tensors = self._ranks[0]
        head, table = ([tensors.get(f"{name}.{part}") for part in ("weight", "scales")] for name in _TABLES)
        pairs = zip(head, table, strict=True)
        return head[0] is None or all(a is not None and b is not None and are_equal(a, b) for a, b in pairs)

    def _merge(self) -> dict[str, Any]:
        tensors = dict(self._ranks[0])
        for name in list(tensors):
            canonical = names.translate(name, "meta", "hf")
            if canonical is not None and tensors[name].encoding is BYTES:
                stem, weight = name.removesuffix(".weight"), tensors.pop(name)
                found = {field: tensors.pop(f"{stem}.{part}", None) for part, field in _PARTS.items()}
                self._integers[canonical] = self._checked(canonical, stem, weight, found)
        if self._config.tie_embeddings:
            self._integers.pop(names.HEAD, None)
            tensors.pop(names.translate(names.HEAD, "hf", "meta") or "", None)
        self._ranks = [tensors]
        return super()._merge()

    def _checked(self, name: str, stem: str, weight: StoredTensor, found: dict[str, StoredTensor | None]) -> _Integers:
        is_table = name in (names.EMBEDDING, names.HEAD)
        if len(weight.shape) != 2 or weight.stride is not None:
            raise CheckpointError(f"{self.path}: {stem}.weight has shape {list(weight.shape)}, wanted a plain matrix")
        rows, depth = weight.shape
        size = depth if is_table else self._scheme.group_size
        if depth % GROUP or size == 0 or depth % size:
            raise CheckpointError(f"{self.path}: {stem}.weight has rows of {depth}, wanted whole groups of {size}")
        rank = None if is_table else self._scheme.rank
        shapes = {"scales": (rows, depth // size), "zeros": (rows, depth // size)}
        if rank is not None:
            shapes |= {"down": (rank, depth), "up": (rows, rank)}
        for part, field in _PARTS.items():
            tensor, wanted = found[field], shapes.get(field)
            if tensor is None and field != "zeros" and wanted is not None:
                raise CheckpointError(f"{self.path}: {stem}.weight is of integers, but there is no {stem}.{part}")
            if tensor is None:
                continue
            shape = tensor.shape if len(tensor.shape) == 2 or not is_table else (*tensor.shape, 1)
            if wanted is None or shape != wanted:
                raise CheckpointError(f"{self.path}: {stem}.{part} has shape {list(tensor.shape)}, wanted {wanted}")
            if tensor.encoding is BYTES and field != "zeros":
                raise CheckpointError(f"{self.path}: {stem}.{part} holds integers, wanted plain numbers")
        rotation = depth if self._scheme.spinquant and name.endswith("mlp.down_proj.weight") else 0
        if rotation & (rotation - 1) or 0 < rotation < 16:
            raise UnsupportedFormat(f"{self.path}: a Hadamard transform of {depth} is not read, only of powers of two")
        scales = found.pop("scales")
        assert scales is not None
        bits = 8 if is_table else 4
        return _Integers(weight=weight, scales=scales, bits=bits, group_size=size, rotation=rotation, **found)

    def metadata(self) -> Metadata:
        return replace(super().metadata(), quantization=self._scheme.name)

    def infos(self) -> Mapping[str, TensorInfo]:
        return {**super().infos(), **{name: integers.info for name, integers in self._integers.items()}}

    def is_quantized(self) -> bool:
        return True

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        integers = self._integers.get(name)
        if integers is None:
            return super().tensor(name, dtype)
        correction = self._correction(name, integers)
        target = torch.empty(integers.weight.shape, dtype=dtype or torch.float32)
        done = 0
        for codes, scales, zeros in integers.chunks():
            grouped = codes.float().view(len(codes), -1, integers.group_size)
            grouped = grouped if zeros is None else grouped - zeros[..., None]
            values = (grouped * scales[..., None]).view(codes.shape)
            if integers.rotation:
                values = rotate(values, integers.rotation) * integers.rotation**-0.5
            if correction is not None:
                values += correction.scale * (correction.up[done : done + len(codes)].float() @ correction.down.float())
            target[done : done + len(codes)] = values
            done += len(codes)
        return halves_of(self.path, name, target, self._config)

    def matrix(self, name: str) -> StoredMatrix | None:
        """Integers as they are; scales are rounded to halves, which keeps bfloat16 and half ones as they are."""
        integers = self._integers.get(name)
        if integers is None:
            return None
        codes, scales, minima = [], [], []
        for run, scale, zeros in integers.chunks():
            if integers.bits == 4 and not bool(((run >= -8) & (run <= 7)).all()):
                raise CheckpointError(f"{self.path}: {name} has integers outside -8 .. 7, wanted int4 values")
            codes.append(_codes(run, integers.bits))
            scales.append(scale)
            if zeros is not None:
                minima.append(scale * (zeros + 8))
        repeat = integers.group_size // GROUP
        parts = [torch.cat(codes), torch.cat(scales).repeat_interleave(repeat, 1).half()]
        if minima and integers.zeros is not None and bool(integers.zeros.load(torch.float32).any()):
            parts.append(torch.cat(minima).repeat_interleave(repeat, 1).half())
        if not all(bool(torch.isfinite(part).all()) for part in parts[1:]):
            return None
        canonical = [halves_of(self.path, name, p.flatten(1), self._config).view(p.shape) for p in parts]
        weight = group(*canonical, rotation=integers.rotation)
        correction = self._correction(name, integers)
        if correction is not None:
            correction = replace(correction, up=halves_of(self.path, name, correction.up, self._config))
        return StoredMatrix(weight=weight, correction=correction)

    def _correction(self, name: str, integers: _Integers) -> LowRank | None:
        if integers.down is None or integers.up is None:
            return None
        return LowRank(down=integers.down.load(), up=integers.up.load(), scale=self._scheme.lora_scale)

    def release(self, name: str) -> None:
        if name in self._integers:
            self._integers[name].weight.release()
        else:
            super().release(name)


def open_meta(path: Path) -> MetaReader:
    """The reader of a directory of Meta's: of integers when its params.json says so."""
    quantized = "quantization_args" in read_json(path / "params.json")
    return QuantizedMetaReader(path) if quantized else MetaReader(path)


def _codes(run: Tensor, bits: int) -> Tensor:
    """int8 `[n, in]` -> what `kernels.grouped.group` takes."""
    if bits == 8:
        return (run.view(torch.uint8) ^ 0x80).view(len(run), -1, GROUP)
    nibbles = (run + 8).view(torch.uint8).view(len(run), -1, GROUP)
    return nibbles[..., :16] | nibbles[..., 16:] << 4


def _read_scheme(values: dict[str, Any], path: Path) -> _Scheme:
    told, adapters = values.get("quantization_args"), values.get("lora_args")
    for name, part in (("quantization_args", told), ("lora_args", adapters)):
        if part is not None and not isinstance(part, dict):
            raise CheckpointError(f"{path}: {name} must be an object, found {type(part).__name__}")
    fields = Fields(told or {}, path)
    if fields.values.get("scheme") != SCHEME:
        raise UnsupportedFormat(
            f"{path}: quantization_args.scheme must be {SCHEME!r}, found {str(fields.values.get('scheme'))[:100]!r}; "
            "Meta's fp8 files are not read, use the bf16 release"
        )
    fields.refuse_unknown({"scheme", "group_size", "spinquant"})
    group_size = fields.integer("group_size")
    if group_size % GROUP:
        raise UnsupportedFormat(str(fields.error("group_size", f"a multiple of {GROUP}")))
    lora = Fields(adapters or {}, path)
    lora.refuse_unknown({"rank", "scale"})
    rank = lora.integer("rank") if adapters else None
    if rank is not None and rank > _MAX_RANK:
        raise lora.error("rank", f"at most {_MAX_RANK}")
    return _Scheme(
        group_size=group_size,
        spinquant=fields.flag("spinquant", False),
        rank=rank,
        lora_scale=lora.number("scale") if adapters else 0.0,
    )
