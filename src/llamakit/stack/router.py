"""One inference door over several providers: the name of a model decides who answers, and under what name.

A name is looked for among the routes, which are the models of the distribution and those registered since.
Without a route, `provider_id/name` asks that provider for its own name, and where there is one provider alone it
is asked for everything. Fulfils `Inference` itself, so that whoever stands above sees one provider.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
from llamakit.core.errors import Conflict, LlamakitError, NotFound, UnknownModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Who answers for a model."""

    provider_id: str
    name: str
    """The provider's own name of the model."""
    kind: Literal["llm", "embedding"] | None = None
    """What it is, where that is known better than by the provider."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class InferenceRouter:
    """The providers by id, and the routes to them by model."""

    def __init__(self, providers: Mapping[str, Inference], routes: Mapping[str, Route] | None = None) -> None:
        self._providers = dict(providers)
        self._routes: dict[str, Route] = {}
        self._seen: dict[tuple[str, str], str] = {}
        """Provider and what it calls a model whose route says another name, such as a path, to its name here."""
        for model, route in (routes or {}).items():
            self.register(model, route)

    @property
    def providers(self) -> Mapping[str, Inference]:
        """Who answers, by id."""
        return self._providers

    @property
    def routes(self) -> Mapping[str, Route]:
        """The models that have a name here."""
        return self._routes

    def register(self, model: str, route: Route) -> None:
        """Let `route` answer for `model` from now on; raises `Conflict`, or `NotFound` for the provider."""
        if route.provider_id not in self._providers:
            raise NotFound(
                f"no inference provider {route.provider_id!r}{nearest(route.provider_id, self._providers)}. "
                f"There are: {', '.join(self._providers) or 'none'}"
            )
        if self._routes.get(model, route) != route:
            raise Conflict(f"model {model!r} is registered already, for {self._routes[model].provider_id!r}")
        self._routes[model] = route

    def unregister(self, model: str) -> None:
        """Forget the name; raises `UnknownModel` where it is none."""
        if model not in self._routes:
            raise UnknownModel(f"no model {model!r} is registered{nearest(model, self._routes)}", name=model)
        del self._routes[model]
        self._seen = {own: shown for own, shown in self._seen.items() if shown != model}

    def route_of(self, model: str) -> Route:
        """Who answers for `model`, and by what name; raises `UnknownModel`."""
        if model in self._routes:
            return self._routes[model]
        if len(self._providers) == 1:
            return Route(provider_id=next(iter(self._providers)), name=model)
        provider_id, slash, name = model.partition("/")
        if slash and name and provider_id in self._providers:
            return Route(provider_id=provider_id, name=name)
        known = ", ".join(sorted(self._routes)) or "none"
        asked = f", or a provider's own name as PROVIDER/NAME with one of: {', '.join(self._providers)}"
        raise UnknownModel(
            f"no model {model!r} is served{nearest(model, self._routes)}. Served: {known}"
            + (asked if self._providers else ""),
            name=model,
        )

    def provider_of(self, model: str) -> Inference:
        """Who answers for `model`; raises `UnknownModel`."""
        return self._providers[self.route_of(model).provider_id]

    def chat(self, request: ChatRequest) -> AnswerStream:
        """Ask the model's provider."""
        return self.provider_of(request.model).chat(self._renamed(request))

    def complete(self, request: CompletionRequest) -> AnswerStream:
        """Ask the model's provider."""
        return self.provider_of(request.model).complete(self._renamed(request))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Ask the model's provider."""
        return await self.provider_of(request.model).embed(self._renamed(request))

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Ask the model's provider."""
        return await self.provider_of(request.model).tokenize(self._renamed(request))

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Ask the model's provider."""
        return await self.provider_of(model).detokenize(self.route_of(model).name, ids)

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Ask the model's provider."""
        found = await self.provider_of(model).tokenizer_info(self.route_of(model).name)
        return self._shown(model, found, found.model, "model")

    async def models(self) -> Sequence[ModelInfo]:
        """The models of every provider, in their order; a provider that cannot tell is logged and left out."""
        made: list[ModelInfo] = []
        failures: list[LlamakitError] = []
        for provider_id in self._providers:
            try:
                made += await self._models_of(provider_id)
            except LlamakitError as fault:
                log.warning("provider %s lists no models: %s", provider_id, fault)
                failures.append(fault)
        if failures and len(failures) == len(self._providers):
            raise failures[0]
        return made

    async def model(self, name: str) -> ModelInfo:
        """Ask the model's provider."""
        route = self.route_of(name)
        found = await self.provider_of(name).model(route.name)
        return self._told(name, found)

    async def loaded(self) -> Sequence[LoadedModel]:
        """The models in memory of every provider, by the names they have here."""
        return [
            dataclasses.replace(model, name=self._name_here(provider_id, model.name))
            for provider_id, provider in self._providers.items()
            for model in await provider.loaded()
        ]

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Ask the model's provider."""
        route = self.route_of(model)
        loaded = await self.provider_of(model).load(route.name, keep_alive)
        if model in self._routes and loaded.name != route.name:
            self._seen[route.provider_id, loaded.name] = self._shown(model, loaded, loaded.name, "name").name
        return self._shown(model, loaded, loaded.name, "name")

    async def unload(self, model: str) -> bool:
        """Ask the model's provider."""
        return await self.provider_of(model).unload(self.route_of(model).name)

    def stats(self) -> Sequence[ModelStats]:
        """Counters of every provider's models, by the names they have here."""
        return [
            dataclasses.replace(stats, model=self._name_here(provider_id, stats.model))
            for provider_id, provider in self._providers.items()
            for stats in provider.stats()
        ]

    async def health(self) -> Health:
        """Ready when every provider is; else the first that is not."""
        for provider in self._providers.values():
            health = await provider.health()
            if not health.ready:
                return health
        return Health(ready=True)

    async def aclose(self) -> None:
        """Close every provider, also after one that fails to; raises the first failure."""
        failures: list[Exception] = []
        for provider in self._providers.values():
            try:
                await provider.aclose()
            except Exception as fault:  # noqa: BLE001 - the others must still be closed; it is raised below
                failures.append(fault)
        if failures:
            raise failures[0]

    async def _models_of(self, provider_id: str) -> list[ModelInfo]:
        """The models of one provider: those renamed here by their new name, the others as it lists them."""
        provider = self._providers[provider_id]
        listed = {model.name: model for model in await provider.models()}
        made: list[ModelInfo] = []
        for model, route in self._routes.items():
            if route.provider_id != provider_id:
                continue
            found = listed.get(route.name) or await provider.model(route.name)
            made.append(self._told(model, found))
            listed.pop(found.name, None)
        prefix = "" if len(self._providers) == 1 else f"{provider_id}/"
        rest = (
            dataclasses.replace(model, name=prefix + model.name, provider_id=provider_id, provider_name=model.name)
            for model in listed.values()
        )
        return [*made, *rest]

    def _renamed(self, request: Any) -> Any:
        """The request as the provider knows the model."""
        name = self.route_of(request.model).name
        return request if name == request.model else dataclasses.replace(request, model=name)

    def _shown(self, model: str, found: Any, told: str, field_name: str) -> Any:
        """`found` by the name that was asked for, unless the provider asked for that name shows another."""
        own = self.route_of(model).name
        if told != own and own == model and len(self._providers) == 1:
            return found
        return dataclasses.replace(found, **{field_name: model})

    def _told(self, model: str, found: ModelInfo) -> ModelInfo:
        """The facts that a provider tells of a model, with its name here and those of its route.

        A route may name a path; what is told is what the provider calls it.
        """
        route, info = self.route_of(model), self._shown(model, found, found.name, "name")
        if model in self._routes:
            self._seen[route.provider_id, found.name] = info.name
        details = {**info.details, **{key: value for key, value in route.metadata.items() if _is_plain(value)}}
        return dataclasses.replace(
            info,
            kind=route.kind or info.kind,
            details=details,
            provider_id=route.provider_id,
            provider_name=found.name,
        )

    def _name_here(self, provider_id: str, name: str) -> str:
        for model, route in self._routes.items():
            if route.provider_id == provider_id and route.name == name:
                return model
        if (provider_id, name) in self._seen:
            return self._seen[provider_id, name]
        return name if len(self._providers) == 1 else f"{provider_id}/{name}"


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)
