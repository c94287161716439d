"""How tokens are chosen and when they end: one frozen record, checked once at the door.

Text-level wishes (stop strings, constraints as source text) stay here as text; the runtime turns
them into ids and matchers before the engine sees them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llamakit.core.errors import InvalidRequest

MAX_CHOICES = 128
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 1024
MAX_LOGPROBS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """What the output must match, as source text; compiled outside the step loop."""

    kind: Literal["json_object", "json_schema", "regex", "grammar", "choice"]
    source: str = ""
    """JSON Schema text, a regular expression, a Lark grammar, or a JSON array of strings for `choice`."""


def _number(name: str, value: object, low: float, high: float, *, low_open: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"{name} must be a finite number, got {value!r}", param=name)
    if not (low < value if low_open else low <= value) or value > high:
        raise InvalidRequest(f"{name} must be in {'(' if low_open else '['}{low}, {high}], got {value!r}", param=name)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name} must be an integer, got {value!r}", param=name)
    if not low <= value <= high:
        raise InvalidRequest(f"{name} must be in [{low}, {high}], got {value!r}", param=name)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """Everything that decides the next token and the end. Defaults sample the plain distribution."""

    max_tokens: int | None = None
    """Most tokens to generate a choice; None fills the context."""
    min_tokens: int = 0
    """No stop id, stop string or end of text before this many tokens."""
    temperature: float = 1.0
    """0 is greedy: the most likely token, the lowest id on a tie."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose mass reaches p."""
    min_p: float = 0.0
    """Drop tokens less likely than min_p times the most likely one."""
    typical_p: float = 1.0
    """Locally typical sampling (Meister et al., 2022): mass kept, nearest the entropy first."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen in prompt or output (CTRL, 2019)."""
    presence_penalty: float = 0.0
    """Subtracted once from logits of tokens already generated."""
    frequency_penalty: float = 0.0
    """Subtracted per occurrence from logits of tokens already generated."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these ids; -100 and below bans."""
    seed: int | None = None
    """Fixes the random stream of the request; choice i of n uses (seed, i)."""
    n: int = 1
    """Answers to return."""
    best_of: int | None = None
    """Answers to generate; the n with the highest mean logprob are returned."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; not part of it unless `include_stop`."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the answer, beside the model's own."""
    include_stop: bool = False
    ignore_eos: bool = False
    """Go on past the model's own end tokens."""
    logprobs: int | None = None
    """Return the logprob of each token and of this many alternatives (0: the token's own)."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, 0, 2**31 - 1)
        _integer("min_tokens", self.min_tokens, 0, 2**31 - 1)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens {self.min_tokens} exceeds max_tokens {self.max_tokens}", param="min_tokens"
            )
        _number("temperature", self.temperature, 0.0, 100.0)
        _integer("top_k", self.top_k, 0, 2**31 - 1)
        _number("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("typical_p", self.typical_p, 0.0, 1.0, low_open=True)
        _number("repetition_penalty", self.repetition_penalty, 0.0, 100.0, low_open=True)
        _number("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _number("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        for token, bias in self.logit_bias.items():
            _integer("logit_bias", token, 0, 2**31 - 1)
            _number("logit_bias", bias, -1e6, 1e6)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1)
        _integer("n", self.n, 1, MAX_CHOICES)
        if self.best_of is not None:
            _integer("best_of", self.best_of, self.n, MAX_CHOICES)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(f"stop takes at most {MAX_STOP_STRINGS} strings, got {len(self.stop)}", param="stop")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_CHARS:
                raise InvalidRequest(f"stop strings must have 1 to {MAX_STOP_CHARS} characters", param="stop")
        for token in self.stop_ids:
            _integer("stop_token_ids", token, 0, 2**31 - 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.prompt_logprobs is not None:
            _integer("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0
