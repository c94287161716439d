from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from llamakit.core.errors import ConfigError
from llamakit.evals.divergence import Reference, Window

VOCABULARY = 11


class Table:
    """A bigram model: the next token depends on the last one."""

    def __init__(
        self, seed: int, *, near: Table | None = None, share: float = 0.0, vocabulary: int = VOCABULARY
    ) -> None:
        probabilities = np.random.default_rng(seed).dirichlet(np.ones(vocabulary), vocabulary)
        if near is not None:
            probabilities = (1 - share) * near.probabilities + share * probabilities
        self.probabilities = probabilities

    def __call__(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32]:
        return np.log(self.probabilities[[ids[place] for place in places]]).astype(np.float32)


def windows(count: int = 4) -> list[Window]:
    random = np.random.default_rng(0)
    texts = [tuple(random.integers(0, VOCABULARY, 30).tolist()) for _ in range(count)]
    return [Window(ids=text, places=tuple(range(3, 29))) for text in texts]


def test_every_figure_is_the_textbook_one() -> None:
    first = Table(1)
    second = Table(2, near=first, share=0.3)
    seen: list[tuple[int, int]] = []
    with Reference(windows(), first, progress=lambda done, total: seen.append((done, total))) as reference:
        found = reference.compare(second)
    rows = [(w.ids[p], w.ids[p + 1]) for w in windows() for p in w.places]
    kl = [
        sum(p * math.log(p / q) for p, q in zip(first.probabilities[a], second.probabilities[a], strict=True))
        for a, _ in rows
    ]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.tokens == len(rows) == 104
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-5)
    assert found.kl_error == pytest.approx(np.std(kl, ddof=1) / math.sqrt(104), rel=1e-5)
    assert (found.kl_median, found.kl_max) == pytest.approx((np.median(kl), max(kl)), rel=1e-5)
    assert found.kl_p99 == pytest.approx(np.quantile(kl, 0.99), rel=1e-5)
    for model, perplexity in ((first, found.reference_perplexity), (second, found.perplexity)):
        told = [math.log(model.probabilities[a, b]) for a, b in rows]
        assert perplexity == pytest.approx(math.exp(-np.mean(told)), rel=1e-5)
    same = [first.probabilities[a].argmax() == second.probabilities[a].argmax() for a, _ in rows]
    assert found.agreement == pytest.approx(np.mean(same))
    change = [second.probabilities[a, b] - first.probabilities[a, b] for a, b in rows]
    assert found.probability_rms == pytest.approx(math.sqrt(np.mean(np.square(change))), rel=1e-4)


def test_a_model_does_not_differ_from_itself() -> None:
    with Reference(windows(1), Table(1)) as reference:
        found = reference.compare(Table(1))
    assert (found.kl, found.kl_max, found.agreement, found.probability_rms) == (0.0, 0.0, 1.0, 0.0)


def test_impossible_tokens_cost_nothing_where_the_reference_has_none() -> None:
    first, second = Table(1), Table(1)
    first.probabilities = np.eye(VOCABULARY)[::-1] + 0.0
    with np.errstate(divide="ignore"), Reference(windows(1), first) as reference:
        assert math.isfinite(reference.compare(second).kl)


def test_other_vocabularies_and_empty_texts_are_refused() -> None:
    with Reference(windows(1), Table(1)) as reference, pytest.raises(ConfigError, match="vocabularies of 11 and 12"):
        reference.compare(Table(1, vocabulary=12))
    with pytest.raises(ConfigError, match="nothing to score"):
        Reference([Window(ids=(1, 2), places=())], Table(1))
    with pytest.raises(ValueError, match="rise inside 0"):
        Window(ids=(1, 2), places=(1,))
    with pytest.raises(ValueError, match="shape"):
        Reference(windows(1), lambda ids, places: np.zeros((1, 1), dtype=np.float32))
