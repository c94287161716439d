"""Settings of the engine; touches neither memory nor device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llamakit.core.errors import ConfigError

_BLOCK_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Block sizes that the attention kernels take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeculationConfig:
    """Proposing tokens cheaply and verifying them in one step; never changes which tokens come out."""

    max_tokens: int = 6
    """Most tokens proposed for a sequence in one step; 0 switches speculation off."""
    max_ngram: int = 4
    """Longest run of last tokens looked up in the sequence itself when there is no draft model."""
    min_ngram: int = 2
    """Shortest such run."""
    adaptive: bool = True
    """Propose as many tokens as measured acceptance and load make worthwhile, perhaps none; False: always the most."""
    row_cost: float = 0.03
    """What one more token in a step costs, as a share of a step with none (reading the weights), until the engine
    has measured it."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_tokens <= 64:
            raise ConfigError(f"speculation max_tokens must be in [0, 64], got {self.max_tokens}")
        if not 1 <= self.min_ngram <= self.max_ngram <= 16:
            raise ConfigError(
                f"speculation wants 1 <= min_ngram <= max_ngram <= 16, got {self.min_ngram} and {self.max_ngram}"
            )
        if not 0 <= self.row_cost <= 1:
            raise ConfigError(f"row_cost must be in [0, 1], got {self.row_cost!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How much the engine holds and how much it does in one step."""

    block_tokens: int = 16
    """Tokens per cache block."""
    max_batch_tokens: int = 512
    """Token budget of one step."""
    prefill_chunk: int = 128
    """Most prompt tokens of a step in which other sequences decode: bounds how long they wait for their token."""
    max_sequences: int = 64
    """Sequences that run at once; a choice of n is one sequence."""
    max_waiting: int = 1024
    """Sequences that may wait for a place; requests beyond are refused."""
    max_context: int | None = None
    """Most tokens of a sequence, prompt and answer; None takes the model's context or what the cache holds."""
    cache_bytes: int | None = None
    """Bytes of keys and values (the draft model's included); None holds four full contexts."""
    kv: Literal["auto", "int8"] = "auto"
    """How keys and values are kept: auto in the model's dtype, int8 in a byte each with a scale for each head."""
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)

    def __post_init__(self) -> None:
        if self.block_tokens not in _BLOCK_TOKENS:
            raise ConfigError(f"block_tokens must be one of {_BLOCK_TOKENS}, got {self.block_tokens}")
        for name in ("max_batch_tokens", "prefill_chunk", "max_sequences", "max_waiting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_batch_tokens < self.max_sequences:
            raise ConfigError(
                f"max_batch_tokens {self.max_batch_tokens} is below max_sequences {self.max_sequences}: "
                "every running sequence needs a token a step"
            )
        if self.max_context is not None and self.max_context < 2:
            raise ConfigError(f"max_context must be at least 2, got {self.max_context}")
        if self.cache_bytes is not None and self.cache_bytes < 1:
            raise ConfigError(f"cache_bytes must be positive, got {self.cache_bytes}")
