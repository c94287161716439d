"""Inference by Anthropic's Messages API, over the guarded client."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, NoReturn

from llamakit.api.inference import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    Health,
    LoadedModel,
    ModelInfo,
    ModelStats,
    TokenizeRequest,
    TokenizerInfo,
    Tokens,
)
from llamakit.core.config import Duration, nearest
from llamakit.core.errors import ConfigError, InvalidRequest, UnknownModel
from llamakit.core.messages import AnswerEvent
from llamakit.providers.remote.inference.anthropic_wire import MessageReader, messages_body
from llamakit.providers.remote.inference.settings import SHARED_SETTINGS, read_key, read_max_tokens, waiting
from llamakit.providers.shared.openai_objects import field_of
from llamakit.providers.shared.remote import Remote, RemoteConfig

SERVICE = "Anthropic"
BASE_URL = "https://api.anthropic.com"
KEY_ENV = "ANTHROPIC_API_KEY"
VERSION = "2023-06-01"
"""The version of the API that is spoken, as its header names it."""


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> AnthropicInference:
    """The provider from its settings; raises `ConfigError` for what is unknown, missing or cannot be."""
    for key in config:
        if key not in SHARED_SETTINGS:
            raise ConfigError(f"remote::anthropic has no setting {key!r}{nearest(key, sorted(SHARED_SETTINGS))}")
    key, variable = read_key("anthropic", KEY_ENV, config, os.environ, needs_key=True)
    headers = {"anthropic-version": VERSION} | ({} if key is None else {"x-api-key": key.reveal()})
    base_url = config.get("base_url") or os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL
    remote = RemoteConfig(
        service=SERVICE,
        base_url=f"{str(base_url).rstrip('/').removesuffix('/v1')}/v1",
        headers=headers,
        key_hint=f"check {variable}",
        **waiting(config),
    )
    return AnthropicInference(
        remote,
        models=tuple(config.get("models") or ()),
        model_names=dict(config.get("model_names") or {}),
        max_tokens=read_max_tokens(config),
    )


class AnthropicInference:
    """Fulfils `Inference` as far as the Messages API goes; the rest is refused."""

    def __init__(
        self,
        remote: RemoteConfig,
        *,
        models: Sequence[str] = (),
        model_names: Mapping[str, str] | None = None,
        max_tokens: int = 4096,
    ) -> None:
        self._remote = Remote(remote)
        self._models = tuple(models)
        self._names = dict(model_names or {})
        self._max_tokens = max_tokens
        self._running: Counter[str] = Counter()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer a conversation."""
        body = messages_body(request, SERVICE, self._remote_name(request.model), max_tokens=self._max_tokens)
        reader = MessageReader(SERVICE)
        self._running[request.model] += 1
        try:
            async with aclosing(self._remote.events("/messages", body)) as values:
                async for _, value in values:
                    for event in reader.read(value):
                        yield event
        finally:
            self._running[request.model] -= 1
        for event in reader.end():
            yield event

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Refused, with the first event: the Messages API knows conversations only."""
        for event in ():
            yield event
        _refuse("continues no plain text; send a conversation", "prompt")

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Refused."""
        _refuse("gives no embeddings", "model")

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Refused: the service counts tokens and does not tell them."""
        _refuse("tells no token ids", "model")

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Refused."""
        _refuse("tells no token ids", "model")

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Refused."""
        _refuse("does not tell about its tokenizers", "model")

    async def models(self) -> Sequence[ModelInfo]:
        """The configured models, or those the service lists."""
        if self._models:
            return [ModelInfo(name=name, owned_by="anthropic") for name in dict.fromkeys((*self._models, *self._names))]
        made = await self._remote.get("/models?limit=1000")
        return [_model(entry) for entry in field_of(SERVICE, made, "data", list)]

    async def model(self, name: str) -> ModelInfo:
        """One of them; raises `UnknownModel`."""
        remote = self._remote_name(name)
        if self._models or name in self._names:
            return ModelInfo(name=name, owned_by="anthropic")
        listed = {model.name: model for model in await self.models()}
        if remote not in listed:
            raise UnknownModel(f"{SERVICE} lists no model {remote!r}{nearest(remote, listed)}")
        return listed[remote]

    async def loaded(self) -> Sequence[LoadedModel]:
        """Nothing the service tells."""
        return []

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Nothing to do: the service has its models."""
        self._remote_name(model)
        return LoadedModel(name=model, memory_bytes=0, context_length=0, device="remote")

    async def unload(self, model: str) -> bool:
        """Nothing to do."""
        return False

    def stats(self) -> Sequence[ModelStats]:
        """Requests in work, by model."""
        return [ModelStats(model=model, running=running) for model, running in self._running.items() if running]

    async def health(self) -> Health:
        """Ready until closed; whether the service answers shows with the first request."""
        closed = self._remote.is_closed
        return Health(ready=not closed, detail="closed" if closed else "")

    async def aclose(self) -> None:
        """Close every connection; streams still open raise `EngineStopped`."""
        await self._remote.aclose()

    def _remote_name(self, model: str) -> str:
        if self._models and model not in self._models and model not in self._names:
            served = (*self._models, *self._names)
            raise UnknownModel(f"no model {model!r} is served{nearest(model, served)}. Served: {', '.join(served)}")
        return self._names.get(model, model)


def _refuse(why: str, param: str) -> NoReturn:
    raise InvalidRequest(f"{SERVICE} {why}", param=param)


def _model(entry: Any) -> ModelInfo:
    name, context = field_of(SERVICE, entry, "id", str), entry.get("max_input_tokens")
    try:
        created = int(datetime.fromisoformat(str(entry.get("created_at"))).timestamp())
    except (ValueError, OverflowError):
        created = 0
    length = context if isinstance(context, int) else None
    return ModelInfo(name=name, created=max(0, created), owned_by="anthropic", context_length=length)
