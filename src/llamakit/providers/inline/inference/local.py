"""The inference provider that computes here: the runtime's models behind the inference Protocol.

Turns requests into the runtime's asks and passes its events through. What a client may name is a model, by
any name the hub knows; a path on this machine is served only where whoever runs the server named it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from llamakit.api.inference import (
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
    ToolChoice,
)
from llamakit.core.config import FIVE_MINUTES, Duration, data_home, nearest
from llamakit.core.errors import ConfigError, InvalidRequest, UnknownModel
from llamakit.core.messages import AnswerEvent
from llamakit.hub.cache import hub_cache
from llamakit.hub.locate import Located, present, resolve_model
from llamakit.providers.inline.inference.facts import FactBook
from llamakit.providers.inline.inference.texts import TextBook
from llamakit.runtime import ask as asking
from llamakit.runtime.ask import Ask
from llamakit.runtime.llm import LLM
from llamakit.runtime.opening import LoadOptions
from llamakit.runtime.pool import Loaded, ModelPool, PoolConfig
from llamakit.runtime.prompting import Prompter
from llamakit.text.formats.format import FormatOptions

MAX_KNOWN_NAMES = 1024
"""Spellings remembered with what they mean; beyond that they are looked up each time."""


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> LocalInference:
    """The provider from its settings: models, keep_alive, max_loaded, and the fields of `LoadOptions`."""
    loading = {field.name for field in dataclasses.fields(LoadOptions)}
    known = {"models", "keep_alive", "max_loaded", *loading}
    for key in config:
        if key not in known:
            raise ConfigError(f"the local provider has no setting {key!r}{nearest(key, sorted(known))}")
    for key, kind in (get_type_hints(LoadOptions) | {"max_loaded": int}).items():
        if key in config:
            _check(key, config[key], kind)
    return LocalInference(
        models=tuple(config.get("models") or ()),
        options=LoadOptions(**{key: value for key, value in config.items() if key in loading}),
        pool=PoolConfig(
            keep_alive_s=Duration.read(config.get("keep_alive", FIVE_MINUTES)),
            **{key: config[key] for key in ("max_loaded",) if key in config},
        ),
    )


def _check(name: str, value: Any, kind: Any) -> None:
    """Raise `ConfigError` now for what would fail when a model loads."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as fault:
        raise ConfigError(f"{name} of the local provider: {fault.errors()[0]['msg']}, got {value!r}") from None
    if isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise ConfigError(f"{name} of the local provider must be at least 1, got {value}")


class LocalInference:
    """Fulfils `Inference`."""

    def __init__(
        self, *, models: Sequence[str] = (), options: LoadOptions | None = None, pool: PoolConfig | None = None
    ) -> None:
        options = options or LoadOptions()

        def load(key: str) -> LLM:
            return LLM.load(key, options=options, shown=self._shown.get(key), paths=key in self._shown)

        self._pool = ModelPool(load, pool)
        self._facts = FactBook(options.prompt_format)
        self._texts = TextBook(options)
        self._shown = {name: _shown(name) for name in models}
        # A path that was named may be asked for as it was named, and by its last part.
        self._named = {alias: name for name, shown in self._shown.items() for alias in (shown, name)}
        self._known: dict[str, str] = {}
        self._is_closed = False

    async def chat(self, request: ChatRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer a conversation."""
        ask = Ask(
            messages=request.messages,
            tools=request.tools,
            tool_choice=_tool_choice(request.tool_choice),
            parallel_tool_calls=request.parallel_tool_calls,
            options=_options(request),
            sampling=request.sampling,
            progress=request.context.wants_progress,
            priority=request.context.priority,
            salt=request.context.salt.encode(),
        )
        async with aclosing(self._answer(request.model, request.context, ask)) as events:
            async for event in events:
                yield event

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Continue a text or ids, or fill in before a suffix."""
        prompt: str | Sequence[int] = request.prompt
        if isinstance(prompt, str) and request.suffix is None and not request.add_special_tokens:
            prompt = (await self.tokenize(_plain(request.model, prompt))).ids
        ask = Ask(
            prompt=prompt,
            suffix=request.suffix,
            sampling=request.sampling,
            progress=request.context.wants_progress,
            priority=request.context.priority,
            salt=request.context.salt.encode(),
        )
        async with aclosing(self._answer(request.model, request.context, ask)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors of unit length."""
        name = await self._resolve(request.model)
        async with self._pool.lease(name, keep_alive_s=request.context.keep_alive) as llm:
            if request.dimensions not in (None, llm.config.dim):
                raise InvalidRequest(
                    f"dimensions: vectors of {request.model} have {llm.config.dim} and cannot be shortened, "
                    f"got {request.dimensions}",
                    param="dimensions",
                )
            for item in request.inputs:
                if not isinstance(item, str):
                    _check_ids(llm.prompter, item, "input")
            vectors, num_tokens = await asyncio.to_thread(llm.embed, request.inputs)
        return Embeddings(vectors=tuple(vectors), prompt_tokens=num_tokens)

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Token ids of a text, or of a conversation as the model sees it."""
        async with self._text(await self._resolve(request.model)) as prompter:
            ids = await asyncio.to_thread(_encode, prompter, request)
            return Tokens(ids=ids, texts=tuple(prompter.token_text(token) for token in ids))

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Text of ids, special tokens by name."""
        async with self._text(await self._resolve(model)) as prompter:
            _check_ids(prompter, ids, "tokens")
            runs = groupby(ids, prompter.tokenizer.is_special)
            return "".join(
                "".join(map(prompter.token_text, run)) if is_special else prompter.tokenizer.decode(list(run))
                for is_special, run in runs
            )

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Facts about a model's tokenizer; the context of a model that is not loaded is what it would get now."""
        key = await self._resolve(model)
        async with self._text(key) as prompter:
            tokenizer, text = prompter.tokenizer, prompter.token_text
            bos = tokenizer.bos_id
            return TokenizerInfo(
                model=self._shown.get(key, model),
                kind=tokenizer.kind,
                vocab_size=tokenizer.vocab_size,
                context_length=prompter.context,
                bos=None if bos is None else (bos, text(bos)),
                eos=tuple((token, text(token)) for token in tokenizer.eos_ids),
            )

    async def models(self) -> Sequence[ModelInfo]:
        """The models that were named, then every other on this machine."""
        on_disk = await asyncio.to_thread(lambda: list(_on_disk()))
        named = [await self._info(shown) for shown in dict.fromkeys(self._shown.values())]
        seen = {model.name for model in named}
        return [*named, *(model for model in on_disk if model.name not in seen)]

    async def model(self, name: str) -> ModelInfo:
        """One of them, with what its files tell; raises `UnknownModel`."""
        key = await self._resolve(name)
        info = await self._info(name)
        facts = await asyncio.to_thread(self._facts.look_up, key, paths=key in self._shown)
        context = facts.context_length if info.context_length is None else info.context_length
        return dataclasses.replace(info, context_length=context, created=facts.created, details=facts.details)

    async def _info(self, name: str) -> ModelInfo:
        key = await self._resolve(name)
        loaded = next((one for one in self._pool.status() if one.name == key), None)
        return ModelInfo(name=self._shown.get(key, name), context_length=None if loaded is None else loaded.context)

    async def loaded(self) -> Sequence[LoadedModel]:
        """The models in memory now."""
        return [self._in_memory(status, llm) for status, llm in self._statuses()]

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Bring a model into memory, or renew its stay there."""
        name = await self._resolve(model)
        await self._pool.load(name, keep_alive_s=keep_alive)
        for status, llm in self._statuses():
            if status.name == name:
                return self._in_memory(status, llm)
        raise UnknownModel(f"{model} was unloaded at once, as its keep_alive asks", name=model)

    async def unload(self, model: str) -> bool:
        """Let a model go once its requests ended; whether it was in memory."""
        return await self._pool.unload(await self._resolve(model))

    def stats(self) -> Sequence[ModelStats]:
        """Counters of every loaded model."""
        return [_stats(self._shown.get(status.name, status.name), llm) for status, llm in self._statuses()]

    async def health(self) -> Health:
        """Ready until closed; an engine that failed is started again by the next request."""
        return Health(ready=not self._is_closed, detail="closed" if self._is_closed else "")

    async def aclose(self) -> None:
        """End all work and free all memory."""
        self._is_closed = True
        await self._pool.close()

    @asynccontextmanager
    async def _text(self, name: str) -> AsyncIterator[Prompter]:
        """What makes prompts for a model: its own where it is in memory, else that of its files alone."""
        if any(status.name == name for status in self._pool.status()):
            async with self._pool.lease(name) as llm:
                yield llm.prompter
        else:
            shown = self._shown.get(name)
            yield await asyncio.to_thread(self._texts.look_up, name, paths=shown is not None, shown=shown)

    async def _answer(self, model: str, context: RequestContext, ask: Ask) -> AsyncGenerator[AnswerEvent, None]:
        name = await self._resolve(model)
        async with (
            self._pool.lease(name, keep_alive_s=context.keep_alive) as llm,
            aclosing(llm.answer_async(ask)) as events,
        ):
            async for event in events:
                yield event

    def _statuses(self) -> Iterator[tuple[Loaded, LLM]]:
        return zip(self._pool.status(), self._pool.loaded(), strict=True)

    def _in_memory(self, status: Loaded, llm: LLM) -> LoadedModel:
        return LoadedModel(
            name=self._shown.get(status.name, status.name),
            memory_bytes=status.weights_bytes + status.cache_bytes,
            context_length=status.context,
            device=llm.device,
            expires_in_s=math.inf if status.expires_in_s is None else status.expires_in_s,
            running=status.users,
        )

    async def _resolve(self, model: str) -> str:
        """The one name of a model among its spellings; raises `UnknownModel` with the command that gets it."""
        if model in self._named:
            return self._named[model]
        if model not in self._known:
            located: Located = await asyncio.to_thread(resolve_model, model, paths=False)
            if len(self._known) >= MAX_KNOWN_NAMES:
                self._known.clear()
            self._known[model] = located.ref.name
        return self._known[model]


def _shown(name: str) -> str:
    """The name that clients see; where a model lies on this machine is not their business."""
    is_path = name.startswith((".", "/", "~")) or Path(name).exists()
    return Path(name).name or name if is_path else name


def _on_disk() -> Iterator[ModelInfo]:
    for line in present(home=data_home(), hub=hub_cache()):
        details = {"format": line.format, "size_bytes": line.size_bytes}
        yield ModelInfo(name=line.name, created=int(line.modified.timestamp()), owned_by=line.source, details=details)


def _tool_choice(choice: ToolChoice) -> asking.ToolChoice:
    match choice.mode:
        case "named":
            return asking.NamedTool(name=choice.name or "")
        case mode:
            return mode


def _options(request: ChatRequest | TokenizeRequest) -> FormatOptions:
    return FormatOptions(
        generation_prompt=request.add_generation_prompt, continue_final_message=request.continue_final_message
    )


def _plain(model: str, prompt: str) -> TokenizeRequest:
    return TokenizeRequest(model=model, prompt=prompt, add_special_tokens=False)


def _encode(prompter: Prompter, request: TokenizeRequest) -> tuple[int, ...]:
    if request.prompt is None:
        return prompter.prompt_ids(Ask(messages=request.messages, tools=request.tools, options=_options(request)))
    tokenizer = prompter.tokenizer
    bos = (tokenizer.bos_id,) if request.add_special_tokens and tokenizer.bos_id is not None else ()
    if not request.parse_special:
        return (*bos, *tokenizer.encode(request.prompt))
    names = sorted(filter(None, tokenizer.special), key=len, reverse=True)
    ids: list[int] = list(bos)
    for piece in re.split(f"({'|'.join(map(re.escape, names))})", request.prompt) if names else [request.prompt]:
        if piece in tokenizer.special:
            ids.append(tokenizer.special[piece])
        elif piece:
            ids += tokenizer.encode(piece)
    return tuple(ids)


def _check_ids(prompter: Prompter, ids: Sequence[int], param: str) -> None:
    size = prompter.tokenizer.vocab_size
    for token in ids:
        if not 0 <= token < size:
            raise InvalidRequest(
                f"{param} holds token id {token}; {prompter.name} has ids 0 to {size - 1}", param=param
            )


def _stats(name: str, llm: LLM) -> ModelStats:
    stats = llm.stats()
    return ModelStats(
        model=name,
        running=stats.running,
        waiting=stats.waiting,
        cache_usage=stats.blocks_used / stats.blocks_total if stats.blocks_total else 0.0,
        prefix_queries=stats.prefix_queries,
        prefix_hits=stats.prefix_hits,
        preemptions=stats.preemptions,
        drafted_tokens=stats.drafted_tokens,
        accepted_tokens=stats.accepted_tokens,
    )
