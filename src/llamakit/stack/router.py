"""One inference door over several providers: the name of a model decides who answers.

Fulfils `Inference` itself, so that whoever stands above sees one provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamakit.api.inference import (
    AnswerStream,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    Health,
    Inference,
    LoadedModel,
    ModelInfo,
    ModelStats,
    TokenizeRequest,
    TokenizerInfo,
    Tokens,
)
from llamakit.core.config import Duration, nearest
from llamakit.core.errors import UnknownModel


class InferenceRouter:
    """Routes by model name; a name without a route goes to the fallback, if there is one."""

    def __init__(self, routes: Mapping[str, Inference], fallback: Inference | None = None) -> None:
        self._routes = dict(routes)
        self._fallback = fallback
        providers = {id(provider): provider for provider in (*routes.values(), *((fallback,) if fallback else ()))}
        self._providers = tuple(providers.values())

    def provider_of(self, model: str) -> Inference:
        """Who answers for `model`; raises `UnknownModel`."""
        provider = self._routes.get(model, self._fallback)
        if provider is None:
            known = ", ".join(sorted(self._routes)) or "none"
            raise UnknownModel(
                f"no model {model!r} is served{nearest(model, self._routes)}. Served: {known}", name=model
            )
        return provider

    def chat(self, request: ChatRequest) -> AnswerStream:
        """Ask the model's provider."""
        return self.provider_of(request.model).chat(request)

    def complete(self, request: CompletionRequest) -> AnswerStream:
        """Ask the model's provider."""
        return self.provider_of(request.model).complete(request)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Ask the model's provider."""
        return await self.provider_of(request.model).embed(request)

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Ask the model's provider."""
        return await self.provider_of(request.model).tokenize(request)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Ask the model's provider."""
        return await self.provider_of(model).detokenize(model, ids)

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Ask the model's provider."""
        return await self.provider_of(model).tokenizer_info(model)

    async def models(self) -> Sequence[ModelInfo]:
        """The models of every provider, in their order."""
        return [model for provider in self._providers for model in await provider.models()]

    async def model(self, name: str) -> ModelInfo:
        """Ask the model's provider."""
        return await self.provider_of(name).model(name)

    async def loaded(self) -> Sequence[LoadedModel]:
        """The models in memory of every provider."""
        return [model for provider in self._providers for model in await provider.loaded()]

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Ask the model's provider."""
        return await self.provider_of(model).load(model, keep_alive)

    async def unload(self, model: str) -> bool:
        """Ask the model's provider."""
        return await self.provider_of(model).unload(model)

    def stats(self) -> Sequence[ModelStats]:
        """Counters of every provider's models."""
        return [stats for provider in self._providers for stats in provider.stats()]

    async def health(self) -> Health:
        """Ready when every provider is; else the first that is not."""
        for provider in self._providers:
            health = await provider.health()
            if not health.ready:
                return health
        return Health(ready=True)

    async def aclose(self) -> None:
        """Close every provider, also after one that fails to; raises the first failure."""
        failures: list[Exception] = []
        for provider in self._providers:
            try:
                await provider.aclose()
            except Exception as fault:  # noqa: BLE001 - the others must still be closed; it is raised below
                failures.append(fault)
        if failures:
            raise failures[0]
