"""Greedy answers for evaluation inside a recipe: many prompts, one contiguous cache, no engine.

Slow and simple on purpose; serving is the engine's work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamakit.kernels.attention import causal_attention
from llamakit.models.llama import Llama


class _Cache:
    """Keys and values of B sequences, `[layers, B, room, K, D]` each."""

    def __init__(self, model: Llama, batch: int, room: int) -> None:
        shape = (model.config.num_layers, batch, room, model.config.num_kv_heads, model.config.head_dim)
        self.k = torch.zeros(shape, dtype=model.dtype)
        self.v = torch.zeros(shape, dtype=model.dtype)

    def prefill(self, model: Llama, row: int, ids: Sequence[int]) -> Tensor:
        """Fill one row with a prompt; returns the logits `[vocab]` after it."""

        def attend(layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
            self.k[layer, row, : len(ids)] = k_NKD
            self.v[layer, row, : len(ids)] = v_NKD
            return causal_attention(q_NHD[None], k_NKD[None], v_NKD[None])[0]

        states = model.hidden(torch.tensor(ids), torch.arange(len(ids)), attend, max_position=len(ids))
        return model.logits(states[-1:])[0]

    def extend(self, model: Llama, rows: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """One more token for each of `rows` at its place; returns logits `[rows, vocab]`."""
        seen = int(places.max()) + 1
        mask = (torch.arange(seen)[None, :] <= places[:, None])[:, None, None, :]

        def attend(layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
            self.k[layer, rows, places] = k_NKD
            self.v[layer, rows, places] = v_NKD
            return causal_attention(q_NHD[:, None], self.k[layer, rows, :seen], self.v[layer, rows, :seen], mask)[:, 0]

        return model.logits(model.hidden(ids, places, attend, max_position=seen))


@torch.no_grad()
def greedy(
    model: Llama, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int], *, max_new: int = 200, batch: int = 32
) -> list[list[int]]:
    """The most likely continuation of each prompt, without its stop id; cut after `max_new` or at the context's end."""
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), batch):
        members = order[start : start + batch]
        room = min(model.config.context_length, max(len(prompts[number]) for number in members) + max_new)
        cache = _Cache(model, len(members), room)
        last = torch.stack([cache.prefill(model, row, prompts[number]) for row, number in enumerate(members)])
        rows = torch.arange(len(members))
        while rows.numel():
            chosen = last.argmax(-1)
            going = []
            for at, (row, token) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
                number = members[row]
                if token in stop_ids:
                    continue
                answers[number].append(token)
                if len(answers[number]) < max_new and len(prompts[number]) + len(answers[number]) < room:
                    going.append(at)
            rows, ids = rows[going], chosen[going]
            if not going:
                break
            places = torch.tensor(
                [len(prompts[members[row]]) + len(answers[members[row]]) - 1 for row in rows.tolist()]
            )
            last = cache.extend(model, rows, ids, places)
    return answers
