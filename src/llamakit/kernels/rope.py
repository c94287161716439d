"""Rotary position embedding (Su et al., 2021) with the llama3 scaling, in Hugging Face's pair order (i, i + D/2).

Frequencies and angles are float32 throughout, as in Meta's reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from llamakit.kernels import native

_PAGE = 4096
"""Positions computed at once. Pages have one shape, so a position's bits never depend on who asked."""


def inverse_frequencies(
    head_dim: int,
    theta: float,
    *,
    factor: float = 1.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    original_context: int = 8192,
    divisors: Sequence[float] | None = None,
) -> Tensor:
    """Inverse frequencies `[head_dim / 2]`, float32.

    With `factor` > 1 the llama3 rule applies: wavelengths shorter than `original_context / high_freq_factor`
    stay, longer than `original_context / low_freq_factor` are divided by `factor`, those between are blended.
    `divisors` (GGUF's `rope_freqs.weight`) divide the plain frequencies instead.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / (theta**exponents)
    if divisors is not None:
        return plain / torch.tensor(divisors, dtype=torch.float32)
    if factor == 1.0:
        return plain
    wavelength = 2 * math.pi / plain
    smooth = (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
    blended = (1 - smooth) * plain / factor + smooth * plain
    scaled = torch.where(wavelength > original_context / low_freq_factor, plain / factor, blended)
    return torch.where(wavelength < original_context / high_freq_factor, plain, scaled)


class RopeTable:
    """Cosines and sines by position, computed a page at a time when first needed."""

    def __init__(self, frequencies: Tensor) -> None:
        self._frequencies = frequencies.float()
        self._cos = self._frequencies.new_empty(0, self._frequencies.shape[0])
        self._sin = self._cos

    def __call__(self, positions_N: Tensor, max_position: int | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[N, 1, D/2]` on the device of `positions_N`; `max_position` spares looking at it."""
        if self._cos.device != positions_N.device:
            self._frequencies = self._frequencies.to(positions_N.device)
            self._cos, self._sin = self._cos.to(positions_N.device), self._sin.to(positions_N.device)
        needed = 1 + (int(positions_N.max()) if max_position is None else max_position) if positions_N.numel() else 0
        while self._cos.shape[0] < needed:
            start = self._cos.shape[0]
            page = torch.arange(start, start + _PAGE, device=positions_N.device, dtype=torch.float32)
            angles = page[:, None] * self._frequencies[None, :]
            self._cos = torch.cat([self._cos, angles.cos()])
            self._sin = torch.cat([self._sin, angles.sin()])
        return self._cos.index_select(0, positions_N)[:, None, :], self._sin.index_select(0, positions_N)[:, None, :]


def rotate(x_NHD: Tensor, cos_N1P: Tensor, sin_N1P: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D/2) of `x [N, H, D]` by the given angles; fp32 inside, dtype of `x` outside."""
    if torch.is_grad_enabled() or x_NHD.device.type != "cpu":
        return _reference(x_NHD, cos_N1P, sin_N1P)
    if native.is_traced(x_NHD):
        return torch.ops.llamakit.rotate(x_NHD, cos_N1P, sin_N1P)
    return _rotate(x_NHD, cos_N1P, sin_N1P)


def _rotate(x_NHD: Tensor, cos_N1P: Tensor, sin_N1P: Tensor) -> Tensor:
    library = native.library()
    if library is not None and native.takes(x_NHD) and cos_N1P.dtype == sin_N1P.dtype == torch.float32:
        return library.rotate(x_NHD, cos_N1P, sin_N1P, native.num_threads())
    return _reference(x_NHD, cos_N1P, sin_N1P)


def _reference(x_NHD: Tensor, cos_N1P: Tensor, sin_N1P: Tensor) -> Tensor:
    first, second = x_NHD.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos_N1P - second * sin_N1P, second * cos_N1P + first * sin_N1P], dim=-1)
    return turned.to(x_NHD.dtype)


@torch.library.custom_op("llamakit::rotate", mutates_args=())
def _rotate_op(x_NHD: Tensor, cos_N1P: Tensor, sin_N1P: Tensor) -> Tensor:
    return _rotate(x_NHD, cos_N1P, sin_N1P)


@torch.library.register_fake("llamakit::rotate")
def _(x_NHD: Tensor, cos_N1P: Tensor, sin_N1P: Tensor) -> Tensor:
    return torch.empty_like(x_NHD)
