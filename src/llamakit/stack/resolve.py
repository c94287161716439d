"""The name of a provider -> the provider: looks in the table, then among installed packages, imports one module."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import BUILT_IN, ENTRY_POINT_GROUP, Api, Build, ProviderSpec


def resolve_spec(api: Api, name: str) -> ProviderSpec:
    """The row of that name; raises `ConfigError` listing the rows there are."""
    rows = {spec.name: spec for spec in specs() if spec.api == api}
    if name not in rows:
        raise ConfigError(f"no {api} provider {name!r}{nearest(name, rows)}. There are: {', '.join(sorted(rows))}")
    return rows[name]


def specs() -> Iterator[ProviderSpec]:
    """Every row; of two with one name the built-in one counts, so that a package cannot take its place."""
    seen = {(spec.api, spec.name) for spec in BUILT_IN}
    yield from BUILT_IN
    for point in entry_points(group=ENTRY_POINT_GROUP):
        spec = point.load()
        if not isinstance(spec, ProviderSpec):
            raise ConfigError(f"entry point {point.name!r} of {ENTRY_POINT_GROUP} names no ProviderSpec, but {spec!r}")
        if (spec.api, spec.name) not in seen:
            seen.add((spec.api, spec.name))
            yield spec


def build_provider(spec: ProviderSpec, config: Mapping[str, Any], needs: Mapping[Api, Any]) -> Any:
    """Import the row's builder and call it; raises `ConfigError` for a need that is not met."""
    missing = [need for need in spec.needs if need not in needs]
    if missing:
        raise ConfigError(f"provider {spec.name} needs {', '.join(missing)}, which nothing provides")
    module, _, function = spec.target.partition(":")
    build: Build = vars(importlib.import_module(module))[function]
    return build({**config, **spec.settings}, {need: needs[need] for need in spec.needs})
