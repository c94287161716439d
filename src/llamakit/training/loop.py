"""The loop that every recipe shares: batches in, one report per step out.

The recipe owns the generator: it decides when to log, evaluate, save and stop. Nothing in here is
random, so a run that goes on from a saved state is bit for bit the run that was not interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from llamakit.kernels.attention import causal_attention
from llamakit.models.llama import Llama
from llamakit.training.loader import Batch, Cursor
from llamakit.training.losses import cross_entropy, select
from llamakit.training.optim import Optimizers


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one step did."""

    step: int
    """Steps finished, from 1."""
    loss: float
    """Mean over the targets of the step, in nats."""
    num_tokens: int
    num_targets: int
    gradient_norm: float
    rate: float
    """The schedule's factor on the learning rates."""
    step_s: float
    cursor: Cursor
    """The first batch of the next step."""


class Trunk:
    """States of a batch, with the attention of packed rows; compiled when asked for."""

    def __init__(self, model: Llama, *, compiled: bool) -> None:
        self._model = model
        self._states = torch.compile(self._plain, dynamic=False) if compiled else self._plain
        self._loss = torch.compile(cross_entropy, dynamic=True) if compiled else cross_entropy
        self._compiled = compiled

    def loss_sum(self, batch: Batch) -> Tensor:
        """Summed loss over the targets of a batch; bf16 products on fp32 weights."""
        length = batch.ids_BT.shape[1]
        # The table of angles grows in Python, which a compiled graph must not see.
        self._model.rope(batch.positions_BT.reshape(-1), length - 1)
        with torch.autocast(batch.ids_BT.device.type, torch.bfloat16):
            states = self._states(batch.ids_BT, batch.positions_BT, batch.documents_BT)
            head = self._model.model.embed_tokens.weight if self._model.lm_head is None else self._model.lm_head.weight
            return self._loss(select(states, batch.places_M), head, batch.targets_M)

    def _plain(self, ids_BT: Tensor, positions_BT: Tensor, documents_BT: Tensor) -> Tensor:
        """`Llama.states` with a known last position, so that a compiled graph need not look at the data."""
        batch, length = ids_BT.shape
        same = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
        mask = same & torch.ones(length, length, dtype=torch.bool, device=ids_BT.device).tril()

        def attend(layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
            q, k, v = (t.view(batch, length, *t.shape[1:]) for t in (q_NHD, k_NKD, v_NKD))
            return causal_attention(q, k, v, mask).reshape(batch * length, *q_NHD.shape[1:])

        return self._model.hidden(ids_BT.reshape(-1), positions_BT.reshape(-1), attend, max_position=length - 1)


def steps(
    model: Llama,
    source: Iterator[tuple[Batch, Cursor]],
    optimizers: Optimizers,
    *,
    first_step: int = 0,
    batches_per_step: int = 1,
    compiled: bool = False,
) -> Iterator[Report]:
    """Train from `first_step` to the end of the schedule."""
    trunk = Trunk(model, compiled=compiled)
    model.train()
    for step in range(first_step, optimizers.config.num_steps):
        began = time.perf_counter()
        taken = [next(source) for _ in range(batches_per_step)]
        num_targets = sum(batch.targets_M.numel() for batch, _ in taken)
        total = 0.0
        for batch, _ in taken:
            loss = trunk.loss_sum(batch) / max(1, num_targets)
            loss.backward()
            total += loss.item()
        norm = clip_grad_norm_(model.parameters(), optimizers.config.clip_norm)
        rate = optimizers.step(step)
        yield Report(
            step=step + 1,
            loss=total,
            num_tokens=sum(batch.num_tokens for batch, _ in taken),
            num_targets=num_targets,
            gradient_norm=float(norm),
            rate=rate,
            step_s=time.perf_counter() - began,
            cursor=taken[-1][1],
        )
