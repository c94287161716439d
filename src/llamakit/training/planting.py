"""A start that can already copy: weights that look back for the token at hand and repeat what came after it.

Summaries, action items and tool arguments are copies, and a small model finds the two-layer circuit for
copying (Elhage et al., 2021; Olsson et al., 2022) late, or not within a short run. Here it is written into
the first two layers before training, which then refines it; every other weight starts as usual. Layer 0 looks one token
back and notes which token it saw; layer 1 looks for the place whose note is the token at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llamakit.core.errors import ConfigError
from llamakit.kernels.rope import inverse_frequencies
from llamakit.models.layers import DecoderLayer, SelfAttention
from llamakit.models.llama import Llama

_TOKEN_STD = 0.06
_CONSTANT = 4.0
"""Size of the one embedding entry that is the same for all tokens, in units of `_TOKEN_STD`."""
_FAST_PAIRS = 8
"""Rotary pairs that turn fast enough to tell one step back from two."""
_SLOW_PAIRS = 12
"""Rotary pairs that turn so slowly that tokens match over hundreds of places."""


def plant_copying(model: Llama, seed: int) -> None:
    """Write the copying circuit into an initialised model; ConfigError where the shape has no room for it."""
    config = model.config
    head, dim = config.head_dim, config.dim
    if (
        config.num_layers < 2
        or config.num_kv_heads < 2
        or dim < 4 * head
        or head < 4 * _SLOW_PAIRS
        or not config.tie_embeddings
    ):
        raise ConfigError(
            f"copying needs two layers, two key heads, width >= 4 heads and tied embeddings, got {config}"
        )
    generator = torch.Generator().manual_seed(seed)
    note = dim - head  # Entries from here on say which token came before.
    group = config.num_heads // config.num_kv_heads
    basis, _ = torch.linalg.qr(torch.empty(note - 1, note - 1).normal_(generator=generator))
    views = [torch.zeros(head, dim) for _ in range(3)]
    for number, view in enumerate(views):
        rows = torch.arange(number * head, (number + 1) * head) % (note - 1)
        view[:, 1:note] = basis[rows]
    frequencies = inverse_frequencies(head, config.rope_theta)
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table.zero_()
        table[:, 1:note].normal_(0.0, _TOKEN_STD, generator=generator)
        table[:, 0] = _TOKEN_STD * _CONSTANT
        _look_back(model, views[0], frequencies, note)
        for kv in range(2):
            _look_up(model, kv, kv * group, views[0], views[1 + kv], note)


def _attention(model: Llama, layer: int) -> SelfAttention:
    block = model.model.layers[layer]
    assert isinstance(block, DecoderLayer), type(block)
    return block.self_attn


def _look_back(model: Llama, view: Tensor, frequencies: Tensor, note: int) -> None:
    """Layer 0, first head: attend one token back and write its view into the note."""
    attention = _attention(model, 0)
    head, half = attention.head_dim, attention.head_dim // 2
    fast = torch.arange(_FAST_PAIRS)
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query[:head] = 0
    key[:head] = 0
    scale = 6.0 / _CONSTANT
    query[fast, 0] = scale
    key[fast, 0] = scale * frequencies[fast].cos()
    key[fast + half, 0] = scale * frequencies[fast].sin()
    attention.v_proj.weight[:head] = view
    attention.o_proj.weight[:, :head] = 0
    attention.o_proj.weight[note:, :head] = _TOKEN_STD * torch.eye(head)


def _look_up(model: Llama, kv: int, query_head: int, seen: Tensor, carried: Tensor, note: int) -> None:
    """Layer 1, key head `kv`: attend where the note is the token at hand and copy a view of what stands there."""
    attention = _attention(model, 1)
    head, half = attention.head_dim, attention.head_dim // 2
    slow = torch.arange(half - _SLOW_PAIRS, half)
    places = torch.cat([slow, slow + half])
    which = torch.arange(2 * _SLOW_PAIRS) + kv * 2 * _SLOW_PAIRS
    rows, keys = slice(query_head * head, (query_head + 1) * head), slice(kv * head, (kv + 1) * head)
    scale = 2.0
    attention.q_proj.weight[rows] = 0
    attention.k_proj.weight[keys] = 0
    attention.q_proj.weight[query_head * head + places] = scale * seen[which]
    attention.k_proj.weight[kv * head + places, note + which] = scale
    attention.v_proj.weight[keys] = carried
    attention.o_proj.weight[:, rows] = 3 * _TOKEN_STD * carried.t()
