"""Logits in, token ids out, one row at a time whatever stands beside it.

The order of operations, for each row: logit bias, repetition penalty, frequency and presence penalties,
suppression of end tokens, constraint mask; then greedy choice, or temperature, top-k, top-p, min-p,
locally typical (each on what the one before left, renormalised), and one draw. Logprobs are of the
model's own distribution: float32 log-softmax of the logits before any of this.

Ties: the lower id counts as the more likely token everywhere. Nothing here remembers anything between
calls. Legend: M rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llamakit.core.sampling import SamplingParams
from llamakit.engine.draws import uniform
from llamakit.engine.penalties import History, Penalised, penalise
from llamakit.engine.request import TokenScore, TopTokens

NO_TOKEN = -1
"""In place of an id where bias and constraint leave no token, or the logits are not numbers."""

_BAN = -100.0
"""Logit bias at and below which a token is impossible rather than unlikely."""
_LIKELY = (-9.2, -13.8)
"""Logs of about 1e-4 and 1e-6: tokens above the first decide most draws, those above the second nearly all.
There are few of them to sort, whatever the vocabulary."""
_SMALL_VOCABULARY = 2048
"""At and below this all tokens are sorted at once."""
_GROUP_VALUES = 1 << 17
"""Logits scaled at once: many rows of a small vocabulary, or one row that stays in the core's own cache."""
_MAX_SHARPNESS = 1e30
"""Largest factor on logit differences; a smaller temperature has no larger effect in float32."""


@dataclass(eq=False, slots=True)
class Row:
    """What decides one token beside its logits; depends on the row's own sequence alone."""

    params: SamplingParams
    seed: int
    choice: int
    position: int
    """Generated tokens before this one."""
    needs_score: bool = False
    suppressed: tuple[int, ...] = ()
    """Ids that must not come yet."""
    mask: np.ndarray | None = None
    """Allowed ids of a constraint, booleans `[<= V]`."""
    history: History | None = None
    assumed: Sequence[int] = ()
    """Proposed tokens between the sequence's last one and this row, which `history` does not count yet."""


@torch.inference_mode()
def sample(logits_MV: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[TokenScore | None]]:
    """An id for each row (or `NO_TOKEN`), and its score where the row asks for one. May overwrite the logits."""
    scored = [i for i, row in enumerate(rows) if row.needs_score]
    # A copy, taken before anything below changes the logits.
    logprobs = _log_softmax(logits_MV, scored) if scored else None
    _edit(logits_MV, rows)
    ids = most_likely(logits_MV)
    drawn = [i for i, row in enumerate(rows) if not row.params.is_greedy and ids[i] != NO_TOKEN]
    size = max(_GROUP_VALUES // logits_MV.shape[1], 1)
    for start in range(0, len(drawn), size):
        group = drawn[start : start + size]
        for line, i in zip(_scaled(logits_MV, group, rows, ids), group, strict=True):
            row = rows[i]
            ids[i] = draw(line, row.params, uniform(row.seed, row.choice, row.position))
    scores: list[TokenScore | None] = [None] * len(rows)
    if logprobs is not None:
        for line, i in zip(logprobs, scored, strict=True):
            if ids[i] != NO_TOKEN:
                scores[i] = score(line, ids[i], rows[i].params.logprobs or 0)
    return ids, scores


def most_likely(logits_MV: Tensor) -> list[int]:
    """The id of each row's largest logit, the lowest on a tie; `NO_TOKEN` where that is not a finite number."""
    if logits_MV.device.type == "cpu":
        # Many times the speed of torch.max; both put NaN above everything and the first of equals first.
        table = logits_MV.numpy()
        ids = table.argmax(axis=1)
        values = table[np.arange(len(ids)), ids].tolist()
    else:
        best, ids = logits_MV.max(dim=-1)
        values = best.tolist()
    return [token if math.isfinite(value) else NO_TOKEN for token, value in zip(ids.tolist(), values, strict=True)]


def draw(logprobs: np.ndarray, params: SamplingParams, place: float) -> int:
    """The token at `place` in [0, 1) of the row's filtered distribution, most likely tokens first.

    `logprobs [V]` are float32 and already scaled by temperature. Looks at the likely tokens only when
    these decide the draw; the result is the same as with all of them.
    """
    if logprobs.shape[0] > _SMALL_VOCABULARY:
        for level in _LIKELY:
            likely = np.flatnonzero(logprobs > level)
            token = _draw_from(likely, logprobs[likely], params, place, is_all=False)
            if token is not None:
                return token
    token = _draw_from(np.arange(logprobs.shape[0]), logprobs, params, place, is_all=True)
    assert token is not None
    return token


def score(logprobs: np.ndarray, token: int, num_top: int) -> TokenScore:
    """Logprob of `token` and the `num_top` most likely alternatives of a row of logprobs `[V]`."""
    return token, float(logprobs[token]), _top(logprobs, num_top)


def score_rows(logits_MV: Tensor, tokens: Sequence[int], num_top: int) -> list[TokenScore]:
    """Score of each row's given token."""
    table = torch.log_softmax(logits_MV, dim=-1).cpu().numpy()
    return [score(line, token, num_top) for line, token in zip(table, tokens, strict=True)]


def _log_softmax(logits_MV: Tensor, rows: list[int]) -> np.ndarray:
    chosen = logits_MV
    if len(rows) < logits_MV.shape[0]:
        chosen = logits_MV.index_select(0, torch.tensor(rows, device=logits_MV.device))
    return torch.log_softmax(chosen, dim=-1).cpu().numpy()


def _top(logprobs: np.ndarray, count: int) -> TopTokens:
    if count == 0:
        return ()
    ids = np.flatnonzero(logprobs > _LIKELY[0])
    if len(ids) < count:
        ids = np.arange(logprobs.shape[0])
    ids = ids[np.argsort(-logprobs[ids], kind="stable")][:count]
    return tuple(zip(ids.tolist(), logprobs[ids].tolist(), strict=True))


def _scaled(logits_MV: Tensor, places: list[int], rows: Sequence[Row], best: Sequence[int]) -> np.ndarray:
    """Logprobs of the given rows after temperature; `best` names each row's most likely token."""
    device = logits_MV.device
    chosen = logits_MV.index_select(0, torch.tensor(places, device=device))
    chosen -= chosen.gather(1, torch.tensor([[best[i]] for i in places], device=device))
    chosen *= torch.tensor([[_sharpness(rows[i].params.temperature)] for i in places], device=device)
    return torch.log_softmax(chosen, dim=-1).cpu().numpy()


def _sharpness(temperature: float) -> float:
    return min(1.0 / temperature, _MAX_SHARPNESS)


# -- changes to logits -----------------------------------------------------------------------------


def _edit(logits_MV: Tensor, rows: Sequence[Row]) -> None:
    """Change logits in place: bias, then penalties, then what may not come at all."""
    penalised = []
    for i, row in enumerate(rows):
        if row.params.logit_bias:
            _add_bias(logits_MV[i], row.params.logit_bias)
        if row.history is not None:
            penalised.append(Penalised(i, row.params, row.history, row.assumed))
    if penalised:
        penalise(logits_MV, penalised)
    for i, row in enumerate(rows):
        if row.suppressed and (row.mask is None or _leaves_any(row.mask, row.suppressed)):
            logits_MV[i, list(row.suppressed)] = -torch.inf
        if row.mask is not None:
            _allow_only(logits_MV[i], row.mask)


def _allow_only(logits_V: Tensor, mask: np.ndarray) -> None:
    size = min(len(mask), len(logits_V))
    logits_V[:size].masked_fill_(torch.from_numpy(~mask[:size]).to(logits_V.device), -torch.inf)
    logits_V[size:] = -torch.inf


def _add_bias(logits_V: Tensor, bias: Mapping[int, float]) -> None:
    amounts = [-math.inf if value <= _BAN else value for value in bias.values()]
    ids = torch.tensor(list(bias), device=logits_V.device)
    logits_V[ids] += torch.tensor(amounts, dtype=torch.float32, device=logits_V.device)


def _leaves_any(mask: np.ndarray, suppressed: Sequence[int]) -> bool:
    """False at the end of a constraint, which outranks min_tokens."""
    inside = [token for token in suppressed if token < mask.shape[0]]
    return int(np.count_nonzero(mask)) > int(np.count_nonzero(mask[inside]))


# -- the draw --------------------------------------------------------------------------------------


def _draw_from(
    ids: np.ndarray, logprobs: np.ndarray, params: SamplingParams, place: float, *, is_all: bool
) -> int | None:
    """The draw among `ids`, ascending, all of which are more likely than any other; None if they do not decide it."""
    if not len(ids):
        return None
    order = np.argsort(-logprobs, kind="stable")
    # Sums run in this order in float64, one after another: a longer list never changes an earlier sum.
    probs = np.exp(logprobs[order].astype(np.float64))
    sums = np.cumsum(probs)
    end, mass = len(probs), 1.0
    is_bounded = is_all
    if params.top_k > end and not is_all:
        return None
    if 0 < params.top_k <= end:
        end, is_bounded = params.top_k, True
        mass = sums[end - 1]
    if params.top_p < 1.0:
        # Meta's rule: a token stays while the mass before it does not exceed p.
        before = np.concatenate(([0.0], sums[: end - 1]))
        kept = int(np.searchsorted(before, params.top_p * mass, side="right"))
        if kept == end and not is_bounded:
            return None
        end, is_bounded = max(kept, 1), True
        mass = sums[end - 1]
    if params.min_p > 0.0:
        kept = int(np.count_nonzero(probs[:end] >= params.min_p * probs[0]))
        if kept == end and not is_bounded:
            return None
        end, is_bounded = kept, True
        mass = sums[end - 1]
    if params.typical_p < 1.0:
        if not is_bounded:
            return None
        kept_places = _typical(probs[:end], params.typical_p)
        order = order[kept_places]
        sums = np.cumsum(probs[kept_places])
        end, mass = len(order), sums[-1]
    chosen = int(np.searchsorted(sums[:end], place * mass, side="right"))
    if chosen >= end:
        if not is_bounded:
            return None
        chosen = int(np.count_nonzero(probs[:end])) - 1 if params.typical_p >= 1.0 else end - 1
    return int(ids[order[chosen]])


def _typical(probs: np.ndarray, mass: float) -> np.ndarray:
    """Places (ascending) of the smallest set of at least `mass` whose surprise is nearest the entropy."""
    probs = probs[probs > 0] / probs.sum()
    surprise = -np.log(probs)
    distance = np.abs(surprise - np.dot(probs, surprise))
    order = np.argsort(distance, kind="stable")
    kept = 1 + int(np.count_nonzero(np.cumsum(probs[order]) < mass))
    return np.sort(order[:kept])
