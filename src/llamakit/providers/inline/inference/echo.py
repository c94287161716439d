"""The inference provider without a model: it says back what it is told, a character at a time.

It honours every field of a request the way an engine does (length, stops, choices, logprobs, constraints,
tools, cached prefixes per salt), and is deterministic, so that clients, routes and streams can be tested
without weights. Its tokens are bytes. It calls a tool when it must, or when the last message names one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from typing import Any

from llamakit.api.inference import (
    AnswerStream,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    Health,
    LoadedModel,
    ModelInfo,
    ModelStats,
    RequestContext,
    TokenizeRequest,
    TokenizerInfo,
    Tokens,
)
from llamakit.core.config import FIVE_MINUTES, Duration, nearest
from llamakit.core.errors import ConfigError, EngineStopped, InvalidRequest, PromptTooLong, UnknownModel
from llamakit.core.messages import (
    AnswerEvent,
    Done,
    PrefillProgress,
    Timings,
    Usage,
)
from llamakit.core.sampling import SamplingParams
from llamakit.providers.inline.inference.echo_text import (
    BOS,
    EOS,
    EOT,
    SPECIALS,
    Reply,
    constrained,
    cost,
    cut,
    decode,
    logprob_of,
    prompt_logprobs_of,
    render,
    rounds,
    tools_to_call,
    vector_of,
)

CACHED_PROMPTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EchoConfig:
    """Settings of the echo provider."""

    models: tuple[str, ...] = ("echo",)
    """Names it answers to."""
    context_length: int = 32_768
    """Tokens of prompt and answer together."""
    delay_s: float = 0.0
    """Seconds between characters."""
    dimensions: int = 32
    """Length of its embeddings."""
    keep_alive: Duration = FIVE_MINUTES
    """How long a model counts as loaded."""

    def __post_init__(self) -> None:
        if not self.models or self.context_length < 1 or self.dimensions < 1 or not self.delay_s >= 0:
            raise ConfigError(f"the echo provider wants a model, positive sizes and no negative delay, got {self!r}")


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> EchoInference:
    """The provider from its settings; raises `ConfigError` for one that is unknown."""
    known = [field.name for field in fields(EchoConfig)]
    for key in config:
        if key not in known:
            raise ConfigError(f"the echo provider has no setting {key!r}{nearest(key, known)}")
    models, keep_alive = tuple(config.get("models") or ("echo",)), Duration.read(config.get("keep_alive", FIVE_MINUTES))
    return EchoInference(EchoConfig(**{**config, "models": models, "keep_alive": keep_alive}))


class EchoInference:
    """Fulfils `Inference`. The counters tell a test what became of every request."""

    def __init__(self, config: EchoConfig | None = None) -> None:
        self.config = config or EchoConfig()
        self.running: set[str] = set()
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.contexts: list[RequestContext] = []
        self._loaded: dict[str, Duration] = dict.fromkeys(self.config.models, self.config.keep_alive)
        self._prompts: OrderedDict[tuple[str, str], tuple[int, ...]] = OrderedDict()
        self._queries = self._hits = 0
        self._is_closed = False

    async def chat(self, request: ChatRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Say the last message back, or call the tools it names."""
        self._check(request.model)
        sampling = SamplingParams(**request.sampling)
        calls = tools_to_call(request)
        text = "" if calls else constrained(sampling.constraint, request.messages[-1].text)
        prompt = render(request.messages, request.tools, opens=request.add_generation_prompt)
        async with aclosing(self._answer(request.model, request.context, sampling, prompt, text, calls)) as events:
            async for event in events:
                yield event

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Say the prompt back; between a prompt and a suffix, say the suffix."""
        self._check(request.model)
        sampling = SamplingParams(**request.sampling)
        prompt = self._ids(request.prompt, begins=request.add_special_tokens)
        text = decode(prompt[1:] if prompt[:1] == (BOS,) else prompt)
        wanted = constrained(sampling.constraint, text if request.suffix is None else request.suffix)
        async with aclosing(self._answer(request.model, request.context, sampling, prompt, wanted, ())) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """A vector of unit length that depends on the bytes alone."""
        self._check(request.model)
        size = request.dimensions or self.config.dimensions
        if size > self.config.dimensions:
            raise InvalidRequest(f"dimensions must be at most {self.config.dimensions}, got {size}", param="dimensions")
        prompts = [self._ids(item, begins=False) for item in request.inputs]
        return Embeddings(
            vectors=tuple(vector_of(ids, size) for ids in prompts), prompt_tokens=sum(len(ids) for ids in prompts)
        )

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Bytes, and the special tokens where the format puts them."""
        self._check(request.model)
        if request.prompt is None:
            ids = render(request.messages, request.tools, opens=request.add_generation_prompt)
        elif request.parse_special and request.prompt in SPECIALS.values():
            ids = (next(token for token, name in SPECIALS.items() if name == request.prompt),)
        else:
            ids = self._ids(request.prompt, begins=request.add_special_tokens)
        return Tokens(ids=ids, texts=tuple(logprob_of(token, 0).token for token in ids))

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """The bytes as text, special tokens by name."""
        self._check(model)
        self._ids(tuple(ids), begins=False)
        return decode(ids, names=True)

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """A vocabulary of bytes."""
        self._check(model)
        return TokenizerInfo(
            model=model,
            kind="bytes",
            vocab_size=256 + len(SPECIALS),
            context_length=self.config.context_length,
            bos=(BOS, SPECIALS[BOS]),
            eos=((EOT, SPECIALS[EOT]), (EOS, SPECIALS[EOS])),
        )

    async def models(self) -> Sequence[ModelInfo]:
        """The configured names."""
        return [self._info(name) for name in self.config.models]

    async def model(self, name: str) -> ModelInfo:
        """One of them; raises `UnknownModel`."""
        self._check(name)
        return self._info(name)

    async def loaded(self) -> Sequence[LoadedModel]:
        """The names that were not unloaded."""
        return [self._in_memory(name) for name in self._loaded]

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Count the name as loaded."""
        self._check(model)
        self._loaded[model] = self.config.keep_alive if keep_alive is None else keep_alive
        return self._in_memory(model)

    async def unload(self, model: str) -> bool:
        """Count the name as not loaded."""
        self._check(model)
        return self._loaded.pop(model, None) is not None

    def stats(self) -> Sequence[ModelStats]:
        """Requests running, and prefix hits, all under the first name."""
        name = self.config.models[0]
        return [ModelStats(model=name, running=len(self.running), prefix_queries=self._queries, prefix_hits=self._hits)]

    async def health(self) -> Health:
        """Ready until closed."""
        return Health(ready=not self._is_closed, detail="closed" if self._is_closed else "")

    async def aclose(self) -> None:
        """Streams still open raise `EngineStopped` at their next event."""
        self._is_closed = True

    async def _answer(
        self,
        model: str,
        context: RequestContext,
        sampling: SamplingParams,
        prompt: tuple[int, ...],
        text: str,
        calls: tuple[tuple[str, str], ...],
    ) -> AnswerStream:
        room = self.config.context_length - len(prompt)
        wanted = 1 if sampling.max_tokens is None else sampling.max_tokens
        if room < wanted:
            fits = room > 0 and sampling.max_tokens is not None
            raise PromptTooLong(
                f"prompt has {len(prompt)} tokens and {wanted} are wanted, model {model!r} holds "
                f"{self.config.context_length}; shorten the prompt or max_tokens",
                param="max_tokens" if fits else "messages",
            )
        cached = self._cached(model, context.salt, prompt)
        reply = Reply(ids=b"", reason="tool_calls", calls=calls) if calls else cut(text, sampling, room)
        self.contexts.append(context)
        self.running.add(context.id)
        try:
            if context.wants_progress:
                yield PrefillProgress(done=(len(prompt) + cached) // 2, total=len(prompt), cached=cached)
                yield PrefillProgress(done=len(prompt), total=len(prompt), cached=cached)
            for events in rounds(reply, sampling, context.id):
                await asyncio.sleep(self.config.delay_s)
                if self._is_closed:
                    raise EngineStopped("the echo provider was closed while the request ran")
                for event in events:
                    yield event
            yield Done(
                usage=Usage(
                    prompt_tokens=len(prompt), cached_tokens=cached, completion_tokens=cost(reply) * sampling.n
                ),
                timings=Timings(queue_s=0.0, prefill_s=len(prompt) * 1e-6, decode_s=cost(reply) * 1e-5),
                prompt_logprobs=prompt_logprobs_of(prompt, sampling.prompt_logprobs),
            )
            self.finished.append(context.id)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(context.id)
            raise
        finally:
            self.running.discard(context.id)

    def _cached(self, model: str, salt: str, prompt: tuple[int, ...]) -> int:
        """Tokens shared with the last prompt of the same model and salt; the last token is always computed."""
        last = self._prompts.pop((model, salt), ())
        self._prompts[model, salt] = prompt
        while len(self._prompts) > CACHED_PROMPTS:
            self._prompts.popitem(last=False)
        shared = next((at for at, (old, new) in enumerate(zip(last, prompt, strict=False)) if old != new), None)
        shared = min(len(last), len(prompt)) if shared is None else shared
        shared = max(0, min(shared, len(prompt) - 1))
        self._queries += len(prompt)
        self._hits += shared
        return shared

    def _ids(self, prompt: str | tuple[int, ...], *, begins: bool) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return ((BOS,) if begins else ()) + tuple(prompt.encode())
        for token in prompt:
            if token >= 256 + len(SPECIALS):
                raise InvalidRequest(
                    f"token id {token} is outside the vocabulary of {256 + len(SPECIALS)}", param="prompt"
                )
        return prompt

    def _check(self, model: str) -> None:
        if self._is_closed:
            raise EngineStopped("the echo provider is closed")
        if model not in self.config.models:
            hint = nearest(model, self.config.models)
            raise UnknownModel(f"no model {model!r}{hint}; get it with `llama pull {model}`", name=model)

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(name=name, context_length=self.config.context_length, details={"family": "echo"})

    def _in_memory(self, name: str) -> LoadedModel:
        stay = self._loaded[name]
        return LoadedModel(
            name=name,
            memory_bytes=0,
            context_length=self.config.context_length,
            device="none",
            expires_in_s=float("inf") if stay < 0 else float(stay),
            running=len(self.running),
        )
