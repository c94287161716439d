"""How much was used lately: sums over a window that slides in steps. Pure; times are seconds of any one clock.

A use is counted in the step in which it happens and leaves the sum only when the whole step is older than the window,
so a sum never misses a use that is within the window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """A window and its steps."""

    window_s: int
    step_s: int

    def step_of(self, now: float) -> int:
        """The number of the step that `now` lies in."""
        return math.floor(now / self.step_s)


MINUTE = Span(60, 5)
DAY = Span(86_400, 3_600)


@dataclass(slots=True)
class Window:
    """Uses by step."""

    span: Span
    steps: dict[int, int] = field(default_factory=dict)

    def add(self, amount: int, now: float) -> None:
        """Count a use; a negative amount gives back what was counted in the same step."""
        step = self.span.step_of(now)
        self.steps[step] = self.steps.get(step, 0) + amount

    def used(self, now: float) -> int:
        """The sum over the window that ends now."""
        return sum(amount for step, amount in self.steps.items() if self._counts(step, now))

    def wait_s(self, wanted: int, limit: int, now: float) -> float:
        """Seconds until `wanted` more fit under `limit`, if nothing else is used; 0 where they fit now."""
        left = self.used(now) + wanted - limit
        for step in sorted(step for step in self.steps if self._counts(step, now)):
            if left <= 0:
                break
            left -= self.steps[step]
            until = (step + 1) * self.span.step_s + self.span.window_s - now
            if left <= 0:
                return max(0.0, until)
        return 0.0 if left <= 0 else float(self.span.window_s)

    def empty_in_s(self, now: float) -> float:
        """Seconds until nothing is counted any more."""
        live = [step for step, amount in self.steps.items() if amount and self._counts(step, now)]
        return max(0.0, (max(live) + 1) * self.span.step_s + self.span.window_s - now) if live else 0.0

    def forget(self, now: float) -> None:
        """Drop what no longer counts."""
        self.steps = {step: amount for step, amount in self.steps.items() if amount and self._counts(step, now)}

    def _counts(self, step: int, now: float) -> bool:
        # A step far in the future was counted by a clock that has been set back since: it would never leave.
        return (
            self.span.step_of(now - self.span.window_s)
            <= step
            <= self.span.step_of(now) + self.span.window_s // self.span.step_s
        )

    def written(self) -> dict[str, int]:
        """As JSON holds it."""
        return {str(step): amount for step, amount in self.steps.items()}

    @classmethod
    def read(cls, span: Span, written: Mapping[str, int]) -> Window:
        """The inverse of `written`."""
        return cls(span, {int(step): int(amount) for step, amount in written.items()})
