"""The providers of a distribution, built: by API and id, with what each was built from.

Providers that need another API are built after those that provide it. Whoever serves an API takes its providers
from here by `of`; whoever tells about them reads `entries`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api, ProviderSpec
from llamakit.stack.distribution import Distribution, ProviderEntry
from llamakit.stack.resolve import build_provider, resolve_spec
from llamakit.stack.tool_providers import settings_of

Door = Callable[["Providers"], Any]
"""Makes, of the built providers of an API, the one thing that others of them are given who need it."""


@runtime_checkable
class Closable(Protocol):
    """A provider that holds something open."""

    async def aclose(self) -> None:
        """Let it go; a second call does nothing."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """One provider."""

    api: Api
    entry: ProviderEntry
    spec: ProviderSpec
    instance: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Providers:
    """Every provider of a server."""

    entries: list[Provider] = field(default_factory=list)
    """In the order of the distribution."""

    def of(self, api: Api) -> Mapping[str, Any]:
        """The instances of one API by provider id, the preferred one first; empty where nobody provides it."""
        return {row.entry.provider_id: row.instance for row in self.entries if row.api == api}

    async def aclose(self) -> None:
        """Close the providers that no door of theirs closes: all but those of inference. Raises the first failure."""
        failures: list[Exception] = []
        for row in self.entries:
            if row.api != Api.inference and isinstance(row.instance, Closable):
                try:
                    await row.instance.aclose()
                except Exception as fault:  # noqa: BLE001 - the others must still be closed; it is raised below
                    failures.append(fault)
        if failures:
            raise failures[0]


def build_providers(distribution: Distribution, doors: Mapping[Api, Door]) -> tuple[Providers, dict[Api, Any]]:
    """Build every provider, and the door of each API in `doors`; raises `ConfigError`. Opens no connection."""
    waiting = [(Api(api), entry) for api, rows in distribution.providers.items() for entry in rows]
    specs = {(api, entry.provider_id): _spec_of(api, entry) for api, entry in waiting}
    made, opened = Providers(), dict[Api, Any]()
    while True:
        pending = {api for api, _ in waiting}
        opened |= {api: door(made) for api, door in doors.items() if api not in opened and api not in pending}
        if not waiting:
            return made, opened
        ready = [
            (api, entry)
            for api, entry in waiting
            if not any(need in pending and need not in opened for need in specs[api, entry.provider_id].needs)
        ]
        if not ready:
            stuck = ", ".join(entry.provider_id for _, entry in waiting)
            raise ConfigError(f"the providers {stuck} need each other's APIs; none of them can be the first")
        for api, entry in ready:
            made.entries.append(_built(distribution, api, entry, specs[api, entry.provider_id], opened))
        waiting = [item for item in waiting if item not in ready]


def _spec_of(api: Api, entry: ProviderEntry) -> ProviderSpec:
    try:
        return resolve_spec(api, entry.provider_type)
    except ConfigError as fault:
        raise ConfigError(f"provider {entry.provider_id!r} of {api}: {fault}") from None


def _built(
    distribution: Distribution, api: Api, entry: ProviderEntry, spec: ProviderSpec, opened: Mapping[Api, Any]
) -> Provider:
    config = dict(entry.config)
    if api == Api.inference and (models := _models_of(distribution, entry)):
        # What a distribution names is what a provider loads by path, or restricts itself to.
        config.setdefault("models", models)
    if api == Api.tools:
        config |= settings_of(distribution, entry)
    try:
        instance = build_provider(spec, config, opened)
    except ConfigError as fault:
        raise ConfigError(f"provider {entry.provider_id!r} of {api}: {fault}") from fault
    return Provider(api=api, entry=entry, spec=spec, instance=instance)


def _models_of(distribution: Distribution, entry: ProviderEntry) -> tuple[str, ...]:
    """The provider's own names of the models it answers for."""
    mine = [model for model in distribution.models if distribution.provider_of(model) == entry.provider_id]
    return tuple(dict.fromkeys(model.provider_model_id or model.model_id for model in mine))
