"""Matrix products whose rows do not depend on each other.

A BLAS picks its kernel, and so its order of additions, by the number of rows. The same token would
then get different bits alone, in a batch and in a chunk of a prompt, and sooner or later another
word. On a CPU without gradients every product therefore runs in tiles of exactly `TILE_ROWS` rows:
one shape, one kernel, one order. While decoding, a tile costs what a single row costs, because the
weights have to be read anyway. The compiled kernel needs no such tiles: each of its outputs is one
chain of additions, whatever the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llamakit.kernels import native
from llamakit.kernels.cpu.library import dense_matrix
from llamakit.kernels.grouped import GroupedWeight, grouped_linear
from llamakit.kernels.packed import PackedWeight, packed_linear
from llamakit.kernels.table import TableWeight, table_scores

TILE_ROWS = 32
"""Rows of one product. Decode stays bound by memory up to about this many rows."""


def linear(x: Tensor, weight: Tensor | PackedWeight | GroupedWeight | TableWeight) -> Tensor:
    """`x [..., K] @ weight [N, K] -> [..., N]`, in the dtype of `x`; float32 from a table.

    Batch-invariant on CPU under `no_grad`: the bits of a row depend on that row and `weight` alone.
    A packed weight takes no gradients.
    """
    if isinstance(weight, PackedWeight):
        return packed_linear(x, weight)
    if isinstance(weight, TableWeight):
        return table_scores(x, weight)
    if isinstance(weight, GroupedWeight):
        return grouped_linear(x, weight)
    # Two dtypes meet under autocast only, which casts inside PyTorch's own product.
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != weight.dtype:
        return F.linear(x, weight)
    if native.is_traced(x):
        return torch.ops.llamakit.linear(x, weight)
    return _linear(x, weight)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    library = native.library()
    if library is not None and native.takes(x, weight) and weight.stride(-1) == 1:
        return library.linear(x, dense_matrix(weight), native.num_threads())
    rows = x.reshape(-1, x.shape[-1])
    return _tiled(rows, weight).reshape(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op("llamakit::linear", mutates_args=())
def _linear_op(x: Tensor, weight: Tensor) -> Tensor:
    return _linear(x, weight)


@torch.library.register_fake("llamakit::linear")
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _tiled(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    num_rows = x_MK.shape[0]
    padded = -(-num_rows // TILE_ROWS) * TILE_ROWS
    if padded != num_rows:
        grown = x_MK.new_zeros(padded, x_MK.shape[1])
        grown[:num_rows] = x_MK
        x_MK = grown
    weight_KN = weight_NK.t()
    out = x_MK.new_empty(padded, weight_NK.shape[0])
    for start in range(0, padded, TILE_ROWS):
        torch.mm(x_MK[start : start + TILE_ROWS], weight_KN, out=out[start : start + TILE_ROWS])
    return out[:num_rows]
