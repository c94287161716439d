"""The vocabulary at both ends of a model: rows by id, and a score for every row in two passes.

Each row is kept twice: in bytes, and in nibbles. The first pass scores all rows by their nibbles; the second scores
those again by their bytes that stand out among the first scores, by `STANDS_OUT` standard deviations or more. Decoding
reads half as much this way: of 128 256 rows all but some hundreds are out of the question, and what they get is the
score at four bits. A shortlist that is chosen by cheap scores and then scored exactly is an old idea; here the cheap
scores come from the same quantized product as all others, so that a row of scores depends on its own state alone.

`cpu/table.h` says how bytes, nibbles and the choice are made; `reference_scores` says the same in PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from llamakit.core.errors import ConfigError
from llamakit.kernels import native
from llamakit.kernels.cpu.library import Table
from llamakit.kernels.packed import PackedWeight, activations, packed_linear, packed_shapes, rotate, rotation_block

STANDS_OUT = 2.25
"""Standard deviations above the mean: one score in eighty, if they were normal."""
_STEP = 64
_OFFSET = 128


@dataclass(frozen=True, eq=False)
class TableWeight:
    """A vocabulary `[columns, depth]` in both forms."""

    coarse: PackedWeight
    """In nibbles."""
    rows: Tensor
    """uint8 `[columns, depth rounded up to 64]`: bytes plus 128, turned by the rotation of `coarse`."""
    row_scales: Tensor
    """float32 `[columns]`."""
    table: Table = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wanted = (self.coarse.columns, _padded(self.coarse.depth))
        if self.coarse.bits != 4 or tuple(self.rows.shape) != wanted or self.row_scales.numel() != wanted[0]:
            found = f"{tuple(self.rows.shape)}, {self.row_scales.numel()} scales and {self.coarse.bits} bits"
            raise ValueError(f"a table wants rows of {wanted}, as many scales, and nibbles; got {found}")
        if not (self.rows.is_contiguous() and self.row_scales.is_contiguous()):
            raise ValueError("packed tensors must be contiguous")
        table = Table(self.coarse.matrix, self.rows.data_ptr(), self.row_scales.data_ptr())
        object.__setattr__(self, "table", table)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy gets tensors, and so addresses, of its own."""
        return TableWeight, (self.coarse, self.rows, self.row_scales)

    @property
    def bits(self) -> int:
        """Of a row that is looked at closely."""
        return 8

    @property
    def columns(self) -> int:
        """Rows of the vocabulary, the columns of a result."""
        return self.coarse.columns

    @property
    def depth(self) -> int:
        """Values of a row."""
        return self.coarse.depth

    @property
    def rotation(self) -> int:
        """See PackedWeight."""
        return self.coarse.rotation

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix it stands for."""
        return self.coarse.shape

    @property
    def device(self) -> torch.device:
        """Where the table is; the kernels want the CPU."""
        return self.rows.device

    @property
    def num_bytes(self) -> int:
        """Memory of both forms."""
        return self.coarse.num_bytes + self.rows.numel() + self.row_scales.numel() * 4


def table_parts(weight: TableWeight) -> dict[str, Tensor]:
    """The tensors of a table by name."""
    assert weight.coarse.multipliers is not None
    return {
        "codes": weight.coarse.codes,
        "multipliers": weight.coarse.multipliers,
        "scales": weight.coarse.scales,
        "rows": weight.rows,
        "row_scales": weight.row_scales,
    }


def table_from(parts: dict[str, Tensor], columns: int, depth: int, rotation: int) -> TableWeight:
    """The table of `table_parts`."""
    coarse = PackedWeight(parts["codes"], parts["multipliers"], parts["scales"], columns, depth, rotation)
    return TableWeight(coarse, parts["rows"], parts["row_scales"])


def pack_table(weight_NK: Tensor) -> TableWeight:
    """Pack a float32 or bfloat16 CPU matrix; raises ConfigError without the compiled kernels."""
    library = native.library()
    if library is None:
        raise ConfigError(f"packing weights needs the compiled CPU kernels; {native.BUILD_HINT}")
    if not native.takes(weight_NK):
        weight_NK = weight_NK.float()
    columns, depth = weight_NK.shape
    sizes = packed_shapes(columns, depth, 4)
    coarse = PackedWeight(
        torch.zeros(sizes["codes"], dtype=torch.uint8),
        torch.zeros(sizes["multipliers"], dtype=torch.int8),
        torch.zeros(sizes["scales"]),
        columns,
        depth,
        rotation_block(depth),
    )
    packed = TableWeight(coarse, torch.zeros(columns, _padded(depth), dtype=torch.uint8), torch.zeros(columns))
    library.table_pack(weight_NK.contiguous(), packed.table, native.num_threads())
    return packed


def table_rows(weight: TableWeight, ids_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows `[..., depth]` as the floats their bytes stand for; for embeddings."""
    library = native.library()
    if library is not None and dtype in native.DTYPES:
        return library.table_rows(weight.table, ids_N, dtype, native.num_threads())
    rows = _whole_numbers(weight, ids_N).float() * weight.row_scales[ids_N][..., None]
    return (rotate(rows, weight.rotation) if weight.rotation else rows).to(dtype)


def table_scores(x: Tensor, weight: TableWeight) -> Tensor:
    """Float32 scores `[..., columns]` of states `x [..., depth]`; no gradients.

    Batch-invariant: the sums are exact, and which are looked at twice is a matter of each row alone.
    """
    if native.is_traced(x):
        parts = table_parts(weight)
        return torch.ops.llamakit.table_scores(x, *parts.values(), weight.columns, weight.depth, weight.rotation)
    if x.shape[-1] != weight.depth:
        raise ValueError(f"a table of depth {weight.depth} cannot score rows of {x.shape[-1]} values")
    rows = x.reshape(-1, weight.depth).float()
    library = native.library()
    if library is not None:
        scores = library.table_scores(weight.table, rows, native.num_threads())
    else:
        scores = reference_scores(rows, weight)
    return scores.view(*x.shape[:-1], weight.columns)


def reference_scores(x_MK: Tensor, weight: TableWeight) -> Tensor:
    """The scores of float32 rows, one row at a time."""
    scores = packed_linear(x_MK, weight.coarse)
    codes, scales = activations(x_MK, weight.rotation)
    room = weight.columns // 32 + 16
    for row, code, scale in zip(scores, codes, scales, strict=True):
        wide = row.double()
        variance = (wide * wide).mean() - wide.mean() ** 2
        threshold, high = float(wide.mean() + STANDS_OUT * variance.clamp(min=0).sqrt()), float(row.max())
        if not (variance >= 0 and high < torch.inf):
            continue
        while len(found := torch.nonzero(row > threshold)[:, 0]) > room:
            raised = threshold + (high - threshold) * 0.5
            if not threshold < raised < high:
                found = found[:room]
                break
            threshold = raised
        sums = _whole_numbers(weight, found).to(torch.int64) @ code.to(torch.int64)
        row[found] = sums.float() * weight.row_scales[found] * scale
    return scores


def _whole_numbers(weight: TableWeight, ids_N: Tensor) -> Tensor:
    return (weight.rows[ids_N][..., : weight.depth].to(torch.int16) - _OFFSET).to(torch.int8)


def _padded(depth: int) -> int:
    return -(-depth // _STEP) * _STEP


@torch.library.custom_op("llamakit::table_scores", mutates_args=())
def _table_scores_op(
    x: Tensor,
    codes: Tensor,
    multipliers: Tensor,
    scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    columns: int,
    depth: int,
    rotation: int,
) -> Tensor:
    coarse = PackedWeight(codes, multipliers, scales, columns, depth, rotation)
    return table_scores(x, TableWeight(coarse, rows, row_scales))


@torch.library.register_fake("llamakit::table_scores")
def _(
    x: Tensor,
    codes: Tensor,
    multipliers: Tensor,
    scales: Tensor,
    rows: Tensor,
    row_scales: Tensor,
    columns: int,
    depth: int,
    rotation: int,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], columns, dtype=torch.float32)
