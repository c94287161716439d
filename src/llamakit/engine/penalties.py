"""Penalties on tokens that were seen before: what has been seen, and what that does to the logits.

Repetition (Keskar et al., CTRL, 2019) looks at prompt and answer, presence and frequency (OpenAI) at the
answer alone. Legend: M rows, V vocabulary.
"""

from __future__ import annotations

from array import array
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

    __slots__ = ("_fresh", "_ids", "_places", "_prompt", "_prompt_ids", "_times")

    def __init__(self, prompt: array[int]) -> None:
        self._prompt_ids = np.unique(np.array(prompt, dtype=np.int64))
        self._prompt = frozenset(self._prompt_ids.tolist())
        self._fresh: array[int] = array("q")
        """Ids of the answer that the prompt has not, each once."""
        self._ids: array[int] = array("q")
        """Ids of the answer, each once."""
        self._times: array[float] = array("f")
        """How often each of `_ids` came."""
        self._places: dict[int, int] = {}

    def add(self, token: int) -> None:
        """Take the answer's next token."""
        place = self._places.get(token)
        if place is not None:
            self._times[place] += 1
            return
        self._places[token] = len(self._ids)
        self._ids.append(token)
        self._times.append(1)
        if token not in self._prompt:
            self._fresh.append(token)

    def seen(self, assumed: Sequence[int]) -> np.ndarray:
        """Ids in prompt, answer and `assumed`, each once."""
        new = [t for t in dict.fromkeys(assumed) if t not in self._places and t not in self._prompt]
        return np.concatenate((self._prompt_ids, np.array(self._fresh), np.array(new, dtype=np.int64)))

    def counts(self, assumed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Ids in the answer and `assumed`, each once, and how often each came, float32."""
        ids, times = np.array(self._ids), np.array(self._times)
        new: dict[int, int] = {}
        for token in assumed:
            place = self._places.get(token)
            if place is None:
                new[token] = new.get(token, 0) + 1
            else:
                times[place] += 1
        if not new:
            return ids, times
        return (
            np.concatenate((ids, np.array(list(new), dtype=np.int64))),
            np.concatenate((times, np.array(list(new.values()), dtype=np.float32))),
        )


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
    counted, amounts = [], []
    for row, params, history, assumed in entries:
        if params.presence_penalty or params.frequency_penalty:
            ids, times = history.counts(assumed)
            counted.append(ids + row * vocabulary)
            amounts.append(params.presence_penalty + params.frequency_penalty * times)
    if counted:
        places = torch.from_numpy(np.concatenate(counted)).to(flat.device)
        flat[places] -= torch.from_numpy(np.concatenate(amounts)).to(flat.device)
