"""The gate of the feed-forward network: SwiGLU (Shazeer, 2020)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, elementwise."""
    return F.silu(gate) * up
