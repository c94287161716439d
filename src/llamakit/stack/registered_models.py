"""Models that were given a name while the server ran: kept, and known to the router again at the next start.

They are the server's and not one client's: who may register is decided before. Several servers on one database
learn of each other's names when their models are listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from llamakit.api.inference import ModelInfo
from llamakit.core.errors import Conflict, InvalidRequest
from llamakit.stack.router import InferenceRouter, Route
from llamakit.stack.storage import Storage
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Executor, Row
from llamakit.storage.tables import Owned, Table, create_owned

NAMES = Table("registered_models", ("provider", "name", "kind", "metadata"), ids=IdKind("model_", "registered model"))
SERVER = "(server)"
"""Owner of what belongs to everybody; no key is called that."""
MAX_NAMES = 1000
MAX_METADATA_CHARS = 64_000


async def create_registered_models(transaction: Executor) -> None:
    """The migration that makes the table of registered models."""
    columns = ("provider TEXT NOT NULL", "name TEXT NOT NULL", "kind TEXT", "metadata TEXT NOT NULL")
    for sql in create_owned("registered_models", *columns):
        await transaction.execute(sql)


class RegisteredModels:
    """The registered names of one server, over a router that knows those of its distribution already."""

    def __init__(self, storage: Storage, router: InferenceRouter) -> None:
        self._storage = storage
        self._router = router
        self._fixed = frozenset(router.routes)
        self._known: dict[str, Route] = {}

    async def refresh(self) -> None:
        """Tell the router what the database says; a name whose provider is gone stays there and is not routed."""
        rows = await (await self._rows()).find()
        stored = {row["id"]: _route(row) for row in rows if row["id"] not in self._fixed}
        for model in [model for model in self._known if stored.get(model) != self._known[model]]:
            self._router.unregister(model)
            del self._known[model]
        for model, route in stored.items():
            if model not in self._known and route.provider_id in self._router.providers:
                self._router.register(model, route)
                self._known[model] = route

    async def register(
        self,
        model: str,
        provider_id: str | None,
        name: str | None,
        kind: Literal["llm", "embedding"] | None,
        metadata: Mapping[str, Any],
    ) -> ModelInfo:
        """Let a provider answer for `model`; the same registration again changes nothing.

        Raises `InvalidRequest` for a provider that is not there, `UnknownModel` for a model that it does not know, and
        `Conflict` where the name has another meaning.
        """
        await self.refresh()
        route = Route(
            provider_id=self._provider(provider_id), name=name or model, kind=kind, metadata=_checked(metadata)
        )
        if model in self._fixed:
            if self._router.routes[model].name == route.name:
                return await self._router.model(model)
            raise Conflict(f"model {model!r} is part of this server; choose another name")
        await self._router.providers[route.provider_id].model(route.name)
        if model not in self._known:
            rows = await self._rows()
            if await rows.count() >= MAX_NAMES:
                raise InvalidRequest(f"{MAX_NAMES} models are registered; unregister one first")
            row = {"provider": route.provider_id, "name": route.name, "kind": kind}
            await rows.insert(model, {**row, "metadata": json.dumps(route.metadata)})
            await self.refresh()
        if self._known[model] != route:
            raise Conflict(f"model {model!r} is registered already, otherwise; unregister it first")
        return await self._router.model(model)

    async def unregister(self, model: str) -> None:
        """Forget a registered name; `NotFound` where there is none."""
        if model in self._fixed:
            raise InvalidRequest(f"model {model!r} is part of this server and stays", param="model_id")
        await (await self._rows()).delete(model)
        await self.refresh()

    def _provider(self, provider_id: str | None) -> str:
        there = list(self._router.providers)
        if provider_id is None and len(there) == 1:
            return there[0]
        if provider_id not in there:
            got = "none" if provider_id is None else repr(provider_id[:80])
            raise InvalidRequest(
                f"provider_id must be one of: {', '.join(there) or 'none is there'}; got {got}", param="provider_id"
            )
        return provider_id

    async def _rows(self) -> Owned:
        return NAMES.of(await self._storage.database(), SERVER)


def _checked(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    if len(json.dumps(metadata)) > MAX_METADATA_CHARS:
        raise InvalidRequest(f"metadata has more than {MAX_METADATA_CHARS} characters of JSON", param="metadata")
    return metadata


def _route(row: Row) -> Route:
    return Route(provider_id=row["provider"], name=row["name"], kind=row["kind"], metadata=json.loads(row["metadata"]))
