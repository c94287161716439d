"""Weights with a scale, and perhaps a minimum, for every 32 values of a row, and products with them.

This is how GGUF's block types and Meta's quantized checkpoints store their numbers, so such weights are used as they
stand in the file: `w = scale * code - minimum`, code a signed byte, a nibble less 8, or, where there are minima, a
plain nibble. (`packed` is for weights that this package rounds itself: one scale a row, exact sums.) Activations are
rounded to bytes with a scale for every 32 values. The sum over a group is an exact integer, groups are added in float32
in one fixed order: the bits of a row do not depend on its batch.

Layout, the same for every processor: 16 rows of the weight are interleaved. Nibbles lie as
`[N / 16][K / 32][4][16][4]`: byte (c, n, r) of a group holds k = 4 c + r in its lower half and k = 16 + 4 c + r in its
upper half. Bytes lie as `[N / 16][K / 32][8][16][4]`, each plus 128. Scales and minima are halves
`[N / 16][K / 32][16]`. N is padded to 16 with empty rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Matrix
from llamakit.kernels.packed import Bits, rotate

GROUP = 32
"""Values that share a scale."""
_ROWS = 16
_SMALLEST = 1e-30  # groups of nothing larger are zero


@dataclass(frozen=True, eq=False)
class GroupedWeight:
    """A matrix `[columns, depth]` of a linear layer (`columns` outputs) in groups of 32."""

    codes: Tensor
    """uint8: bytes or nibbles."""
    scales: Tensor
    """float16."""
    minima: Tensor | None
    """float16; None for none."""
    columns: int
    depth: int
    bits: Bits
    rotation: int = 0
    """Block of the normalised Hadamard rotation that activations go through first (a power of two); 0 for none."""
    matrix: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tensors = [t for t in (self.codes, self.scales, self.minima) if t is not None]
        if not all(t.is_contiguous() for t in tensors):
            raise ValueError("grouped tensors must be contiguous")
        if self.depth % GROUP or self.bits not in (4, 8):
            raise ValueError(f"a grouped weight wants rows of whole groups of {GROUP}, got {self.depth} values")
        block = self.rotation
        if block and (block < _ROWS or block & (block - 1) or self.depth % block):
            raise ValueError(f"a rotation of {block} does not divide a depth of {self.depth}")
        groups = -(-self.columns // _ROWS) * _ROWS * (self.depth // GROUP)
        wanted = [groups * GROUP * self.bits // 8] + [groups] * (len(tensors) - 1)
        if [t.numel() for t in tensors] != wanted:
            raise ValueError(f"a grouped [{self.columns}, {self.depth}] wants {wanted} elements")
        halves, minima = self.scales.data_ptr(), None if self.minima is None else self.minima.data_ptr()
        sizes = self.columns, self.depth, self.rotation
        matrix = Matrix(None, 0, self.codes.data_ptr(), None, None, *sizes, halves, minima, self.bits)
        object.__setattr__(self, "matrix", matrix)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy gets tensors, and so addresses, of its own."""
        shape = self.columns, self.depth, self.bits, self.rotation
        return GroupedWeight, (self.codes, self.scales, self.minima, *shape)

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
        """Memory of codes, scales and minima."""
        return sum(t.numel() * t.element_size() for t in (self.codes, self.scales, self.minima) if t is not None)

    def values(self, rows_N: Tensor | None = None) -> Tensor:
        """The numbers that all rows, or some, stand for, float32 `[..., depth]`; a rotation is left as it is."""
        rows = torch.arange(self.columns) if rows_N is None else rows_N
        block, lane, groups = rows // _ROWS, rows % _ROWS, self.depth // GROUP
        codes = self.codes.view(-1, groups, self.bits, _ROWS, 4)[block, :, :, lane]  # ..., group, word, byte
        if self.bits == 4:
            codes = torch.cat([codes & 15, codes >> 4], dim=-2)
        zero = 128 if self.bits == 8 else 0 if self.minima is not None else 8
        whole = codes.reshape(*rows.shape, groups, GROUP).to(torch.int16) - zero
        values = whole * _of_rows(self.scales, block, lane, groups)
        if self.minima is not None:
            values -= _of_rows(self.minima, block, lane, groups)
        return values.view(*rows.shape, self.depth)


def _of_rows(halves: Tensor, block: Tensor, lane: Tensor, groups: int) -> Tensor:
    return halves.view(-1, groups, _ROWS)[block, :, lane].float()[..., None]


def group(codes: Tensor, scales_NG: Tensor, minima_NG: Tensor | None = None, *, rotation: int = 0) -> GroupedWeight:
    """Interleave rows: codes uint8 `[N, G, 16]` (nibbles, k in the lower half and k + 16 in the upper) or `[N, G, 32]`
    (bytes, each plus 128), scales and minima float16 `[N, G]`; nothing is rounded.
    """
    columns, groups, width = codes.shape
    if width not in (16, 32) or codes.dtype != torch.uint8:
        raise ValueError(f"codes must be uint8 [N, G, 16] or [N, G, 32], got {codes.dtype} {list(codes.shape)}")
    words = _padded(codes).view(torch.int32).view(-1, _ROWS, groups, width // 4)
    return GroupedWeight(
        words.permute(0, 2, 3, 1).contiguous().view(torch.uint8).view(-1),
        _interleaved(scales_NG),
        None if minima_NG is None else _interleaved(minima_NG),
        columns,
        groups * GROUP,
        4 if width == 16 else 8,
        rotation,
    )


def _interleaved(halves_NG: Tensor) -> Tensor:
    if halves_NG.dtype != torch.float16:
        raise ValueError(f"scales and minima must be float16, got {halves_NG.dtype}")
    return _padded(halves_NG).view(-1, _ROWS, halves_NG.shape[1]).transpose(1, 2).contiguous().view(-1)


def _padded(rows: Tensor) -> Tensor:
    missing = -rows.shape[0] % _ROWS
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows.contiguous()


def unpack_grouped_rows(weight: GroupedWeight, rows_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of the matrix `[..., depth]` as floats; for embeddings."""
    library = native.library()
    if library is not None and dtype in native.DTYPES:
        return library.unpack_rows(weight.matrix, rows_N, dtype, native.num_threads())
    return weight.values(rows_N).to(dtype)


def grouped_linear(x: Tensor, weight: GroupedWeight) -> Tensor:
    """`x [..., K]` times a grouped `[N, K]` -> `[..., N]` in the dtype of `x`; no gradients.

    Batch-invariant: the bits of a row depend on that row and `weight` alone.
    """
    if native.is_traced(x):
        parts = weight.codes, weight.scales, weight.minima, *weight.shape, weight.bits, weight.rotation
        return torch.ops.llamakit.grouped_linear(x, *parts)
    if x.shape[-1] != weight.depth:
        raise ValueError(f"a grouped weight of depth {weight.depth} cannot take rows of {x.shape[-1]} values")
    library = native.library()
    if library is not None and native.takes(x):
        return library.linear(x, weight.matrix, native.num_threads())
    rows, values = _rounded(x.reshape(-1, weight.depth), weight.rotation), weight.values()
    # One row at a time: a product of several would add in another order.
    out = [torch.mv(values, row) for row in rows]
    stacked = torch.stack(out) if out else x.new_empty(0, weight.columns, dtype=torch.float32)
    return stacked.to(x.dtype).view(*x.shape[:-1], weight.columns)


def _rounded(x_MK: Tensor, rotation: int) -> Tensor:
    """Rows after the rotation and through 8-bit codes with a scale for every 32 values, float32."""
    wide = rotate(x_MK, rotation) * rotation**-0.5 if rotation else x_MK.float()
    groups = wide.view(len(wide), wide.shape[1] // GROUP, GROUP)
    high = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(high > _SMALLEST, 127.0 / high, 0.0)
    codes = torch.where(high.isfinite(), (groups * inverse).round(), 0.0)
    return (codes * torch.where(high.isfinite(), high / 127.0, torch.nan)).view(wide.shape)


def has_kernels() -> bool:
    """Whether compiled kernels run products with grouped weights; the reference is for tests and rare processors."""
    return native.library() is not None


@torch.library.custom_op("llamakit::grouped_linear", mutates_args=())
def _grouped_linear_op(
    x: Tensor, codes: Tensor, scales: Tensor, minima: Tensor | None, columns: int, depth: int, bits: int, rotation: int
) -> Tensor:
    return grouped_linear(x, GroupedWeight(codes, scales, minima, columns, depth, 4 if bits == 4 else 8, rotation))


@torch.library.register_fake("llamakit::grouped_linear")
def _(
    x: Tensor, codes: Tensor, scales: Tensor, minima: Tensor | None, columns: int, depth: int, bits: int, rotation: int
) -> Tensor:
    return x.new_empty(*x.shape[:-1], columns)
