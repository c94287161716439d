"""GGUF's blocks as groups of 32 with a scale, without going through numbers; what `kernels.grouped` multiplies with.

Every function takes whole blocks as uint8 `[n, block_bytes]` and gives codes uint8 `[n, G, 16]` (nibbles) or
`[n, G, 32]` (bytes, each plus 128), scales and minima float16 `[n, G]`, G groups a block. Exact: Q4_0, Q4_1, Q5_0, Q5_1
and Q8_0. The scales and minima of Q4_K and Q5_K are products of a half and six bits and are rounded to halves (2^-11
of them at most). Q6_K has groups of 16 and is rounded to bytes in groups of 32 (1/254 of a group's largest value).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints.gguf_blocks import SUPER, fifth_bits, half_at, nibbles, pairs_of_nibbles, scales_and_mins
from llamakit.checkpoints.names import to_halves
from llamakit.checkpoints.stored import StoredTensor
from llamakit.kernels.grouped import GROUP, GroupedWeight, group

Groups = tuple[Tensor, Tensor, Tensor | None]
"""Codes, scales, minima."""

_CHUNK_BYTES = 512 << 10
"""Bytes regrouped at once: what comes between, some ten times as much, stays in the processor's cache."""


def load_groups(stored: StoredTensor, rotary_heads: int | None) -> GroupedWeight | None:
    """A matrix in groups, in canonical row order; None for an encoding that is no blocks, or for a scale beyond halves.

    `rotary_heads` are the heads of a q or k weight, whose rows GGUF keeps in another order.
    """
    convert = _CONVERTERS.get(stored.encoding.name)
    if convert is None or len(stored.shape) != 2 or stored.shape[1] % GROUP:
        return None
    rows, depth = stored.shape
    row_bytes = depth // stored.encoding.block_values * stored.encoding.block_bytes
    num_groups = depth // GROUP
    parts: list[Tensor | None] = [None, None, None]
    done = 0
    with _one_thread():
        for chunk in stored.file.chunks(stored.offset, stored.nbytes, max(1, _CHUNK_BYTES // row_bytes) * row_bytes):
            count = len(chunk) // row_bytes
            blocks = torch.frombuffer(chunk, dtype=torch.uint8).view(-1, stored.encoding.block_bytes)
            for index, piece in enumerate(convert(blocks)):
                if piece is None:
                    continue
                if piece.dtype == torch.float16 and not bool(torch.isfinite(piece).all()):
                    return None
                piece = piece.reshape(count, num_groups, *piece.shape[2:])
                target = parts[index]
                if target is None:
                    parts[index] = target = piece.new_empty(rows, *piece.shape[1:])
                target[done : done + count] = piece
            done += count
    codes, scales, minima = parts
    if codes is None or scales is None:
        return None
    if rotary_heads is not None:
        codes, scales = to_halves(codes, rotary_heads), to_halves(scales, rotary_heads)
        minima = None if minima is None else to_halves(minima, rotary_heads)
    return group(codes, scales, minima)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps this small are done before a second thread has heard of them, and where it is busy all wait for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _half(blocks: Tensor, start: int) -> Tensor:
    return half_at(blocks, start).half()


def _q4_0(blocks: Tensor) -> Groups:
    return blocks[:, None, 2:], _half(blocks, 0), None


def _q4_1(blocks: Tensor) -> Groups:
    return blocks[:, None, 4:], _half(blocks, 0), -_half(blocks, 2)


def _q5_0(blocks: Tensor) -> Groups:
    codes = (nibbles(blocks[:, 6:]) | fifth_bits(blocks, 2)) + (128 - 16)
    return codes[:, None], _half(blocks, 0), None


def _q5_1(blocks: Tensor) -> Groups:
    codes = (nibbles(blocks[:, 8:]) | fifth_bits(blocks, 4)) + 128
    return codes[:, None], _half(blocks, 0), -_half(blocks, 2)


def _q8_0(blocks: Tensor) -> Groups:
    return (blocks[:, 2:] ^ 0x80)[:, None], _half(blocks, 0), None


def _scales_of_super(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scales, mins = scales_and_mins(blocks[:, 4:16])
    return (half_at(blocks, 0) * scales.float()).half(), (half_at(blocks, 2) * mins.float()).half()


def _q4_k(blocks: Tensor) -> Groups:
    values = pairs_of_nibbles(blocks[:, 16:])
    return values[..., :16] | values[..., 16:] << 4, *_scales_of_super(blocks)


def _q5_k(blocks: Tensor) -> Groups:
    high = (blocks[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1) << 4
    return (pairs_of_nibbles(blocks[:, 48:]) | high) + 128, *_scales_of_super(blocks)


def _q6_k(blocks: Tensor) -> Groups:
    values = types.ENCODINGS[types.Q6_K].decode
    assert values is not None
    wide = values(blocks).view(-1, SUPER // GROUP, GROUP)
    scale = (wide.abs().amax(-1) / 127).half()
    inverse = torch.where(scale > 0, 1 / scale.float(), 0.0)
    codes = (wide * inverse[..., None]).round().clamp(-127, 127)
    return (codes + 128).to(torch.uint8), scale, None


_CONVERTERS: Final[dict[str, Callable[[Tensor], Groups]]] = {
    types.type_name(kind): convert
    for kind, convert in (
        (types.Q4_0, _q4_0),
        (types.Q4_1, _q4_1),
        (types.Q5_0, _q5_0),
        (types.Q5_1, _q5_1),
        (types.Q8_0, _q8_0),
        (types.Q4_K, _q4_k),
        (types.Q5_K, _q5_k),
        (types.Q6_K, _q6_k),
    )
}
GROUPED_ENCODINGS: Final = frozenset(_CONVERTERS)
"""Names of the encodings that `load_groups` takes."""
