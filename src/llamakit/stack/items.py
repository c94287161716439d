"""Items as rows: kept once, shown by the response that made them and by the conversation they belong to.

An item goes when neither wants it any more. Ids are ours and come from `api.openai_response_items`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned, stamp

ITEM = IdKind("item_", "item")
ITEMS = Table("items", ("response", "conversation", "side", "body", "hidden"), ids=ITEM)
_ID = re.compile(r"[a-z]{2,4}_[0-9a-f]{48}", re.ASCII)

Side = Literal["input", "output"]


async def create_items(transaction: Executor) -> None:
    """The migration that makes the table of items."""
    for sql in create_owned(
        "items", "response TEXT", "conversation TEXT", "side TEXT NOT NULL", "body TEXT NOT NULL", "hidden TEXT"
    ):
        await transaction.execute(sql)
    await transaction.execute("CREATE INDEX items_of_response ON items (owner, response, created_ns)")
    await transaction.execute("CREATE INDEX items_of_conversation ON items (owner, conversation, created_ns)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """An item with what only this server knows of it."""

    body: dict[str, Any]
    """As clients see it."""
    side: Side = "input"
    hidden: dict[str, Any] = field(default_factory=dict)
    """Of a tool that ran here: `name`, `arguments` and `output` as the model saw them."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.body["id"]

    @classmethod
    def of(cls, row: Row) -> Item:
        """The item of a row."""
        hidden = {} if row["hidden"] is None else json.loads(row["hidden"])
        return cls(body=json.loads(row["body"]), side=row["side"], hidden=hidden)


def check_item_id(id: str) -> str:
    """`id` itself; an ill-formed id raises what an absent one raises."""
    if _ID.fullmatch(id) is None:
        raise ITEM.missing(id)
    return id


def inserting_items(
    executor: Executor,
    owner: str,
    items: Sequence[Item],
    *,
    response: str | None = None,
    conversation: str | None = None,
) -> list[Statement]:
    """The statements that keep items, in their order."""
    rows = ITEMS.of(executor, owner)
    return [
        rows.inserting(
            item.id,
            {
                "response": response,
                "conversation": conversation,
                "side": item.side,
                "body": json.dumps(item.body),
                "hidden": json.dumps(item.hidden) if item.hidden else None,
            },
            created_ns=stamp(),
        )
        for item in items
    ]


def releasing(owner: str, column: Literal["response", "conversation"], id: str) -> list[Statement]:
    """The statements that part items from their response or conversation; those of neither go."""
    other = "conversation" if column == "response" else "response"
    return [
        Statement(f"DELETE FROM items WHERE owner = ?1 AND {column} = ?2 AND {other} IS NULL", (owner, id)),
        Statement(f"UPDATE items SET {column} = NULL WHERE owner = ?1 AND {column} = ?2", (owner, id)),
    ]
