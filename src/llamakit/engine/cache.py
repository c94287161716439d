"""The memory of keys and values: one pool of blocks a layer, and how many blocks a budget buys.

Knows tensors and block numbers; which block belongs to whom is `BlockPool`'s business.

Legend: B blocks, T tokens of a block, K key/value heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.engine.config import EngineConfig
from llamakit.kernels.attention import Pool
from llamakit.kernels.int8_pool import Int8Pool, pool_block_bytes
from llamakit.models.llama import Llama

_FULL_CONTEXTS = 4


def count_blocks(config: EngineConfig, models: Sequence[Llama]) -> int:
    """Blocks that `cache_bytes` holds for all `models` together; without it, those of four full contexts."""
    if config.cache_bytes is None:
        context = config.max_context or models[0].config.context_length
        return _FULL_CONTEXTS * -(-context // config.block_tokens)
    each = sum(token_bytes(m.config, kv_dtype(config.kv, m.dtype)) for m in models) * config.block_tokens
    count = config.cache_bytes // each
    if count * config.block_tokens < 2:
        raise ConfigError(
            f"cache_bytes {config.cache_bytes} holds no block of {config.block_tokens} tokens, which takes {each} bytes"
        )
    return count


def kv_dtype(wish: Literal["auto", "int8"], dtype: torch.dtype) -> torch.dtype:
    """The dtype of keys and values for a model that computes in `dtype`."""
    return torch.int8 if wish == "int8" else dtype


def token_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of keys and values of one token over all layers, the scales of int8 included."""
    return 2 * config.num_layers * pool_block_bytes(1, config.num_kv_heads, config.head_dim, dtype)


def resolve_context(config: EngineConfig, model: Llama, num_blocks: int) -> int:
    """Most tokens of a sequence: what was asked for, or what both the model and the cache allow."""
    limit = model.config.context_length
    holds = num_blocks * config.block_tokens
    if config.max_context is None:
        return min(limit, holds)
    if config.max_context > limit:
        raise ConfigError(f"max_context {config.max_context} exceeds the {limit} tokens the model was trained for")
    if config.max_context > holds:
        raise ConfigError(f"max_context {config.max_context} does not fit the cache, which holds {holds} tokens")
    return config.max_context


class KvCache:
    """Keys and values of `num_blocks` blocks, for every layer."""

    def __init__(
        self, config: ModelConfig, num_blocks: int, block_tokens: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        shape = (num_blocks, block_tokens, config.num_kv_heads, config.head_dim)
        self.keys = [_pool(shape, dtype, device) for _ in range(config.num_layers)]
        """Per layer `[B, T, K, D]`."""
        self.values = [_pool(shape, dtype, device) for _ in range(config.num_layers)]
        """Per layer `[B, T, K, D]`."""

    def copy_block(self, source: int, target: int) -> None:
        """Make `target` hold what `source` holds."""
        for pool in (*self.keys, *self.values):
            if isinstance(pool, Int8Pool):
                pool.copy_block(source, target)
            else:
                pool[target] = pool[source]


def _pool(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Pool:
    if dtype == torch.int8:
        return Int8Pool(_zeros(shape, dtype, device), _zeros(shape[:-1], torch.float32, device))
    return _zeros(shape, dtype, device)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # Unlike torch.zeros this leaves untouched pages to the system: a large cache costs memory only as it fills.
    raw = np.zeros(int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
