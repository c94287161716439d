"""Chat completions that were asked to be kept: found, read, relabelled and deleted by their owner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.api.openai_lists import PageQuery, deleted_body, list_body
from llamakit.api.openai_stored_chats import input_messages, page_of
from llamakit.stack.storage import Storage
from llamakit.storage.ids import CHAT_COMPLETION
from llamakit.storage.sql import Executor, Row, Statement
from llamakit.storage.tables import Owned, Table, create_owned

CHATS = Table("chats", ("model", "metadata", "body", "messages"), ids=CHAT_COMPLETION)
SCANNED = 100
"""Rows read at a time while entries of metadata are looked for."""


async def create_chats(transaction: Executor) -> None:
    """The migration that makes the table of kept chat completions."""
    for sql in create_owned(
        "chats", "model TEXT NOT NULL", "metadata TEXT NOT NULL", "body TEXT NOT NULL", "messages TEXT NOT NULL"
    ):
        await transaction.execute(sql)


class StoredChats:
    """The kept chat completions of one server."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def keep(self, statement: Statement) -> None:
        """Commit what `keeping` made; it is on the disk when this returns."""
        await (await self._storage.database()).run(statement)

    async def keeping(
        self,
        owner: str,
        body: Mapping[str, Any],
        messages: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, str] | None,
    ) -> Statement:
        """The statement that keeps an answer with the messages it answers."""
        row = {
            "model": body["model"],
            "metadata": json.dumps(metadata or {}),
            "body": json.dumps(body),
            "messages": json.dumps(messages),
        }
        return (await self._rows(owner)).inserting(body["id"], row)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """The answer, or `NotFound`."""
        return _body(await self._row(owner, id))

    async def list(
        self, owner: str, page: PageQuery, *, model: str | None, metadata: Mapping[str, str]
    ) -> dict[str, Any]:
        """A page of answers, of one model and with these entries of metadata if asked."""
        rows = await self._rows(owner)
        where = {} if model is None else {"model": model}
        kept: list[Row] = []
        after, is_end = page.after, False
        while len(kept) <= page.limit and not is_end:
            found = await rows.page(where=where, order=page.order, limit=SCANNED, after=after)
            kept += [row for row in found.rows if metadata.items() <= json.loads(row["metadata"]).items()]
            is_end = not found.has_more
            after = found.rows[-1]["id"] if found.rows else after
        return list_body([_body(row) for row in kept[: page.limit]], has_more=len(kept) > page.limit)

    async def messages(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """A page of the messages that the answer answers."""
        messages = json.loads((await self._row(owner, id))["messages"])
        shown, has_more = page_of(messages if page.order == "asc" else messages[::-1], page.after, page.limit)
        return list_body(shown, has_more=has_more)

    async def update(self, owner: str, id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Give it new metadata."""
        CHAT_COMPLETION.check(id)
        await (await self._rows(owner)).update(id, {"metadata": json.dumps(metadata)})
        return await self.get(owner, id)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """Delete it."""
        CHAT_COMPLETION.check(id)
        await (await self._rows(owner)).delete(id)
        return deleted_body("chat.completion.deleted", id)

    async def _rows(self, owner: str) -> Owned:
        return CHATS.of(await self._storage.database(), owner)

    async def _row(self, owner: str, id: str) -> Row:
        CHAT_COMPLETION.check(id)
        return await (await self._rows(owner)).get(id)


def _body(row: Row) -> dict[str, Any]:
    return json.loads(row["body"]) | {
        "metadata": json.loads(row["metadata"]),
        "input_messages": input_messages(json.loads(row["messages"])),
    }
