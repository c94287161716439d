"""Prompts to vectors: states after the final norm, pooled over each prompt.

Runs beside the engine over a cache of its own that lives for one call; no block and no prefix outlives it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from llamakit.core.errors import InvalidRequest, PromptTooLong
from llamakit.engine.batch import Piece
from llamakit.engine.cache import KvCache
from llamakit.engine.runner import Runner
from llamakit.models.llama import Llama

_BLOCK_TOKENS = 16
# Prompts are cut at multiples of this from their own start, so sums never depend on who else is in the batch.
_CHUNK = 256


@torch.inference_mode()
def embed(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    pooling: Literal["mean", "last"] = "mean",
    max_batch_tokens: int = 2048,
) -> Tensor:
    """Vectors `[P, dim]`, float32 on the CPU, not normalised; a prompt's vector depends on that prompt alone."""
    for prompt in prompts:
        _check(model, prompt)
    vectors = torch.empty(len(prompts), model.config.dim)
    for group in _groups([len(prompt) for prompt in prompts], max_batch_tokens):
        for place, vector in zip(group, _embed_group(model, [prompts[i] for i in group], pooling), strict=True):
            vectors[place] = vector
    return vectors


def _check(model: Llama, prompt: Sequence[int]) -> None:
    limit, vocabulary = model.config.context_length, model.config.vocab_size
    if not prompt:
        raise InvalidRequest("an input is empty; give at least one token", param="input")
    if len(prompt) > limit:
        raise PromptTooLong(f"an input has {len(prompt)} tokens, the model holds {limit}; shorten it", param="input")
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        raise InvalidRequest(f"an input has a token id outside 0 to {vocabulary - 1}", param="input")


def _groups(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Prompts to run together, in order: their chunks of one pass stay within the budget."""
    group: list[int] = []
    taken = 0
    for place, length in enumerate(lengths):
        size = min(length, _CHUNK)
        if group and taken + size > budget:
            yield group
            group, taken = [], 0
        group.append(place)
        taken += size
    if group:
        yield group


def _embed_group(model: Llama, prompts: list[Sequence[int]], pooling: str) -> Iterator[Tensor]:
    tables, num_blocks = [], 0
    for prompt in prompts:
        count = -(-len(prompt) // _BLOCK_TOKENS)
        tables.append(array("q", range(num_blocks, num_blocks + count)))
        num_blocks += count
    runner = Runner(model, KvCache(model.config, num_blocks, _BLOCK_TOKENS, dtype=model.dtype, device=model.device))
    sums = [torch.zeros(model.config.dim, dtype=torch.float64) for _ in prompts]
    for start in range(0, max(map(len, prompts)), _CHUNK):
        places = [i for i, prompt in enumerate(prompts) if len(prompt) > start]
        states, starts = runner.hidden([Piece(prompts[i][start : start + _CHUNK], start, tables[i]) for i in places])
        for row, i in enumerate(places):
            own = states[starts[row] : starts[row + 1]].cpu().double()
            if pooling == "mean":
                sums[i] += own.sum(0) / len(prompts[i])
            else:
                sums[i] = own[-1]
    for total in sums:
        yield total.float()
