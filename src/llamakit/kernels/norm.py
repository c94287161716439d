"""RMSNorm (Zhang & Sennrich, 2019), in the order of Meta's reference: fp32 statistics, cast, then gain."""

from __future__ import annotations

import torch
from torch import Tensor

from llamakit.kernels import native


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last dimension of `x [..., D]` by its root mean square and scale by `weight [D]`."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return _reference(x, weight, eps)
    if native.is_traced(x):
        return torch.ops.llamakit.rms_norm(x, weight, eps)
    return _rms_norm(x, weight, eps)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    library = native.library()
    if library is not None and native.takes(x, weight):
        return library.rms_norm(x, weight, eps, native.num_threads())
    return _reference(x, weight, eps)


def _reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight


@torch.library.custom_op("llamakit::rms_norm", mutates_args=())
def _rms_norm_op(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _rms_norm(x, weight, eps)


@torch.library.register_fake("llamakit::rms_norm")
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)
