"""Scores of rows -> the few numbers that stand for them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from llamakit.core.errors import InvalidRequest

Aggregation = Literal["average", "weighted_average", "median", "categorical_count", "accuracy"]
Scores = Sequence[Mapping[str, Any]]
"""One a row: its `score`, and `weight` where rows count differently."""


def aggregate(names: Sequence[Aggregation], scores: Scores) -> dict[str, Any]:
    """Each aggregation by its name; raises `InvalidRequest` where scores are words and a number is wanted."""
    return {name: _AGGREGATIONS[name](scores) for name in names}


def _numbers(scores: Scores) -> list[float]:
    made = []
    for index, row in enumerate(scores):
        value = row["score"]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(
                f"row {index} has the score {str(value)[:40]!r}, and only numbers have an average or a median; "
                "use categorical_count",
                param="aggregation_functions",
            )
        made.append(float(value))
    return made


def _average(scores: Scores) -> dict[str, Any]:
    numbers = _numbers(scores)
    return {"average": statistics.fmean(numbers) if numbers else None}


def _weighted_average(scores: Scores) -> dict[str, Any]:
    weights = [float(row.get("weight", 1.0)) for row in scores]
    total = sum(weights)
    mean = sum(w * s for w, s in zip(weights, _numbers(scores), strict=True)) / total if total else None
    return {"weighted_average": mean}


def _median(scores: Scores) -> dict[str, Any]:
    numbers = _numbers(scores)
    return {"median": statistics.median(numbers) if numbers else None}


def _categorical_count(scores: Scores) -> dict[str, Any]:
    return {"categorical_count": dict(sorted(Counter(str(row["score"]) for row in scores).items()))}


def _accuracy(scores: Scores) -> dict[str, Any]:
    correct = sum(number == 1.0 for number in _numbers(scores))
    share = correct / len(scores) if scores else None
    return {"accuracy": share, "num_correct": correct, "num_total": len(scores)}


_AGGREGATIONS: dict[Aggregation, Callable[[Scores], dict[str, Any]]] = {
    "average": _average,
    "weighted_average": _weighted_average,
    "median": _median,
    "categorical_count": _categorical_count,
    "accuracy": _accuracy,
}
