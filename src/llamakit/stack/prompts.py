"""Prompts with versions: a version never changes once made; which one is the default does."""

from __future__ import annotations

import json
from typing import Any

from llamakit.api.openai_lists import PageQuery
from llamakit.api.prompts import WirePromptRequest, WirePromptUpdate, prompt_body, prompts_body, variables_of
from llamakit.core.errors import InvalidRequest
from llamakit.stack.storage import Storage
from llamakit.storage.ids import PROMPT, IdKind
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

PROMPTS = Table("prompts", ("latest", "default_version"), ids=PROMPT)
VERSION = IdKind("pmptv_", "prompt version")
VERSIONS = Table("prompt_versions", ("prompt", "version", "template", "variables"), ids=VERSION)


async def create_prompts(transaction: Executor) -> None:
    """The migration that makes the tables of prompts."""
    for sql in create_owned("prompts", "latest BIGINT NOT NULL", "default_version BIGINT NOT NULL"):
        await transaction.execute(sql)
    columns = ("prompt TEXT NOT NULL", "version BIGINT NOT NULL", "template TEXT NOT NULL", "variables TEXT NOT NULL")
    for sql in create_owned("prompt_versions", *columns):
        await transaction.execute(sql)
    await transaction.execute("CREATE UNIQUE INDEX prompt_versions_once ON prompt_versions (owner, prompt, version)")


class Prompts:
    """The prompts of one server."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def create(self, owner: str, wire: WirePromptRequest) -> dict[str, Any]:
        """A new prompt with its first version."""
        database = await self._storage.database()
        id = PROMPT.new()
        names = variables_of(wire.prompt, wire.variables)
        await database.run(
            PROMPTS.of(database, owner).inserting(id, {"latest": 1, "default_version": 1}),
            _inserting(database, owner, id, 1, wire.prompt, names),
        )
        return await self.get(owner, id)

    async def get(self, owner: str, id: str, version: int | None = None) -> dict[str, Any]:
        """A version, by default the default one; `NotFound` where there is none."""
        prompt = await self._row(owner, id)
        wanted = prompt["default_version"] if version is None else version
        database = await self._storage.database()
        rows = await VERSIONS.of(database, owner).find({"prompt": id, "version": wanted})
        if not rows:
            raise VERSION.missing(f"{version} of {id}")
        return prompt_body(id, _version(rows[0]), default=prompt["default_version"])

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """The default version of every prompt."""
        database = await self._storage.database()
        found = await PROMPTS.of(database, owner).page(order=page.order, limit=page.limit, after=page.after)
        data = [await self.get(owner, row["id"]) for row in found.rows]
        return prompts_body(data, has_more=found.has_more)

    async def versions(self, owner: str, id: str) -> dict[str, Any]:
        """Every version of one, the first made first."""
        prompt = await self._row(owner, id)
        rows = await VERSIONS.of(await self._storage.database(), owner).find({"prompt": id})
        data = [prompt_body(id, _version(row), default=prompt["default_version"]) for row in rows]
        return prompts_body(data)

    async def update(self, owner: str, id: str, wire: WirePromptUpdate) -> dict[str, Any]:
        """Make the next version; raises `InvalidRequest` where the client does not know the latest."""
        prompt = await self._row(owner, id)
        if wire.version != prompt["latest"]:
            raise InvalidRequest(
                f"version must be the latest, which is {prompt['latest']}, got {wire.version}; read it first",
                param="version",
            )
        names = variables_of(wire.prompt, wire.variables)
        number = wire.version + 1
        default = prompt["default_version"] if wire.set_as_default is False else number
        database = await self._storage.database()
        changes = {"latest": number, "default_version": default}
        await database.run(
            PROMPTS.of(database, owner).updating(id, changes, when={"latest": wire.version}),
            _inserting(database, owner, id, number, wire.prompt, names),
        )
        return await self.get(owner, id, number)

    async def set_default(self, owner: str, id: str, version: int) -> dict[str, Any]:
        """Choose the version that readers get who name none."""
        await self.get(owner, id, version)
        database = await self._storage.database()
        await PROMPTS.of(database, owner).update(id, {"default_version": version})
        return await self.get(owner, id, version)

    async def delete(self, owner: str, id: str) -> None:
        """Delete a prompt with all its versions."""
        PROMPT.check(id)
        database = await self._storage.database()
        await database.run(
            PROMPTS.of(database, owner).deleting(id),
            Statement("DELETE FROM prompt_versions WHERE owner = ?1 AND prompt = ?2", (owner, id)),
        )

    async def _row(self, owner: str, id: str) -> Row:
        PROMPT.check(id)
        return await PROMPTS.of(await self._storage.database(), owner).get(id)


def _inserting(database: Database, owner: str, prompt: str, version: int, template: str, names: list[str]) -> Statement:
    row = {"prompt": prompt, "version": version, "template": template, "variables": json.dumps(names)}
    return VERSIONS.of(database, owner).inserting(VERSION.new(), row)


def _version(row: Row) -> dict[str, Any]:
    return {"version": row["version"], "template": row["template"], "variables": json.loads(row["variables"])}
