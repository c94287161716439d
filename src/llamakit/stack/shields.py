"""The shields of a server: those of its distribution, which are everybody's, and those its users registered."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llamakit.api.shields import shield_body
from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError, Conflict, InvalidRequest, LlamakitError, NotFound
from llamakit.core.messages import ImagePart, Message
from llamakit.providers.specs import Api
from llamakit.safety.shields import Guarded, Shield, ShieldProvider, Shields, Violation
from llamakit.stack.distribution import Distribution, ProviderEntry
from llamakit.stack.storage import Storage
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Executor, Row
from llamakit.storage.tables import Owned, Table, create_owned

SHIELD = IdKind("shield_", "shield")
SHIELDS = Table("shields", ("provider", "resource", "params"), ids=SHIELD)
MAX_SHIELDS = 1000
"""Of one owner."""
DEFAULT = ProviderEntry(provider_id="llama-guard", provider_type="inline::llama-guard")
"""What a server has that says nothing of safety: shields over the models it serves."""


async def create_shields(transaction: Executor) -> None:
    """The migration that makes the table of registered shields."""
    for sql in create_owned("shields", "provider TEXT NOT NULL", "resource TEXT", "params TEXT NOT NULL"):
        await transaction.execute(sql)


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedShield:
    """A shield of the distribution."""

    shield: Shield
    provider_id: str
    resource: str | None
    params: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """As it is listed."""
        return shield_body(self.shield.name, self.resource, self.provider_id, self.params)


def with_default_safety(distribution: Distribution) -> Distribution:
    """The distribution with the safety provider that every server has, unless it names its own."""
    if Api.safety in distribution.providers or (distribution.apis and Api.safety not in distribution.apis):
        return distribution
    return replace(distribution, providers={**distribution.providers, Api.safety: (DEFAULT,)})


def fixed_shields(distribution: Distribution, providers: Mapping[str, ShieldProvider]) -> dict[str, FixedShield]:
    """The shields of a distribution by name; raises `ConfigError` for one that cannot be."""
    made = {}
    for entry in distribution.shields:
        try:
            provider_id = _provider_id(entry.provider_id, providers)
            shield = providers[provider_id].shield(entry.shield_id, entry.provider_shield_id, entry.params)
        except LlamakitError as fault:
            raise ConfigError(f"shield {entry.shield_id!r}: {fault}") from None
        made[entry.shield_id] = FixedShield(
            shield=shield, provider_id=provider_id, resource=entry.provider_shield_id, params=entry.params
        )
    return made


def guards_of(distribution: Distribution, fixed: Mapping[str, FixedShield], side: str) -> Shields:
    """The shields that stand before every model (`input`), or behind (`output`)."""
    return Shields(
        [
            Guarded(shield=fixed[entry.shield_id].shield, fails_open=entry.fails_open)
            for entry in distribution.shields
            if side in entry.guards
        ]
    )


class ShieldBook:
    """The shields of one server by their names."""

    def __init__(
        self, storage: Storage, providers: Mapping[str, ShieldProvider], fixed: Mapping[str, FixedShield]
    ) -> None:
        self._storage = storage
        self._providers = providers
        self._fixed = fixed
        self._secret = secrets.token_bytes(32)

    @property
    def default(self) -> str | None:
        """The shield that is meant where none is named: the first of the distribution."""
        return next(iter(self._fixed), None)

    async def list(self, owner: str) -> list[dict[str, Any]]:
        """Everybody's shields, then the owner's, in the order of their making."""
        rows = await (await self._rows(owner)).find()
        return [*(fixed.body() for fixed in self._fixed.values()), *map(_body, rows)]

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A shield, or `NotFound`."""
        if id in self._fixed:
            return self._fixed[id].body()
        return _body(await (await self._rows(owner)).get(id))

    async def register(
        self,
        owner: str,
        id: str,
        provider_shield_id: str | None = None,
        provider_id: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Keep a shield under a name of the owner's choice; the same once more changes nothing."""
        provider = _provider_id(provider_id, self._providers)
        self._providers[provider].shield(id, provider_shield_id, params or {})
        body = shield_body(id, provider_shield_id, provider, params or {})
        rows = await self._rows(owner)
        if await rows.count() >= MAX_SHIELDS:
            raise InvalidRequest(f"you have {MAX_SHIELDS} shields, which is the most; unregister some first")
        row = {"provider": provider, "resource": provider_shield_id, "params": json.dumps(dict(params or {}))}
        try:
            if id in self._fixed:
                raise Conflict(f"shield {id!r} is one of the server's configuration; choose another name")
            await rows.insert(id, row)
        except Conflict:
            if await self.get(owner, id) != body:
                raise Conflict(f"shield {id!r} exists with other settings; unregister it first") from None
        return body

    async def unregister(self, owner: str, id: str) -> None:
        """Forget a shield, or `NotFound`; those of the configuration stay."""
        if id in self._fixed:
            raise InvalidRequest(
                f"shield {id!r} is one of the server's configuration; remove it there", param="shield_id"
            )
        await (await self._rows(owner)).delete(id)

    async def run(self, owner: str, id: str, messages: Sequence[Message]) -> Violation | None:
        """Judge the last message; a shield that cannot judge raises, and never counts as assent."""
        shield = await self._shield(owner, id)
        refuse_images(messages)
        return await shield.check(messages, salt=self._salt(owner))

    async def run_model(self, owner: str, model: str, messages: Sequence[Message]) -> Violation | None:
        """Judge by a served model that is registered as no shield; raises `NotFound` where nobody can."""
        provider = self._providers.get(DEFAULT.provider_id)
        if provider is None:
            raise SHIELD.missing(model)
        return await provider.shield(model, model, {}).check(messages, salt=self._salt(owner))

    async def _shield(self, owner: str, id: str) -> Shield:
        if id in self._fixed:
            return self._fixed[id].shield
        row = await (await self._rows(owner)).get(id)
        provider = self._providers.get(row["provider"])
        if provider is None:
            raise NotFound(f"shield {id!r} is for the safety provider {row['provider']!r}, which is not here any more")
        return provider.shield(id, row["resource"], json.loads(row["params"]))

    def _salt(self, owner: str) -> str:
        """Prompts of one owner are cached apart from those of others; the salt tells nothing and ends with us."""
        return hmac.new(self._secret, owner.encode(), hashlib.sha256).hexdigest()

    async def _rows(self, owner: str) -> Owned:
        return SHIELDS.of(await self._storage.database(), owner)


def refuse_images(messages: Sequence[Message]) -> None:
    """Raise `InvalidRequest` for what no shield here can judge, so that it is not let through unjudged."""
    if any(isinstance(part, ImagePart) for message in messages for part in message.content):
        raise InvalidRequest("the shields of this server judge words; an image cannot be let through unjudged")


def _provider_id(asked: str | None, providers: Mapping[str, ShieldProvider]) -> str:
    """The provider meant; raises `InvalidRequest` where that is not one."""
    there = ", ".join(providers) or "none"
    if asked is None and len(providers) == 1:
        return next(iter(providers))
    if asked is None:
        raise InvalidRequest(f"provider_id is required, one of the safety providers: {there}", param="provider_id")
    if asked not in providers:
        raise InvalidRequest(
            f"no safety provider {asked[:80]!r}{nearest(asked, providers)}. There are: {there}", param="provider_id"
        )
    return asked


def _body(row: Row) -> dict[str, Any]:
    return shield_body(row["id"], row["resource"], row["provider"], json.loads(row["params"]))
