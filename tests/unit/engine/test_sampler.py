"""The sampler against a plain float64 reference, and against the probabilities it is meant to draw from."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.sampling import SamplingParams
from llamakit.engine import sampler
from llamakit.engine.draws import uniform
from llamakit.engine.penalties import History
from llamakit.engine.sampler import NO_TOKEN, Row, draw, most_likely, sample, score_rows

VOCABULARY = 40


def row(position: int = 0, *, seed: int = 1, history: History | None = None, **fields) -> Row:
    more = {name: fields.pop(name) for name in ("suppressed", "mask", "assumed", "needs_score") if name in fields}
    return Row(SamplingParams(**fields), seed, 0, position, history=history, **more)


def logits_of(seed: int, rows: int = 1, vocabulary: int = VOCABULARY, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def reference_weights(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Probabilities after every filter, each written as its definition says, over the whole vocabulary."""
    x = logits.astype(np.float64)
    scaled = (x - x.max()) / params.temperature
    p = np.exp(scaled) / np.exp(scaled).sum()
    ids = np.arange(len(p))
    if params.top_k:
        ranked = sorted(ids, key=lambda i: (-p[i], i))
        p[ranked[params.top_k :]] = 0
        p /= p.sum()
    if params.top_p < 1:
        mass = 0.0
        for i in sorted(ids, key=lambda i: (-p[i], i)):
            own = p[i]
            if mass > params.top_p:
                p[i] = 0
            mass += own
        p /= p.sum()
    if params.min_p:
        p[p < params.min_p * p.max()] = 0
        p /= p.sum()
    if params.typical_p < 1:
        alive = [i for i in ids if p[i] > 0]
        entropy = -sum(p[i] * math.log(p[i]) for i in alive)
        mass, kept = 0.0, set()
        for i in sorted(alive, key=lambda i: (abs(-math.log(p[i]) - entropy), -p[i], i)):
            if mass >= params.typical_p:
                break
            kept.add(i)
            mass += p[i]
        p[[i for i in alive if i not in kept]] = 0
        p /= p.sum()
    return p


def scaled_logprobs(logits: torch.Tensor, params: SamplingParams) -> np.ndarray:
    return torch.log_softmax((logits - logits.max()) / params.temperature, -1).numpy()


FILTERS = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.1},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.5},
    {"typical_p": 0.95},
    {"top_k": 8, "top_p": 0.7},
    {"top_k": 20, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.8, "temperature": 1.3},
]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
def test_every_place_of_the_unit_interval_gets_the_token_the_reference_gives(fields: dict):
    params = SamplingParams(**fields)
    for seed in range(8):
        logits = logits_of(seed)[0]
        weights = reference_weights(logits.numpy(), params)
        order = sorted(range(VOCABULARY), key=lambda i: (-weights[i], i))
        edges = np.cumsum(weights[order])
        logprobs = scaled_logprobs(logits, params)
        for rank, token in enumerate(order):
            if weights[token] < 1e-5:
                continue
            middle = edges[rank] - weights[token] / 2
            assert draw(logprobs, params, middle) == token, (seed, rank)


@pytest.mark.parametrize("fields", FILTERS, ids=str)
def test_the_likely_tokens_alone_decide_as_all_would(fields: dict, monkeypatch: pytest.MonkeyPatch):
    params = SamplingParams(**fields)
    tables = [
        scaled_logprobs(logits_of(seed, vocabulary=3000, scale=scale)[0], params)
        for seed, scale in ((0, 1.0), (1, 3.0), (2, 8.0), (3, 0.01))
    ]
    # Rounded logits tie often, as those of 16-bit models do.
    tables.append(np.round(tables[1] * 4) / 4)
    # And nothing at all is likely among very many equals.
    tables.append(scaled_logprobs(torch.zeros(20_000), params))
    places = [*(uniform(1, 1, position) for position in range(100)), 0.0, 1 - 2**-53]
    short = [[draw(table, params, place) for place in places] for table in tables]
    monkeypatch.setattr(sampler, "_SMALL_VOCABULARY", 100_000)
    assert short == [[draw(table, params, place) for place in places] for table in tables]


@pytest.mark.parametrize("fields", FILTERS[:12], ids=str)
def test_draws_follow_the_distribution(fields: dict):
    params = SamplingParams(**fields)
    logits = logits_of(5, scale=1.5)
    weights = reference_weights(logits[0].numpy(), params)
    count = 4000
    rows = [row(position, seed=99, **fields) for position in range(count)]
    ids, _ = sample(logits.repeat(count, 1), rows)
    observed = np.bincount(ids, minlength=VOCABULARY)
    assert set(np.flatnonzero(observed)) <= set(np.flatnonzero(weights))
    expected = weights * count
    likely = expected >= 5
    rest = expected[~likely].sum()
    chi_square = ((observed[likely] - expected[likely]) ** 2 / expected[likely]).sum()
    degrees = int(likely.sum()) - 1
    if rest >= 5:
        chi_square += (observed[~likely].sum() - rest) ** 2 / rest
        degrees += 1
    # Wilson and Hilferty's approximation of the 99.9 % point.
    limit = max(degrees, 1) * (1 - 2 / (9 * max(degrees, 1)) + 3.09 * math.sqrt(2 / (9 * max(degrees, 1)))) ** 3
    assert chi_square <= limit


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_a_row_does_not_see_its_neighbours(seed: int, data: st.DataObject):
    def wish(i: int) -> dict:
        fields = data.draw(st.sampled_from([{"temperature": 0.0}, *FILTERS]))
        return fields | {"logprobs": data.draw(st.sampled_from([None, 0, 4]))}

    count = data.draw(st.integers(2, 7))
    logits = logits_of(seed, rows=count, vocabulary=300)
    rows = [row(i, seed=seed + i, needs_score=bool(i % 2), **wish(i)) for i in range(count)]
    if count > 3:
        rows[3].mask = np.arange(300) % 3 == 0
        rows[2].history = History(array("q", range(0, 300, 7)))
        rows[2].params = SamplingParams(repetition_penalty=1.7, presence_penalty=0.3)
    together = sample(logits.clone(), rows)
    for i in range(count):
        alone = sample(logits[i : i + 1].clone(), rows[i : i + 1])
        assert alone == ([together[0][i]], [together[1][i]])


def test_greedy_takes_the_lowest_of_equals():
    logits = torch.zeros(3, 5000)
    logits[1, [7, 4999]] = 2.0
    logits[2, 4998:] = 1.0
    assert most_likely(logits) == [0, 7, 4998]
    assert sample(logits, [row(temperature=0.0)] * 3)[0] == [0, 7, 4998]


def test_equals_are_ranked_by_id_when_sampling():
    logprobs = np.log(np.full(4, 0.25, dtype=np.float32))
    params = SamplingParams(top_k=2)
    assert [draw(logprobs, params, place) for place in (0.0, 0.49, 0.51, 0.999)] == [0, 0, 1, 1]


def test_metas_rule_keeps_the_token_that_crosses_p():
    logprobs = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    assert draw(logprobs, SamplingParams(top_p=0.5000001), 0.999) == 1
    assert draw(logprobs, SamplingParams(top_p=0.4), 0.999) == 0
    assert draw(logprobs, SamplingParams(top_p=1e-9), 0.999) == 0


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30, 1e-6, 100.0])
def test_extreme_temperatures_stay_numbers(temperature: float):
    logits = logits_of(3, vocabulary=5000)
    (token,), _ = sample(logits.clone(), [row(temperature=temperature)])
    if temperature < 1:
        assert token == int(logits[0].argmax())
    assert 0 <= token < 5000


def test_bias_moves_and_bans():
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    assert sample(logits.clone(), [row(temperature=0.0, logit_bias={1: 2.0})])[0] == [1]
    assert sample(logits.clone(), [row(temperature=0.0, logit_bias={0: -100.0, 1: -1000})])[0] == [2]
    everything = dict.fromkeys(range(3), -100.0)
    assert sample(logits.clone(), [row(temperature=1.0, logit_bias=everything)])[0] == [NO_TOKEN]


def test_rows_that_are_not_numbers_have_no_token_and_harm_nobody():
    logits = torch.tensor([[1.0, float("nan"), 0.0], [0.0, 1.0, 0.0], [float("inf"), 0.0, 0.0], [-math.inf] * 3])
    ids, scores = sample(logits, [row(temperature=t, needs_score=True) for t in (0.0, 0.7, 0.0, 1.0)])
    assert [ids[0], ids[2], ids[3]] == [NO_TOKEN] * 3
    assert 0 <= ids[1] < 3 and scores[1] is not None
    assert scores[0] is scores[2] is scores[3] is None


def test_penalties_are_those_of_their_definitions():
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.25]])
    history = History(array("q", [1, 3]))
    for token in (0, 0, 2):
        history.add(token)
    fields = {"repetition_penalty": 2.0, "presence_penalty": 0.5, "frequency_penalty": 0.25, "temperature": 0.0}
    changed = logits.clone()
    sample(changed, [row(history=history, **fields)])
    expected = [2.0 / 2 - (0.5 + 2 * 0.25), -1.0 * 2, 0.5 / 2 - (0.5 + 0.25), 0.25 / 2]
    assert changed[0].tolist() == pytest.approx(expected)


def test_proposed_tokens_count_as_if_they_had_come():
    params = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.25, "temperature": 0.0}
    assumed = History(array("q", [1, 1, 3]))
    real = History(array("q", [1, 1, 3]))
    for token in (5, 5, 3):
        real.add(token)
    assumed.add(5)
    one, two = logits_of(1), logits_of(1)
    sample(one, [row(history=assumed, assumed=[5, 3], **params)])
    sample(two, [row(history=real, **params)])
    assert torch.equal(one, two)


def test_penalties_of_rows_do_not_mix():
    params = {"repetition_penalty": 1.5, "frequency_penalty": 1.0, "temperature": 0.0}
    histories = [History(array("q", [i])) for i in range(3)]
    for i, history in enumerate(histories):
        history.add(10 + i)
    logits = logits_of(2, rows=3)
    together = logits.clone()
    sample(together, [row(history=history, **params) for history in histories])
    for i, history in enumerate(histories):
        alone = logits[i : i + 1].clone()
        sample(alone, [row(history=history, **params)])
        assert torch.equal(alone[0], together[i])
        assert set((alone[0] != logits[i]).nonzero().flatten().tolist()) == {i, 10 + i}


def test_ends_are_held_back_unless_nothing_else_is_left():
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    assert sample(logits.clone(), [row(temperature=0.0, suppressed=(1,))])[0] == [2]
    only_end = np.array([False, True, False])
    assert sample(logits.clone(), [row(temperature=0.0, suppressed=(1,), mask=only_end)])[0] == [1]
    end_or_two = np.array([False, True, True])
    assert sample(logits.clone(), [row(temperature=0.0, suppressed=(1,), mask=end_or_two)])[0] == [2]


def test_a_mask_shorter_than_the_vocabulary_forbids_the_rest():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert sample(logits, [row(temperature=0.0, mask=np.array([True, True]))])[0] == [1]


def test_scores_are_of_the_models_own_distribution():
    logits = logits_of(4)
    own = torch.log_softmax(logits[0].double(), -1)
    banned = int(logits.argmax())
    wish = row(temperature=0.7, logit_bias={banned: -100}, logprobs=3, needs_score=True)
    (token,), (score,) = sample(logits.clone(), [wish])
    assert score is not None and token != banned and score[0] == token
    assert score[1] == pytest.approx(own[token].item(), abs=1e-5)
    best = own.argsort(descending=True)[:3].tolist()
    assert [i for i, _ in score[2]] == best and best[0] == banned
    assert [value for _, value in score[2]] == pytest.approx(own[best].tolist(), abs=1e-5)


def test_alternatives_are_ranked_by_id_on_a_tie():
    logits = torch.zeros(1, 50)
    logits[0, 20] = 1.0
    ((_, _, top),) = score_rows(logits, [0], 4)
    assert [i for i, _ in top] == [20, 0, 1, 2]


def test_more_alternatives_than_tokens_are_all_tokens():
    ((_, _, top),) = score_rows(torch.zeros(1, 3), [0], 256)
    assert len(top) == 3
