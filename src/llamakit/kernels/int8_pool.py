"""Keys or values of a cache as bytes: half the memory of bfloat16, and half the reading when decoding.

Each head of each token has a scale of its own, so an outlier spoils no more than its own 64 or 128 values. Knows how
a pool lies in memory; which block belongs to whom is the engine's business, attention over pools is in `attention`.

Legend: B blocks, T tokens of a block, K key/value heads, D head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST = 1e-30  # heads of nothing larger are zero
_SCALE_BYTES = 4


class Int8Pool(NamedTuple):
    """A pool of integers: a value is its code times the scale of its head."""

    codes: Tensor
    """int8 `[B, T, K, D]`, in [-127, 127]."""
    scales: Tensor
    """float32 `[B, T, K]`."""

    def copy_block(self, source: int, target: int) -> None:
        """Make block `target` hold what `source` holds."""
        self.codes[target] = self.codes[source]
        self.scales[target] = self.scales[source]

    def floats(self, blocks: Tensor) -> Tensor:
        """The values of some blocks, float32 `[..., T, K, D]`."""
        return self.codes[blocks].float() * self.scales[blocks][..., None]


def make_int8_pool(
    num_blocks: int, block_tokens: int, num_kv: int, head_dim: int, device: torch.device | str = "cpu"
) -> Int8Pool:
    """An empty pool."""
    shape = (num_blocks, block_tokens, num_kv)
    return Int8Pool(
        torch.zeros(*shape, head_dim, dtype=torch.int8, device=device),
        torch.zeros(shape, dtype=torch.float32, device=device),
    )


def pool_block_bytes(block_tokens: int, num_kv: int, head_dim: int, dtype: torch.dtype) -> int:
    """Memory that one block takes in one pool (keys or values) of that dtype; int8 counts its scales."""
    per_head = head_dim * dtype.itemsize + (_SCALE_BYTES if dtype == torch.int8 else 0)
    return block_tokens * num_kv * per_head


def round_heads(rows_NKD: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 `[N, K, D]` and scales `[N, K]` of rows; a head with a NaN or an infinity gets a NaN scale."""
    wide = rows_NKD.float()
    high = wide.abs().amax(-1, keepdim=True)
    # A number over a tensor would be a product with its reciprocal, which rounds twice.
    inverse = torch.where(high > _SMALLEST, torch.full_like(high, 127.0) / high, 0.0)
    codes = torch.where(high.isfinite(), (wide * inverse).round(), 0.0)
    return codes.to(torch.int8), torch.where(high.isfinite(), high / 127.0, torch.nan).squeeze(-1)
