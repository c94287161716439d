"""Numbers -> GGUF blocks: the inverses of `gguf_blocks`.

The simple types follow ggml's rule exactly, so files are equal byte for byte. For the K types ggml
leaves the choice of scales to the encoder: here each sub-block tries several roundings, takes the
least-squares scale (and minimum) for each, and keeps the one with the smallest weighted error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints.gguf_blocks import Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SUPER
from llamakit.core.errors import CheckpointError

_GROUP = 512
"""Super-blocks worked on at once: half a MiB of float32, which stays in the cache."""


def quantize(values: Tensor, kind: int) -> Tensor:
    """float32 `[n, block_values]` -> uint8 `[n, block_bytes]`; values that are not finite are refused."""
    if not torch.isfinite(values).all():
        raise CheckpointError(f"values that are not finite cannot be stored as {types.type_name(kind)}")
    encode = _ENCODERS[kind]
    groups = [encode(group) for group in values.split(_GROUP * SUPER // values.shape[1])]
    return torch.cat(groups)


def _reciprocal(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0, 1 / scale)


def _half_bytes(scale: Tensor) -> Tensor:
    half = scale.half()
    if not torch.isfinite(half).all():
        raise CheckpointError("a block's scale is beyond the range of half precision; store the tensor as F32 or BF16")
    return half.view(torch.uint8)


def _round(values: Tensor) -> Tensor:
    """Round half away from zero, as C does."""
    return torch.trunc(values + torch.copysign(torch.tensor(0.5), values))


def _extreme(values: Tensor) -> Tensor:
    """The value of largest magnitude along the last axis, with its sign, axis kept."""
    return values.gather(-1, values.abs().argmax(-1, keepdim=True))


def _pack_nibbles(q: Tensor) -> Tensor:
    return q[:, :16] | (q[:, 16:] << 4)


def _pack_fifth_bits(q: Tensor) -> Tensor:
    weights = (1 << torch.arange(8)).to(torch.uint8)
    return ((q >> 4).view(-1, 4, 8) * weights).sum(-1, dtype=torch.uint8)


def _around_zero(x: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Scale and codes of the types whose extreme value maps to code 0: x = (q - top) * d."""
    d = _extreme(x) / -top
    return d, torch.trunc(x * _reciprocal(d) + (top + 0.5)).clamp(0, 2 * top - 1).to(torch.uint8)


def _above_min(x: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, minimum and codes: x = q * d + m."""
    low = x.amin(-1, keepdim=True)
    d = (x.amax(-1, keepdim=True) - low) / top
    return d, low, torch.trunc((x - low) * _reciprocal(d) + 0.5).clamp(0, top).to(torch.uint8)


def _encode_q8_0(x: Tensor) -> Tensor:
    d = x.abs().amax(-1, keepdim=True) / 127
    return torch.cat([_half_bytes(d), _round(x * _reciprocal(d)).to(torch.int8).view(torch.uint8)], dim=1)


def _encode_q4_0(x: Tensor) -> Tensor:
    d, q = _around_zero(x, 8)
    return torch.cat([_half_bytes(d), _pack_nibbles(q)], dim=1)


def _encode_q5_0(x: Tensor) -> Tensor:
    d, q = _around_zero(x, 16)
    return torch.cat([_half_bytes(d), _pack_fifth_bits(q), _pack_nibbles(q & 15)], dim=1)


def _encode_q4_1(x: Tensor) -> Tensor:
    d, low, q = _above_min(x, 15)
    return torch.cat([_half_bytes(d), _half_bytes(low), _pack_nibbles(q)], dim=1)


def _encode_q5_1(x: Tensor) -> Tensor:
    d, low, q = _above_min(x, 31)
    return torch.cat([_half_bytes(d), _half_bytes(low), _pack_fifth_bits(q), _pack_nibbles(q & 15)], dim=1)


def _fit_with_min(x: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Scale and minimum (both >= 0, `[n, 8, 1]`) that fit x = q * scale - minimum best over several roundings."""
    # Large values matter most; the mean keeps small ones from counting nothing.
    weight = x.square().mean(-1, keepdim=True).sqrt() + x.abs()
    low = x.amin(-1, keepdim=True).clamp(max=0)
    reach = x.amax(-1, keepdim=True).clamp(min=0) - low
    w, wx = weight.sum(-1, keepdim=True), (weight * x).sum(-1, keepdim=True)
    best_error = torch.full_like(low, torch.inf)
    best_scale, best_min = reach / top, -low
    unit = (x - low) * _reciprocal(reach)
    for trial in range(12):
        # Dividing the reach by a little less or more than `top` moves the codes by one here and there.
        q = (unit * (top - 1 + 0.2 * trial)).round_().clamp_(0, top)
        wq = weight * q
        wq, wqq, wxq = (sums.sum(-1, keepdim=True) for sums in (wq, wq * q, wq * x))
        determinant = w * wqq - wq.square()
        scale = (w * wxq - wq * wx) / determinant
        offset = (wqq * wx - wq * wxq) / determinant
        # Minima are stored without sign, so an offset above zero becomes zero and the scale is fitted alone.
        positive = offset > 0
        scale, offset = torch.where(positive, wxq / wqq, scale), torch.where(positive, 0, offset)
        error = scale * (scale * wqq + 2 * offset * wq - 2 * wxq) + offset * (offset * w - 2 * wx)
        better = (determinant > 0) & (scale > 0) & (error < best_error)
        best_error = torch.where(better, error, best_error)
        best_scale, best_min = torch.where(better, scale, best_scale), torch.where(better, -offset, best_min)
    return best_scale, best_min


def _codes_with_min(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The first 16 bytes of Q4_K and Q5_K blocks, and the codes uint8 `[n, 8, 32]`."""
    x = values.view(-1, 8, 32)
    scale, low = (part[..., 0] for part in _fit_with_min(x, top))
    heads, steps = [], []
    for part in (scale, low):
        # Both are stored as six bits times one half per super-block.
        heads.append(_half_bytes(part.amax(1, keepdim=True) / 63))
        unit = heads[-1].view(torch.float16).float()
        codes = (part * _reciprocal(unit)).round().clamp(0, 63)
        steps.append((codes.to(torch.uint8), (unit * codes)[:, :, None]))
    (scales, scale), (mins, low) = steps
    q = ((x + low) * _reciprocal(scale)).round().clamp(0, top).to(torch.uint8)
    packed = torch.cat(
        [
            scales[:, :4] | (scales[:, 4:] >> 4 << 6),
            mins[:, :4] | (mins[:, 4:] >> 4 << 6),
            (scales[:, 4:] & 15) | ((mins[:, 4:] & 15) << 4),
        ],
        dim=1,
    )
    return torch.cat([*heads, packed], dim=1), q


def _pack_pairs(q: Tensor) -> Tensor:
    pairs = q.view(-1, 4, 2, 32)
    return (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)


def _encode_q4_k(values: Tensor) -> Tensor:
    head, q = _codes_with_min(values, 15)
    return torch.cat([head, _pack_pairs(q)], dim=1)


def _encode_q5_k(values: Tensor) -> Tensor:
    head, q = _codes_with_min(values, 31)
    weights = (1 << torch.arange(8)).to(torch.uint8)[:, None]
    high = ((q >> 4) * weights).sum(1, dtype=torch.uint8)
    return torch.cat([head, high, _pack_pairs(q & 15)], dim=1)


def _fit_scale(x: Tensor) -> Tensor:
    """Signed scale `[n, 16]` that fits x = q * scale, q in [-32, 31], best over several roundings."""
    extreme = _extreme(x)
    # Relative to the extreme value, so that squares neither overflow nor vanish.
    x = x * _reciprocal(extreme)
    weight = x.square()
    best_gain, best = torch.zeros_like(extreme), torch.zeros_like(extreme)
    for trial in range(-4, 5):
        q = (x * -(32 + 0.2 * trial)).round_().clamp_(-32, 31)
        wq = weight * q
        wqq, wxq = (wq * q).sum(-1, keepdim=True), (wq * x).sum(-1, keepdim=True)
        # The error at the best scale wxq / wqq is a constant minus this gain.
        gain = wxq.square() * _reciprocal(wqq)
        better = gain > best_gain
        best_gain, best = torch.where(better, gain, best_gain), torch.where(better, wxq * _reciprocal(wqq), best)
    return (best * extreme)[..., 0]


def _encode_q6_k(values: Tensor) -> Tensor:
    x = values.view(-1, 16, 16)
    scale = _fit_scale(x)
    head = _half_bytes(_extreme(scale) / -128)
    unit = head.view(torch.float16).float()
    codes = (scale * _reciprocal(unit)).round().clamp(-128, 127)
    q = (x * _reciprocal((unit * codes)[:, :, None])).round().clamp(-32, 31)
    q = (q + 32).to(torch.uint8).view(-1, 2, 4, 32)
    low = torch.cat([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], dim=2)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    high = (q >> 4 << shifts).sum(2, dtype=torch.uint8)
    return torch.cat([low.reshape(-1, 128), high.view(-1, 64), codes.to(torch.int8).view(torch.uint8), head], dim=1)


_ENCODERS: Final[dict[int, Callable[[Tensor], Tensor]]] = {
    Q4_0: _encode_q4_0,
    Q4_1: _encode_q4_1,
    Q5_0: _encode_q5_0,
    Q5_1: _encode_q5_1,
    Q8_0: _encode_q8_0,
    Q4_K: _encode_q4_k,
    Q5_K: _encode_q5_k,
    Q6_K: _encode_q6_k,
}
