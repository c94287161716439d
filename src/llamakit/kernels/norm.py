"""RMSNorm (Zhang & Sennrich, 2019), in the order of Meta's reference: fp32 statistics, cast, then gain."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last dimension of `x [..., D]` by its root mean square and scale by `weight [D]`."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight
