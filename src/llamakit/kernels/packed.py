"""Weights packed to integers, and products with them.

A weight `[N, K]` is stored as bytes (one float scale a row) or as nibbles (one small integer multiplier for each 32
values of a row, and one float scale a row): `w = scale * byte` or `w = scale * multiplier * nibble`. Both are whole
numbers times a row's scale, so a product with activations that are bytes themselves is an exact integer sum: its bits
do not depend on batch, order or instruction set. Before that, weights and activations are turned by the same Hadamard
rotation, block by block: products stay what they were, and no single large value spoils the scale of its row
(QuaRot, Ashkboos et al., 2024; the two-level scales follow QServe, Lin et al., 2024).

Layout, the same for every processor: 16 rows of the weight are interleaved. Bytes lie as
`[N / 16][K / 64][16][16][4]` = block, step, four values of k, row, k, each plus 128. Nibbles lie as
`[N / 16][K / 32][4][16][4]`: byte (c, n, r) of a group holds k = 4 c + r in its lower half and k = 16 + 4 c + r in its
upper half, each plus 8. N is padded to 16 with empty rows, K to 64 with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from llamakit.core.errors import ConfigError
from llamakit.kernels import native
from llamakit.kernels.cpu.library import Matrix

Bits = Literal[4, 8]
_ROWS, _STEP, _GROUP = 16, 64, 32
_LARGEST_ROTATION, _SMALLEST_ROTATION = 8192, 16
_SMALLEST = 1e-30  # rows of nothing larger are zero


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A matrix `[columns, depth]` of a linear layer (`columns` outputs), packed."""

    codes: Tensor
    """uint8: bytes or nibbles."""
    multipliers: Tensor | None
    """int8 `[columns / 16, depth / 32, 16]`, in [-15, 15]; None for bytes."""
    scales: Tensor
    """float32 `[columns, rounded up to 16]`."""
    columns: int
    depth: int
    rotation: int
    """Block of the Hadamard rotation along `depth`: a power of two, or 0 for none."""
    matrix: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tensors = [t for t in (self.codes, self.multipliers, self.scales) if t is not None]
        if not all(t.is_contiguous() for t in tensors):
            raise ValueError("packed tensors must be contiguous")
        block = self.rotation
        if block and (block < _SMALLEST_ROTATION or block & (block - 1) or self.depth % block):
            raise ValueError(f"a rotation of {block} does not divide a depth of {self.depth}")
        wanted = packed_shapes(self.columns, self.depth, self.bits)
        found = {"codes": self.codes.numel(), "scales": self.scales.numel()}
        if self.multipliers is not None:
            found["multipliers"] = self.multipliers.numel()
        if found != wanted:
            raise ValueError(f"a packed [{self.columns}, {self.depth}] wants {wanted} elements, got {found}")
        multipliers = None if self.multipliers is None else self.multipliers.data_ptr()
        pointers = self.codes.data_ptr(), multipliers, self.scales.data_ptr()
        matrix = Matrix(None, 0, *pointers, self.columns, self.depth, self.rotation)
        object.__setattr__(self, "matrix", matrix)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy gets tensors, and so addresses, of its own."""
        return PackedWeight, (self.codes, self.multipliers, self.scales, self.columns, self.depth, self.rotation)

    @property
    def bits(self) -> Bits:
        """Of one weight."""
        return 8 if self.multipliers is None else 4

    @property
    def device(self) -> torch.device:
        """Where the weight is; the kernels want the CPU."""
        return self.codes.device

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix it stands for."""
        return self.columns, self.depth

    @property
    def num_bytes(self) -> int:
        """Memory of codes, multipliers and scales."""
        tensors = (self.codes, self.scales) if self.multipliers is None else (self.codes, self.multipliers, self.scales)
        return sum(t.numel() * t.element_size() for t in tensors)

    @cached_property
    def whole_numbers(self) -> Tensor:
        """The integers that the codes stand for, int8 `[columns, depth]`; what the reference multiplies with."""
        blocks = -(-self.columns // _ROWS)
        if self.multipliers is None:
            laid = self.codes.view(blocks, -1, _ROWS, 4).to(torch.int16) - 128
            rows = laid.permute(0, 2, 1, 3).reshape(blocks * _ROWS, -1)
        else:
            both = self.codes.view(blocks, -1, 4, _ROWS, 4)
            halves = torch.stack([both & 15, both >> 4], dim=2).to(torch.int16) - 8  # block, group, half, c, row, r
            groups = halves.permute(0, 4, 1, 2, 3, 5).reshape(blocks, _ROWS, -1, _GROUP)
            scaled = groups * self.multipliers.view(blocks, -1, _ROWS).permute(0, 2, 1)[..., None]
            rows = scaled.reshape(blocks * _ROWS, -1)
        return rows[: self.columns, : self.depth].to(torch.int8).contiguous()


def packed_shapes(columns: int, depth: int, bits: Bits) -> dict[str, int]:
    """Elements of each tensor of a packed weight."""
    rows, steps = -(-columns // _ROWS) * _ROWS, -(-depth // _STEP)
    sizes = {"codes": rows * steps * _STEP * bits // 8, "scales": rows}
    return sizes if bits == 8 else sizes | {"multipliers": rows * steps * 2}


def rotation_block(depth: int) -> int:
    """The largest rotation that divides `depth`; 0 where even the smallest does not."""
    block = depth & -depth
    return 0 if block < _SMALLEST_ROTATION else min(block, _LARGEST_ROTATION)


def rotate(x: Tensor, block: int) -> Tensor:
    """`x [..., K]` times the Hadamard matrix of +-1, blockwise, in float32 (Sylvester's order)."""
    x = x.float()
    shape = x.shape
    distance = 1
    while distance < block:
        pairs = x.reshape(-1, 2, distance)
        x = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], dim=1)
        distance *= 2
    return x.reshape(shape)


def pack(weight_NK: Tensor, bits: Bits, *, rotation: int | None = None) -> PackedWeight:
    """Pack a float32 or bfloat16 CPU matrix; `rotation` None takes the largest that fits.

    Raises ConfigError without the compiled kernels: rounding a model in PyTorch would take hours.
    """
    library = native.library()
    if library is None:
        raise ConfigError(f"packing weights needs the compiled CPU kernels; {native.BUILD_HINT}")
    if not native.takes(weight_NK):
        weight_NK = weight_NK.float()
    columns, depth = weight_NK.shape
    sizes = packed_shapes(columns, depth, bits)
    packed = PackedWeight(
        torch.zeros(sizes["codes"], dtype=torch.uint8),
        torch.zeros(sizes["multipliers"], dtype=torch.int8) if bits == 4 else None,
        torch.zeros(sizes["scales"]),
        columns,
        depth,
        rotation_block(depth) if rotation is None else rotation,
    )
    library.pack(weight_NK.contiguous(), packed.matrix, native.num_threads())
    return packed


def unpack_rows(weight: PackedWeight, rows_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of the matrix `[..., depth]` as the floats they stand for, rotation undone; for embeddings."""
    library = native.library()
    if library is not None and dtype in native.DTYPES:
        return library.unpack_rows(weight.matrix, rows_N, dtype, native.num_threads())
    rows = weight.whole_numbers[rows_N].float() * weight.scales[rows_N][..., None]
    return (rotate(rows, weight.rotation) if weight.rotation else rows).to(dtype)


def activations(x: Tensor, rotation: int) -> tuple[Tensor, Tensor]:
    """Rows of `x [M, K]` as int8 codes and float32 scales `[M, 1]`: value = scale * code, after the rotation."""
    wide = rotate(x, rotation) if rotation else x.float()
    high = wide.abs().amax(-1, keepdim=True)
    # A number over a tensor would be a product with its reciprocal, which rounds twice.
    inverse = torch.where(high > _SMALLEST, torch.full_like(high, 127.0) / high, 0.0)
    codes = torch.where(high.isfinite(), (wide * inverse).round(), 0.0)
    return codes.to(torch.int8), torch.where(high.isfinite(), high / 127.0, torch.nan)


def packed_linear(x: Tensor, weight: PackedWeight) -> Tensor:
    """`x [..., K]` times a packed `[N, K]` -> `[..., N]` in the dtype of `x`; no gradients.

    Each row goes through 8-bit codes of its own. Batch-invariant: the sums are exact.
    """
    if native.is_traced(x):
        return torch.ops.llamakit.packed_linear(
            x, weight.codes, weight.multipliers, weight.scales, weight.columns, weight.depth, weight.rotation
        )
    if x.shape[-1] != weight.depth:
        raise ValueError(f"a packed weight of depth {weight.depth} cannot take rows of {x.shape[-1]} values")
    library = native.library()
    if library is not None and native.takes(x):
        return library.linear(x, weight.matrix, native.num_threads())
    codes, scales = activations(x.reshape(-1, x.shape[-1]), weight.rotation)
    sums = _exact_product(codes, weight.whole_numbers)
    out = sums.float() * weight.scales[: weight.columns] * scales
    return out.to(x.dtype).view(*x.shape[:-1], weight.columns)


def _exact_product(codes_MK: Tensor, whole_NK: Tensor) -> Tensor:
    return torch.ops.aten._int_mm(codes_MK, whole_NK.t())  # int32


@torch.library.custom_op("llamakit::packed_linear", mutates_args=())
def _packed_linear_op(
    x: Tensor, codes: Tensor, multipliers: Tensor | None, scales: Tensor, columns: int, depth: int, rotation: int
) -> Tensor:
    return packed_linear(x, PackedWeight(codes, multipliers, scales, columns, depth, rotation))


@torch.library.register_fake("llamakit::packed_linear")
def _(
    x: Tensor, codes: Tensor, multipliers: Tensor | None, scales: Tensor, columns: int, depth: int, rotation: int
) -> Tensor:
    return x.new_empty(*x.shape[:-1], columns)
