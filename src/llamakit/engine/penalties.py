"""Penalties on tokens that were seen before: what has been seen, and what that does to the logits.

Repetition (Keskar et al., CTRL, 2019) looks at prompt and answer, presence and frequency (OpenAI) at the
answer alone. Legend: M rows, V vocabulary.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llamakit.core.sampling import SamplingParams


def has_penalties(params: SamplingParams) -> bool:
    """Whether choosing a token depends on the tokens before it."""
    return bool(params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty)


class History:
    """Which tokens one choice has seen; kept only where penalties ask."""

    __slots__ = ("_counts", "_fresh", "_prompt", "_prompt_ids")

    def __init__(self, prompt: array[int]) -> None:
        self._prompt_ids = np.unique(np.array(prompt, dtype=np.int64))
        self._prompt = frozenset(self._prompt_ids.tolist())
        self._counts: Counter[int] = Counter()
        self._fresh: list[int] = []
        """Ids of the answer that the prompt has not, each once."""

    def add(self, token: int) -> None:
        """Take the answer's next token."""
        if token not in self._counts and token not in self._prompt:
            self._fresh.append(token)
        self._counts[token] += 1

    def seen(self, assumed: Sequence[int]) -> np.ndarray:
        """Ids in prompt, answer and `assumed`, each once."""
        new = [t for t in dict.fromkeys(assumed) if t not in self._counts and t not in self._prompt]
        return np.concatenate((self._prompt_ids, np.array(self._fresh + new, dtype=np.int64)))

    def counts(self, assumed: Sequence[int]) -> Counter[int]:
        """Occurrences of each id in the answer and `assumed`."""
        if not assumed:
            return self._counts
        counts = self._counts.copy()
        counts.update(assumed)
        return counts


class Penalised(NamedTuple):
    """A row of logits, and what the tokens before it were."""

    row: int
    params: SamplingParams
    history: History
    assumed: Sequence[int]
    """Tokens after those that `history` counts."""


def penalise(logits_MV: Tensor, entries: Sequence[Penalised]) -> None:
    """Apply each row's penalties in place, for all rows at once."""
    vocabulary = logits_MV.shape[1]
    flat = logits_MV.view(-1)
    repeated = [entry for entry in entries if entry.params.repetition_penalty != 1.0]
    if repeated:
        seen = [entry.history.seen(entry.assumed) for entry in repeated]
        factors = [entry.params.repetition_penalty for entry in repeated]
        places = torch.from_numpy(
            np.concatenate([ids + entry.row * vocabulary for ids, entry in zip(seen, repeated, strict=True)])
        ).to(flat.device)
        factor = torch.from_numpy(np.repeat(np.array(factors, dtype=np.float32), [len(ids) for ids in seen]))
        factor = factor.to(flat.device)
        values = flat[places]
        flat[places] = torch.where(values > 0, values / factor, values * factor)
    counted: list[int] = []
    amounts: list[float] = []
    for row, params, history, assumed in entries:
        if params.presence_penalty or params.frequency_penalty:
            for token, count in history.counts(assumed).items():
                counted.append(row * vocabulary + token)
                amounts.append(params.presence_penalty + params.frequency_penalty * count)
    if counted:
        places = torch.tensor(counted, device=flat.device)
        flat[places] -= torch.tensor(amounts, dtype=torch.float32, device=flat.device)
