"""A histogram for what happens once a token: counted by the event loop alone, told in Prometheus' form when asked.

Prometheus' own takes a lock for every bucket and label, which a chat of many tokens pays for many times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """What was seen under one label value."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many fell into each bucket; the last holds what is above every bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; a bucket includes its upper bound."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class TallyHistogram(Collector):
    """Tallies by the value of one label."""

    def __init__(self, name: str, text: str, label: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._bounds = tuple(bounds)
        self._tallies: dict[str, Tally] = {}

    def of(self, value: str) -> Tally:
        """The tally of a label value."""
        tally = self._tallies.get(value)
        if tally is None:
            tally = self._tallies[value] = Tally(self._bounds)
        return tally

    def describe(self) -> Iterable[Metric]:
        """The name, so that nothing else takes it."""
        return (HistogramMetricFamily(self._name, self._text, labels=(self._label,)),)

    def collect(self) -> Iterable[Metric]:
        """One family, cumulative buckets for each label value."""
        family = HistogramMetricFamily(self._name, self._text, labels=(self._label,))
        edges = [*map(floatToGoString, self._bounds), "+Inf"]
        for value, tally in self._tallies.items():
            buckets = list(zip(edges, accumulate(tally.counts), strict=True))
            family.add_metric([value], buckets=buckets, sum_value=tally.total)
        yield family
