"""The engine's counters, as a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """Where the engine stands, and what it has done since it was made."""

    running: int
    """Sequences that hold blocks."""
    waiting: int
    """Sequences that wait for a place."""
    blocks_total: int
    blocks_used: int
    blocks_cached: int
    """Blocks that hold a cached prefix and nobody uses now."""
    steps: int
    prompt_tokens: int
    """Prompt tokens of accepted requests."""
    generated_tokens: int
    prefix_queries: int
    """Tokens looked up in the prefix cache."""
    prefix_hits: int
    """Tokens found there."""
    preemptions: int
    drafted_tokens: int
    accepted_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)
