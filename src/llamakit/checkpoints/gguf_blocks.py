"""GGUF's number encodings: layouts of the block types and how blocks become numbers.

Every decoder takes whole blocks as uint8 `[n, block_bytes]` and gives float32 `[n, block_values]`.
Layouts are those of ggml (llama.cpp); the inverses are in `gguf_quantize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from llamakit.checkpoints.stored import PLAIN, Encoding

# n blocks, 32 values of a small block, 8 or 16 sub-blocks of a super-block of 256 values
F32, F16, BF16 = 0, 1, 30
Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = 2, 3, 6, 7, 8
Q4_K, Q5_K, Q6_K = 12, 13, 14
SUPER: Final = 256
"""Values of a super-block."""

_OTHER_TYPES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


def type_name(kind: int) -> str:
    """Name of a tensor type, also of those that are not read."""
    return ENCODINGS[kind].name if kind in ENCODINGS else _OTHER_TYPES.get(kind, f"number {kind}")


def half_at(blocks: Tensor, start: int) -> Tensor:
    """The IEEE half at byte `start` of each block -> float32 `[n, 1]`."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def nibbles(packed: Tensor) -> Tensor:
    """`[n, 16]` bytes -> `[n, 32]`: the low halves, then the high halves."""
    return torch.cat([packed & 15, packed >> 4], dim=1)


def fifth_bits(blocks: Tensor, start: int) -> Tensor:
    """The u32 at byte `start`, whose bit j belongs to value j -> `[n, 32]` of 0 or 16."""
    bits = blocks[:, start : start + 4, None] >> torch.arange(8, dtype=torch.uint8)
    return (bits.reshape(len(blocks), 32) & 1) << 4


def _decode_q4_0(blocks: Tensor) -> Tensor:
    return (nibbles(blocks[:, 2:]).float() - 8) * half_at(blocks, 0)


def _decode_q4_1(blocks: Tensor) -> Tensor:
    return nibbles(blocks[:, 4:]).float() * half_at(blocks, 0) + half_at(blocks, 2)


def _decode_q5_0(blocks: Tensor) -> Tensor:
    return ((nibbles(blocks[:, 6:]) | fifth_bits(blocks, 2)).float() - 16) * half_at(blocks, 0)


def _decode_q5_1(blocks: Tensor) -> Tensor:
    return (nibbles(blocks[:, 8:]) | fifth_bits(blocks, 4)).float() * half_at(blocks, 0) + half_at(blocks, 2)


def _decode_q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float() * half_at(blocks, 0)


def scales_and_mins(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Twelve bytes -> eight 6-bit scales and eight 6-bit minima, each uint8 `[n, 8]`."""
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat([first & 63, (third & 15) | (first >> 6 << 4)], dim=1)
    mins = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], dim=1)
    return scales, mins


def _decode_with_mins(blocks: Tensor, values: Tensor) -> Tensor:
    """Values `[n, 8, 32]` of sub-blocks with scale and minimum -> numbers."""
    scales, mins = scales_and_mins(blocks[:, 4:16])
    scale = half_at(blocks, 0) * scales.float()
    offset = half_at(blocks, 2) * mins.float()
    return (scale[:, :, None] * values.float() - offset[:, :, None]).view(-1, SUPER)


def pairs_of_nibbles(packed: Tensor) -> Tensor:
    """`[n, 128]` bytes -> `[n, 8, 32]`: each 32 bytes hold two sub-blocks, low halves first."""
    chunks = packed.reshape(-1, 4, 32)
    return torch.stack([chunks & 15, chunks >> 4], dim=2).view(-1, 8, 32)


def _decode_q4_k(blocks: Tensor) -> Tensor:
    return _decode_with_mins(blocks, pairs_of_nibbles(blocks[:, 16:]))


def _decode_q5_k(blocks: Tensor) -> Tensor:
    # Bit j of the 32 bytes before the nibbles is the fifth bit of sub-block j.
    high = (blocks[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1) << 4
    return _decode_with_mins(blocks, pairs_of_nibbles(blocks[:, 48:]) | high)


def _decode_q6_k(blocks: Tensor) -> Tensor:
    low, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 32)
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * half_at(blocks, 208)
    # Each half of 128 values: low nibbles of 64 bytes, then their high nibbles; two more bits from `high`.
    nibbles = torch.cat([low & 15, low >> 4], dim=2).view(-1, 2, 4, 32)
    top = (high[:, :, None] >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None] & 3) << 4
    values = (nibbles | top).view(-1, 16, 16).float() - 32
    return (scales[:, :, None] * values).view(-1, SUPER)


def _blocks(name: str, block_values: int, block_bytes: int, decode: Callable[[Tensor], Tensor]) -> Encoding:
    return Encoding(name=name, block_values=block_values, block_bytes=block_bytes, dtype=torch.float32, decode=decode)


ENCODINGS: Final[dict[int, Encoding]] = {
    F32: PLAIN[torch.float32],
    F16: PLAIN[torch.float16],
    BF16: PLAIN[torch.bfloat16],
    Q4_0: _blocks("Q4_0", 32, 18, _decode_q4_0),
    Q4_1: _blocks("Q4_1", 32, 20, _decode_q4_1),
    Q5_0: _blocks("Q5_0", 32, 22, _decode_q5_0),
    Q5_1: _blocks("Q5_1", 32, 24, _decode_q5_1),
    Q8_0: _blocks("Q8_0", 32, 34, _decode_q8_0),
    Q4_K: _blocks("Q4_K", SUPER, 144, _decode_q4_k),
    Q5_K: _blocks("Q5_K", SUPER, 176, _decode_q5_k),
    Q6_K: _blocks("Q6_K", SUPER, 210, _decode_q6_k),
}
