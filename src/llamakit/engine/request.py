"""What the engine is asked and what it answers: a `Request`, and the events it causes.

Everything is token ids. Text-level wishes come in as callables: `matcher` makes the walker of a
compiled constraint, `stopper` watches for stop strings. The engine calls them and does not look inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from llamakit.core.errors import InvalidRequest, LlamakitError
from llamakit.core.messages import FinishReason, Timings, Usage
from llamakit.core.sampling import SamplingParams

TopTokens = tuple[tuple[int, float], ...]
"""Ids and logprobs of the most likely tokens at a position, most likely first, the lower id first on a tie."""

TokenScore = tuple[int, float, TopTokens]
"""A token, its logprob, and the alternatives at its position."""


class Matcher(Protocol):
    """Walks along one choice and says which tokens may come next; raises `LlamakitError` when it cannot go on."""

    def mask(self) -> np.ndarray:
        """Allowed ids as booleans `[n]`; ids from n on are not allowed."""
        ...

    def advance(self, token: int) -> None:
        """Take the next token of the choice."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Undo the last `num_tokens` calls of `advance`."""
        ...

    def count_valid(self, ids: Sequence[int]) -> int:
        """How many of `ids`, from the first on, could follow; changes nothing."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end can follow."""
        ...


Stopper = Callable[[int], str | None]
"""Takes each token of a choice in turn; answers with the stop string that the token completed, if one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A prompt to continue."""

    id: str
    prompt_ids: Sequence[int]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    """The model's own end tokens; `sampling.stop_ids` come on top and also hold under `ignore_eos`."""
    priority: int = 0
    """Lower runs first."""
    salt: bytes = b""
    """Cached prefixes are shared between requests of equal salt only."""
    matcher: Callable[[], Matcher] | None = None
    """Makes the constraint's walker of one choice."""
    stopper: Callable[[], Stopper] | None = None
    """Makes the stop-string watcher of one choice; without it the caller watches and calls `Engine.finish`."""

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0:
            raise InvalidRequest("the prompt is empty; give at least one token", param="prompt")
        if self.sampling.constraint is not None and self.matcher is None:
            raise InvalidRequest("a constrained request needs its compiled matcher", param="response_format")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillEvent:
    """A step computed part of the prompt and more is to come."""

    is_last: ClassVar[bool] = False
    request_id: str
    done: int
    total: int
    cached: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptEvent:
    """The prompt's own scores, before the first token; one entry a prompt token, None for the first."""

    is_last: ClassVar[bool] = False
    request_id: str
    logprobs: tuple[TokenScore | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEvent:
    """A choice got a token. The model's end tokens make no such event; they count in the usage."""

    is_last: ClassVar[bool] = False
    request_id: str
    choice: int
    token: int
    logprob: float | None = None
    """Natural log of the model's own probability: float32 log-softmax of the raw logits, before bias, penalties,
    temperature or constraint. None unless asked for."""
    top: TopTokens = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EndEvent:
    """A choice ended."""

    is_last: ClassVar[bool] = False
    request_id: str
    choice: int
    reason: FinishReason
    stop: str | int | None = None
    """The stop id or stop string that ended it, if one did."""
    score: TokenScore | None = None
    """The end token's own, where logprobs are wanted and it made no `TokenEvent`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestEnd:
    """Every choice ended. Completion tokens count all choices, losers of `best_of` and end tokens included."""

    is_last: ClassVar[bool] = True
    request_id: str
    usage: Usage
    timings: Timings


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorEvent:
    """The request failed, alone; nothing follows."""

    is_last: ClassVar[bool] = True
    request_id: str
    error: LlamakitError


EngineEvent = PrefillEvent | PromptEvent | TokenEvent | EndEvent | RequestEnd | ErrorEvent
