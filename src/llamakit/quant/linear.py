"""Linear layers and embeddings over packed weights; they stand where the float ones stood.

Their weights are no parameters: they take no gradients and appear in no state dict. The first dimension
of `weight` is the output, as everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llamakit.kernels.packed import PackedWeight, packed_linear, unpack_rows
from llamakit.kernels.table import TableWeight, table_rows, table_scores


class QuantizedLinear(nn.Module):
    """`x [..., in] -> [..., out]` with a packed matrix; each row of `x` goes through 8-bit codes."""

    def __init__(self, weight: PackedWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        out = packed_linear(x, self.weight)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.weight.bits}"


class QuantizedEmbedding(nn.Module):
    """Rows of a packed table by id; `weight` also serves as a tied head."""

    def __init__(self, weight: PackedWeight | TableWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = weight
        self.dtype = dtype
        """Of the rows handed out: the table itself has none."""
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        if isinstance(self.weight, TableWeight):
            return table_rows(self.weight, ids, self.dtype)
        return unpack_rows(self.weight, ids, self.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.weight.bits}"


class TableHead(nn.Module):
    """Float32 scores `[..., out]` of states `[..., in]`, in two passes over a large vocabulary."""

    def __init__(self, weight: TableWeight) -> None:
        super().__init__()
        self.weight = weight
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        return table_scores(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits=4 and 8"
