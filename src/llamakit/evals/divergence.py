"""How far one model's predictions are from another's on the same text: divergence, agreement, perplexity.

Knows log-probabilities and where they are wanted. Does not know tensors, files of weights, or how a model was made
smaller: a model is a callable. All sums are in float64.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llamakit.core.errors import ConfigError

_CHUNK_VALUES = 1 << 22
"""Log-probabilities compared at once: 32 MiB in float64."""

Progress = Callable[[int, int], None]
"""Called with windows done and their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A text that a model reads at once, and the places whose next token is scored."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    """Indices of `ids`, rising, each before the last."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.places, self.places[1:], strict=False))
        if self.places and not (rising and self.places[0] >= 0 and self.places[-1] < len(self.ids) - 1):
            raise ValueError(f"places must rise inside 0 .. {len(self.ids) - 2}")


class LogProbs(Protocol):
    """A model that says how likely every token is."""

    def __call__(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32]:
        """Natural logarithms `[places, vocabulary]` of the probabilities of the token after each place."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """What was measured; divergences in nats a token."""

    tokens: int
    perplexity: float
    reference_perplexity: float
    kl: float
    """Mean Kullback-Leibler divergence of the model from the reference."""
    kl_error: float
    """Standard error of that mean."""
    kl_median: float
    kl_p99: float
    kl_max: float
    agreement: float
    """Share of places where both find the same token the likeliest."""
    probability_rms: float
    """Root mean square of what the probability of the text's own token changes by."""


class Reference:
    """The predictions that others are compared with, kept in a temporary file until closed."""

    def __init__(self, windows: Sequence[Window], model: LogProbs, *, progress: Progress | None = None) -> None:
        self.windows = [window for window in windows if window.places]
        if not self.windows:
            raise ConfigError("there is nothing to score in this text; name a longer one")
        self._folder = tempfile.TemporaryDirectory(prefix="llamakit-eval-")
        self._kept: list[NDArray[np.float32]] = []
        try:
            for done, window in enumerate(self.windows, 1):
                self._keep(model(window.ids, window.places), len(window.places))
                if progress is not None:
                    progress(done, len(self.windows))
        except BaseException:
            self.close()
            raise

    def _keep(self, found: NDArray[np.float32], count: int) -> None:
        if found.ndim != 2 or len(found) != count or (self._kept and found.shape[1] != self._kept[0].shape[1]):
            raise ValueError(f"a model gave log-probabilities of shape {found.shape} for {count} places")
        path = Path(self._folder.name) / f"{len(self._kept)}.npy"
        np.save(path, found.astype(np.float32, copy=False))
        self._kept.append(np.load(path, mmap_mode="r"))

    def compare(self, model: LogProbs, *, progress: Progress | None = None) -> Divergence:
        """Measure a model; ConfigError when it has another vocabulary."""
        parts = []
        for done, (window, kept) in enumerate(zip(self.windows, self._kept, strict=True), 1):
            found = model(window.ids, window.places)
            if found.shape != kept.shape:
                raise ConfigError(
                    f"the models have vocabularies of {kept.shape[1]} and {found.shape[1]} tokens; "
                    "only predictions over the same tokens can be compared"
                )
            parts.append(_compare(window, kept, found))
            if progress is not None:
                progress(done, len(self.windows))
        return _summary(np.concatenate(parts, axis=1))

    def close(self) -> None:
        """Remove the file."""
        self._kept.clear()
        self._folder.cleanup()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _compare(window: Window, kept: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows: divergence, log-probability of the text's token for the reference and the model, agreement."""
    out = np.empty((4, len(kept)))
    tokens = np.array([window.ids[place + 1] for place in window.places])
    step = max(1, _CHUNK_VALUES // kept.shape[1])
    for start in range(0, len(kept), step):
        run = slice(start, start + step)
        p, q = (side[run].astype(np.float64) for side in (kept, found))
        at = np.arange(len(p)), tokens[run]
        # Where the reference gives nothing, nothing is lost; rounding may leave a sum a hair below zero.
        with np.errstate(invalid="ignore"):
            terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
        out[0, run] = np.maximum(terms.sum(1), 0.0)
        out[1, run], out[2, run] = p[at], q[at]
        out[3, run] = p.argmax(1) == q.argmax(1)
    return out


def _summary(parts: NDArray[np.float64]) -> Divergence:
    kl, ours, theirs, same = parts
    count = len(kl)
    return Divergence(
        tokens=count,
        perplexity=math.exp(-theirs.mean()),
        reference_perplexity=math.exp(-ours.mean()),
        kl=float(kl.mean()),
        kl_error=float(kl.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0,
        kl_median=float(np.median(kl)),
        kl_p99=float(np.quantile(kl, 0.99)),
        kl_max=float(kl.max()),
        agreement=float(same.mean()),
        probability_rms=float(np.sqrt(np.square(np.exp(theirs) - np.exp(ours)).mean())),
    )
