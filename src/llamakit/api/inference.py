"""The inference API inside the house: requests after translation, and the Protocol every provider fulfils.

Knows messages, tools and sampling. Does not know JSON, HTTP, or how an answer comes about. Generation is a
stream of `AnswerEvent`; closing the stream (`aclose`, or cancelling the task that reads it) stops the work.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llamakit.core.config import Duration
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import AnswerEvent, Message, ToolSpec

AnswerStream = AsyncGenerator[AnswerEvent, None]
"""Events of one answer, in order, `Done` last; an error is raised, never an event."""

Sampling = Mapping[str, Any]
"""The fields of `core.sampling.SamplingParams` that were asked for, checked; others are the model's defaults."""

MAX_KEEP_ALIVE_S = 10 * 365 * 86_400.0
MAX_PRIORITY = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolChoice:
    """Whether the model must call a tool, and which."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    """The tool to call; only with mode `named`."""

    def __post_init__(self) -> None:
        if (self.mode == "named") != (self.name is not None):
            raise ConfigError(f"a tool name goes with mode 'named' and only with it, got {self!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestContext:
    """What a request carries besides its question."""

    id: str
    """Unique among the requests of this process; names the work in logs."""
    salt: str = ""
    """Requests share cached prefixes only within one salt; a tenant's secret."""
    priority: int = 0
    """Lower goes first."""
    keep_alive: Duration | None = None
    """How long the model stays loaded afterwards; None leaves it to the provider, below zero is for ever."""
    wants_progress: bool = False
    """Whether `PrefillProgress` events are wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """A conversation that wants its next message."""

    model: str
    messages: tuple[Message, ...]
    context: RequestContext
    sampling: Sampling = field(default_factory=dict)
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    """False: at most one tool call an answer."""
    add_generation_prompt: bool = True
    """Open the assistant's turn after the last message."""
    continue_final_message: bool = False
    """Go on writing the last message, which is the assistant's, instead of opening a turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionRequest:
    """A text or token ids that want to be continued, without any chat format."""

    model: str
    prompt: str | tuple[int, ...]
    """Text that merely spells a special token is plain text; ids are taken as they are."""
    context: RequestContext
    sampling: Sampling = field(default_factory=dict)
    suffix: str | None = None
    """Text that follows the gap: the answer fills in between `prompt`, which is then text, and this."""
    add_special_tokens: bool = True
    """Begin a text prompt with the model's beginning-of-text token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRequest:
    """Texts or token ids that want vectors."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    context: RequestContext
    dimensions: int | None = None
    """Length of the vectors, where the model can shorten them; None is the model's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """One float32 vector (`array('f')`) per input, in order."""

    vectors: tuple[array[float], ...]
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeRequest:
    """A text, or a conversation rendered in the model's format, that wants token ids."""

    model: str
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    parse_special: bool = False
    """Take spelled special tokens of `prompt` as such; by default they are plain text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Token ids and the text of each, special tokens by name."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """What a client must know to work with the token ids of a model."""

    model: str
    kind: str
    vocab_size: int
    context_length: int
    bos: tuple[int, str] | None
    """Id and name of the token a text begins with."""
    eos: tuple[tuple[int, str], ...]
    """Ids and names of the tokens that end an answer, the usual one first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model that can be asked for."""

    name: str
    created: int = 0
    """Unix time of the files, 0 when unknown."""
    owned_by: str = "llamakit"
    context_length: int | None = None
    """Tokens of prompt and answer together; None until the model was looked at."""
    kind: Literal["llm", "embedding"] = "llm"
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Facts worth showing: family, parameters, quantization, licence."""
    provider_id: str = ""
    """Who answers for it, where there are several to tell apart."""
    provider_name: str = ""
    """Its name there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model that occupies memory now."""

    name: str
    memory_bytes: int
    """Weights and cache together."""
    context_length: int
    device: str
    expires_in_s: float = math.inf
    """Seconds until it unloads when nobody asks; infinite when it stays."""
    running: int = 0
    """Requests in work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStats:
    """Counters and gauges of one loaded model's engine; counters never fall while the process lives."""

    model: str
    running: int = 0
    waiting: int = 0
    cache_usage: float = 0.0
    """Share of the cache blocks in use, 0 to 1."""
    prefix_queries: int = 0
    """Prompt tokens looked up in the prefix cache."""
    prefix_hits: int = 0
    """Prompt tokens found there."""
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether requests can be taken."""

    ready: bool
    detail: str = ""
    """Why not, when not."""


class Inference(Protocol):
    """A provider of models. Errors are those of `core.errors`; a model nobody knows is `UnknownModel`."""

    def chat(self, request: ChatRequest) -> AnswerStream:
        """Answer a conversation. Nothing happens before the first event is asked for."""
        ...

    def complete(self, request: CompletionRequest) -> AnswerStream:
        """Continue a text. Nothing happens before the first event is asked for."""
        ...

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors of the inputs; `InvalidRequest` where the model gives none."""
        ...

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Token ids of a text or a rendered conversation; loads no weights where that can be helped."""
        ...

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Text of ids, special tokens by name; an id outside the vocabulary is `InvalidRequest`."""
        ...

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Facts about a model's tokenizer."""
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """The models that can be asked for, loaded or not."""
        ...

    async def model(self, name: str) -> ModelInfo:
        """One of them; raises `UnknownModel`."""
        ...

    async def loaded(self) -> Sequence[LoadedModel]:
        """The models in memory now."""
        ...

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Bring a model into memory, or renew its stay there."""
        ...

    async def unload(self, model: str) -> bool:
        """Let a model go once its requests ended; whether it was in memory."""
        ...

    def stats(self) -> Sequence[ModelStats]:
        """Counters of every loaded model; cheap, and never blocks."""
        ...

    async def health(self) -> Health:
        """Whether requests can be taken."""
        ...

    async def aclose(self) -> None:
        """End all work and free all memory; streams still open raise `EngineStopped`. A second call does nothing."""
        ...


def read_keep_alive(value: str | float | int, *, param: str = "keep_alive") -> Duration:
    """Seconds as a number, or text such as `5m`; below zero is for ever. Raises `InvalidRequest`."""
    try:
        duration = Duration.parse(value) if isinstance(value, str) else Duration(value)
    except (ConfigError, OverflowError) as fault:
        raise InvalidRequest(f"{param}: {fault}", param=param) from None
    if not duration <= MAX_KEEP_ALIVE_S:  # also refuses NaN
        raise InvalidRequest(f"{param} must be at most ten years; a negative number is for ever", param=param)
    return duration
