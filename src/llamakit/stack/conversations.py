"""Conversations: made, read, changed and deleted by their owner, with their items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llamakit.api.limits import LIMITS
from llamakit.api.openai_conversations import WireConversationRequest, conversation_body
from llamakit.api.openai_lists import PageQuery, deleted_body, list_body
from llamakit.api.openai_response_items import ItemReference, to_stored
from llamakit.api.wire import Wire
from llamakit.core.errors import InvalidRequest
from llamakit.stack.items import ITEMS, Item, check_item_id, inserting_items, releasing
from llamakit.stack.storage import Storage
from llamakit.storage.ids import CONVERSATION
from llamakit.storage.sql import Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

CONVERSATIONS = Table("conversations", ("metadata",), ids=CONVERSATION)


async def create_conversations(transaction: Executor) -> None:
    """The migration that makes the table of conversations."""
    for sql in create_owned("conversations", "metadata TEXT NOT NULL"):
        await transaction.execute(sql)


class Conversations:
    """The conversations of one server."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def create(self, owner: str, wire: WireConversationRequest) -> dict[str, Any]:
        """A new conversation with the items given."""
        items = _items(wire.items or ())
        database = await self._storage.database()
        id = CONVERSATION.new()
        row = {"metadata": json.dumps(wire.metadata or {})}
        await database.run(
            CONVERSATIONS.of(database, owner).inserting(id, row),
            *inserting_items(database, owner, items, conversation=id),
        )
        return await self.get(owner, id)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """The conversation, or `NotFound`."""
        return _body(await self._row(owner, id))

    async def update(self, owner: str, id: str, metadata: dict[str, str]) -> dict[str, Any]:
        """Give it new metadata."""
        CONVERSATION.check(id)
        database = await self._storage.database()
        await CONVERSATIONS.of(database, owner).update(id, {"metadata": json.dumps(metadata)})
        return await self.get(owner, id)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """Delete it; its items stay with the responses that made them."""
        CONVERSATION.check(id)
        database = await self._storage.database()
        await database.run(CONVERSATIONS.of(database, owner).deleting(id), *releasing(owner, "conversation", id))
        return deleted_body("conversation.deleted", id)

    async def add_items(self, owner: str, id: str, wires: Sequence[Wire]) -> dict[str, Any]:
        """Put items at the end."""
        await self._row(owner, id)
        items = _items(wires)
        database = await self._storage.database()
        # The conversation is touched in the same batch, so none that was deleted meanwhile gets items.
        await database.run(self.touching(owner, id), *inserting_items(database, owner, items, conversation=id))
        return list_body([item.body for item in items], has_more=False)

    async def list_items(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """A page of its items."""
        await self._row(owner, id)
        database = await self._storage.database()
        found = await ITEMS.of(database, owner).page(
            where={"conversation": id}, order=page.order, limit=page.limit, after=page.after
        )
        return list_body([Item.of(row).body for row in found.rows], has_more=found.has_more)

    async def item(self, owner: str, id: str, item_id: str) -> dict[str, Any]:
        """One of its items, or `NotFound`."""
        await self._row(owner, id)
        return (await self._item(owner, id, item_id)).body

    async def delete_item(self, owner: str, id: str, item_id: str) -> dict[str, Any]:
        """Take an item out; what remains is answered."""
        await self._row(owner, id)
        await self._item(owner, id, item_id)
        database = await self._storage.database()
        args = (owner, id, item_id)
        which = "owner = ?1 AND conversation = ?2 AND id = ?3"
        await database.run(
            Statement(f"DELETE FROM items WHERE {which} AND response IS NULL", args),
            Statement(f"UPDATE items SET conversation = NULL WHERE {which}", args),
        )
        return await self.get(owner, id)

    async def history(self, owner: str, id: str, *, before_ns: int | None = None) -> list[Item]:
        """Its items up to a moment, oldest first; raises `InvalidRequest` beyond the limit of one chat."""
        await self._row(owner, id)
        database = await self._storage.database()
        rows = await ITEMS.of(database, owner).find({"conversation": id}, limit=LIMITS.messages + 1)
        if len(rows) > LIMITS.messages:
            raise InvalidRequest(
                f"the conversation holds more than {LIMITS.messages} items; go on in a new one", param="conversation"
            )
        return [Item.of(row) for row in rows if before_ns is None or row["created_ns"] < before_ns]

    def touching(self, owner: str, id: str) -> Statement:
        """A statement that changes nothing, and undoes its batch where the conversation is gone."""
        return Statement(
            "UPDATE conversations SET metadata = metadata WHERE owner = ?1 AND id = ?2",
            (owner, id),
            expect=1,
            otherwise=CONVERSATION.missing(id),
        )

    async def _row(self, owner: str, id: str) -> Row:
        CONVERSATION.check(id)
        return await CONVERSATIONS.of(await self._storage.database(), owner).get(id)

    async def _item(self, owner: str, id: str, item_id: str) -> Item:
        check_item_id(item_id)
        database = await self._storage.database()
        rows = await ITEMS.of(database, owner).find({"conversation": id, "id": item_id})
        if not rows:
            raise ITEMS.ids.missing(item_id)
        return Item.of(rows[0])


def _items(wires: Sequence[Wire]) -> list[Item]:
    made = []
    for index, wire in enumerate(wires):
        if isinstance(wire, ItemReference):
            raise InvalidRequest(
                f"items[{index}] refers to an item; a conversation takes items themselves", param=f"items[{index}]"
            )
        made.append(Item(body=to_stored(wire)))
    return made


def _body(row: Row) -> dict[str, Any]:
    return conversation_body(row["id"], row["created_ns"] // 10**9, json.loads(row["metadata"]))
