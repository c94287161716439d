"""Putting ranked lists together: by rank, or by weighted scores. Pure arithmetic over ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llamakit.core.errors import InvalidRequest
from llamakit.rag.vector.store import Hit

Mode = Literal["vector", "keyword", "hybrid"]

MODES: tuple[Mode, ...] = ("vector", "keyword", "hybrid")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """How the two lists of a hybrid search become one."""

    kind: Literal["rrf", "weighted"] = "rrf"
    impact: float = 60.0
    """Reciprocal rank fusion: a hit of rank r counts 1 / (impact + r) (Cormack et al., 2009)."""
    alpha: float = 0.5
    """Weighted: the share of the vector score; the rest is the keyword score."""

    def __post_init__(self) -> None:
        if self.kind not in ("rrf", "weighted"):
            raise InvalidRequest(f"ranker is rrf or weighted, got {self.kind!r}", param="ranking_options")
        if not 0 < self.impact <= 1e6:
            raise InvalidRequest(f"impact_factor must be in (0, 1e6], got {self.impact}", param="ranking_options")
        if not 0 <= self.alpha <= 1:
            raise InvalidRequest(f"alpha must be in [0, 1], got {self.alpha}", param="ranking_options")


def fuse(vector: Sequence[Hit], keyword: Sequence[Hit], fusion: Fusion) -> list[Hit]:
    """One list, best first, with scores in [0, 1]; equal scores keep the order of the vector list."""
    if fusion.kind == "rrf":
        # Scaled so that the first of both lists scores 1.
        scale = (fusion.impact + 1) / 2
        parts = [{hit.id: scale / (fusion.impact + rank) for rank, hit in enumerate(hits, 1)}
                 for hits in (vector, keyword)]  # fmt: skip
    else:
        parts = [_weighed(vector, fusion.alpha), _weighed(keyword, 1 - fusion.alpha)]
    total: dict[str, float] = {}
    for part in parts:
        for id, score in part.items():
            total[id] = total.get(id, 0.0) + score
    return [Hit(id, score) for id, score in sorted(total.items(), key=lambda item: -item[1])]


def _weighed(hits: Sequence[Hit], weight: float) -> Mapping[str, float]:
    """Scores between 0 (the worst of the list) and the weight (the best)."""
    scaled = spread(hits)
    return {hit.id: weight * hit.score for hit in scaled}


def spread(hits: Sequence[Hit]) -> list[Hit]:
    """The hits with their scores spread over [0, 1]; where all are equal, all are 1."""
    if not hits:
        return []
    low, high = min(hit.score for hit in hits), max(hit.score for hit in hits)
    return [Hit(hit.id, (hit.score - low) / (high - low) if high > low else 1.0) for hit in hits]
