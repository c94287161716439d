"""The gate of the feed-forward network: SwiGLU (Shazeer, 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llamakit.kernels import native


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, elementwise."""
    if torch.is_grad_enabled() or gate.device.type != "cpu":
        return F.silu(gate) * up
    if native.is_traced(gate):
        return torch.ops.llamakit.swiglu(gate, up)
    return _swiglu(gate, up)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    library = native.library()
    if library is not None and native.takes(gate, up) and gate.shape == up.shape:
        return library.swiglu(gate, up, native.num_threads())
    return F.silu(gate) * up


@torch.library.custom_op("llamakit::swiglu", mutates_args=())
def _swiglu_op(gate: Tensor, up: Tensor) -> Tensor:
    return _swiglu(gate, up)


@torch.library.register_fake("llamakit::swiglu")
def _(gate: Tensor, up: Tensor) -> Tensor:
    return torch.empty_like(gate)
