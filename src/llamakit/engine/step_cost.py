"""What one more token in a step costs on this machine, learned from the steps themselves.

A step of few tokens takes about `a + b * tokens` seconds: `a` for reading the weights, `b` for each token's share of
arithmetic and cache. Speculation asks for `b / a`. Knows no sequence and no clock.
"""

from __future__ import annotations

_MEMORY = 0.98
"""Weight of the past when a step is added: some fifty steps are remembered."""
_MOST_TOKENS = 128
"""Beyond, a step is bound by arithmetic and tells nothing of reading."""
_TRUST = 0.25
"""Squared tokens of spread at which what was measured counts as much as what was assumed."""


class StepCost:
    """A running straight line through (tokens, seconds)."""

    def __init__(self, assumed: float) -> None:
        self._assumed = assumed
        self._weight = self._tokens = self._seconds = self._squares = self._products = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Take the duration of a step; long steps and broken clocks are left out."""
        if tokens > _MOST_TOKENS or not seconds > 0:
            return
        self._weight = _MEMORY * self._weight + 1
        self._tokens = _MEMORY * self._tokens + tokens
        self._seconds = _MEMORY * self._seconds + seconds
        self._squares = _MEMORY * self._squares + tokens * tokens
        self._products = _MEMORY * self._products + tokens * seconds

    @property
    def per_token(self) -> float:
        """`b / a`, in [0, 1]; what was assumed as long as steps were too alike to tell."""
        if not self._weight:
            return self._assumed
        mean_tokens, mean_seconds = self._tokens / self._weight, self._seconds / self._weight
        spread = self._squares / self._weight - mean_tokens**2
        together = self._products / self._weight - mean_tokens * mean_seconds
        # A step of the assumed cost has this slope; the measured one takes over as the spread grows.
        slope = self._assumed * mean_seconds / (1 + self._assumed * mean_tokens)
        slope = (together + _TRUST * slope) / (max(spread, 0.0) + _TRUST)
        still = mean_seconds - slope * mean_tokens
        if still <= 0:
            return 1.0
        return min(max(slope / still, 0.0), 1.0)
