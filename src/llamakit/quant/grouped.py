"""Linear layers and embeddings over weights that are used as a file stores them, and low-rank corrections beside them.

They stand where the float ones stood. The weights are no parameters: they take no gradients and appear in no state
dict. The first dimension of `weight` is the output, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llamakit.kernels.grouped import GroupedWeight, grouped_linear, unpack_grouped_rows
from llamakit.kernels.matmul import linear


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """What a fine-tuned adapter adds to a matrix: `scale * up @ down`."""

    down: Tensor
    """`[rank, in]`."""
    up: Tensor
    """`[out, rank]`."""
    scale: float


class GroupedLinear(nn.Module):
    """`x [..., in] -> [..., out]` with a matrix in groups of 32."""

    def __init__(self, weight: GroupedWeight) -> None:
        super().__init__()
        self.weight = weight
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        return grouped_linear(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.weight.bits}, groups of 32"


class GroupedEmbedding(nn.Module):
    """Rows of a table in groups of 32 by id; `weight` also serves as a tied head."""

    def __init__(self, weight: GroupedWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = weight
        self.dtype = dtype
        """Of the rows handed out: the table itself has none."""
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return unpack_grouped_rows(self.weight, ids, self.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.weight.bits}, groups of 32"


class CorrectedLinear(nn.Module):
    """A packed linear layer plus what an adapter adds, which reads the input before it is rounded."""

    down: Tensor
    up: Tensor

    def __init__(self, base: nn.Module, correction: LowRank, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.scale = correction.scale
        # Buffers outside the state dict: parts of a packed weight, not parameters of the model.
        self.register_buffer("down", correction.down.to(dtype).contiguous(), persistent=False)
        self.register_buffer("up", correction.up.to(dtype).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + linear(linear(x, self.down), self.up) * self.scale

    def extra_repr(self) -> str:
        return f"rank={self.down.shape[0]}, scale={self.scale}"
