"""Random paged pools, and attention over them in float64 as the definition says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llamakit.kernels.attention import AttentionBatch


class Paged(NamedTuple):
    """One batch: queries, pools in shuffled blocks, NaN in every slot that no sequence owns."""

    q_NHD: Tensor
    k_pool: Tensor
    v_pool: Tensor
    batch: AttentionBatch
    scale: float

    def one(self, sequence: int, token: int) -> Paged:
        """The `token`-th query of a sequence, alone."""
        start, end = self.batch.query_starts[sequence], self.batch.query_starts[sequence + 1]
        context = self.batch.context_lens[sequence] - (end - start) + token + 1
        tables = self.batch.block_tables[sequence : sequence + 1]
        alone = AttentionBatch([0, 1], [context], tables, self.batch.block_tokens)
        row = start + token
        return self._replace(q_NHD=self.q_NHD[row : row + 1], batch=alone)


def paged(
    sequences: list[tuple[int, int]],
    *,
    heads: int,
    kv_heads: int,
    dim: int,
    block_tokens: int,
    q_dtype: torch.dtype = torch.float32,
    pool_dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Paged:
    """A batch of `(new tokens, context)` sequences."""
    random = torch.Generator().manual_seed(seed)
    used = [-(-context // block_tokens) for _, context in sequences]
    num_blocks = sum(used) + 2
    shape = (num_blocks, block_tokens, kv_heads, dim)
    k_pool = torch.randn(shape, generator=random).to(pool_dtype)
    v_pool = torch.randn(shape, generator=random).to(pool_dtype)
    order = torch.randperm(num_blocks, generator=random)
    tables = torch.zeros(len(sequences), max(used), dtype=torch.int64)
    owned = torch.zeros(num_blocks * block_tokens, dtype=torch.bool)
    taken = 0
    for row, (count, (_, context)) in enumerate(zip(used, sequences, strict=True)):
        tables[row, :count] = order[taken : taken + count]
        owned[slots(tables[row], context, block_tokens)] = True
        taken += count
    for pool in (k_pool, v_pool):
        pool.view(-1, kv_heads, dim)[~owned] = torch.nan
    starts = [0]
    for tokens, _ in sequences:
        starts.append(starts[-1] + tokens)
    q = torch.randn(starts[-1], heads, dim, generator=random).to(q_dtype)
    batch = AttentionBatch(starts, [context for _, context in sequences], tables, block_tokens)
    return Paged(q, k_pool, v_pool, batch, dim**-0.5)


def slots(table: Tensor, context: int, block_tokens: int) -> Tensor:
    """Where the keys of positions 0 .. context - 1 lie."""
    positions = torch.arange(context)
    return table[positions // block_tokens] * block_tokens + positions % block_tokens


def exact(case: Paged) -> Tensor:
    """Softmax attention in float64, one query at a time."""
    _, heads, dim = case.q_NHD.shape
    kv_heads = case.k_pool.shape[2]
    out = torch.zeros(case.q_NHD.shape, dtype=torch.float64)
    for s, context in enumerate(case.batch.context_lens):
        own = slots(case.batch.block_tables[s], context, case.batch.block_tokens)
        keys = case.k_pool.view(-1, kv_heads, dim)[own].double().repeat_interleave(heads // kv_heads, 1)
        values = case.v_pool.view(-1, kv_heads, dim)[own].double().repeat_interleave(heads // kv_heads, 1)
        start, end = case.batch.query_starts[s], case.batch.query_starts[s + 1]
        for row in range(start, end):
            seen = context - (end - row) + 1
            scores = torch.einsum("hd,khd->hk", case.q_NHD[row].double(), keys[:seen]) * case.scale
            out[row] = torch.einsum("hk,khd->hd", scores.softmax(-1), values[:seen])
    return out
