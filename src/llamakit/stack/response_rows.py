"""Responses as rows: what each added to its conversation is kept once, and a chain is read by following it.

A response that runs in the foreground becomes a row when it is whole. One in the background is a row from
the beginning, with its events written ahead in batches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llamakit.api.limits import LIMITS
from llamakit.core.errors import InvalidRequest
from llamakit.stack.items import ITEMS, Item, inserting_items, releasing
from llamakit.storage.ids import RESPONSE, IdKind
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Owned, Table, create_owned, stamp

RESPONSES = Table(
    "responses",
    ("model", "status", "previous", "conversation", "is_background", "job", "request", "body"),
    ids=RESPONSE,
)
EVENTS = Table(
    "response_events", ("response", "first_number", "last_number", "body"), ids=IdKind("evb_", "batch of events")
)
RUNNING = ("queued", "in_progress")


async def create_responses(transaction: Executor) -> None:
    """The migration that makes the tables of responses."""
    for sql in create_owned(
        "responses",
        "model TEXT NOT NULL",
        "status TEXT NOT NULL",
        "previous TEXT",
        "conversation TEXT",
        "is_background BIGINT NOT NULL",
        "job TEXT",
        "request TEXT",
        "body TEXT NOT NULL",
    ):
        await transaction.execute(sql)
    for sql in create_owned(
        "response_events",
        "response TEXT NOT NULL",
        "first_number BIGINT NOT NULL",
        "last_number BIGINT NOT NULL",
        "body TEXT NOT NULL",
    ):
        await transaction.execute(sql)
    await transaction.execute(
        "CREATE UNIQUE INDEX response_events_once ON response_events (owner, response, first_number)"
    )


class ResponseRows:
    """The responses of one owner in one database."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    @property
    def responses(self) -> Owned:
        """The rows themselves."""
        return RESPONSES.of(self._database, self._owner)

    async def row(self, id: str) -> Row:
        """The row of a response, or `NotFound`."""
        RESPONSE.check(id)
        return await self.responses.get(id)

    async def resource(self, row: Row) -> dict[str, Any]:
        """The response as clients see it."""
        items = await ITEMS.of(self._database, self._owner).find({"response": row["id"], "side": "output"})
        body = json.loads(row["body"])
        return body | {"status": row["status"], "output": [Item.of(item).body for item in items]}

    async def inputs(self, id: str) -> list[Item]:
        """The items a response brought, in their order."""
        rows = await ITEMS.of(self._database, self._owner).find({"response": id, "side": "input"})
        return [Item.of(row) for row in rows]

    async def item(self, id: str) -> Item:
        """An item by its id, or `NotFound`."""
        return Item.of(await ITEMS.of(self._database, self._owner).get(id))

    async def chain(self, id: str) -> list[str]:
        """The ids of a response and of all it goes on from, the first one first.

        Raises `InvalidRequest` where one is missing, still runs, or the chain is too long.
        """
        if not RESPONSE.is_valid(id):
            raise _no_previous(id)
        rows = await self._database.fetch(
            "WITH RECURSIVE chain (id, previous, status, depth) AS ("
            "SELECT id, previous, status, 0 FROM responses WHERE owner = ?1 AND id = ?2 "
            "UNION ALL SELECT r.id, r.previous, r.status, c.depth + 1 FROM responses r "
            f"JOIN chain c ON r.owner = ?1 AND r.id = c.previous WHERE c.depth < {LIMITS.messages}) "
            "SELECT id, previous, status FROM chain ORDER BY depth DESC",
            self._owner,
            id,
        )
        if not rows or rows[0]["previous"] is not None:
            raise _no_previous(rows[0]["previous"] if rows else id)
        if rows[-1]["status"] in RUNNING:
            raise InvalidRequest(
                f"previous_response_id: {id} is still {rows[-1]['status']}; wait until it has ended",
                param="previous_response_id",
            )
        return [row["id"] for row in rows]

    async def history(self, chain: Sequence[str]) -> list[Item]:
        """All items of a chain, in the order they were said."""
        rows = await ITEMS.of(self._database, self._owner).find({"response": list(chain)}, limit=LIMITS.messages + 1)
        if len(rows) > LIMITS.messages:
            raise InvalidRequest(
                f"the responses before this one hold more than {LIMITS.messages} items; "
                "make them short with POST /v1/responses/compact",
                param="previous_response_id",
            )
        places = {id: place for place, id in enumerate(chain)}
        rows.sort(key=lambda row: (places[row["response"]], row["created_ns"], row["id"]))
        return [Item.of(row) for row in rows]

    def inserting(
        self, resource: dict[str, Any], created_ns: int, *, job: str | None = None, request: str | None = None
    ) -> Statement:
        """The statement that makes the row of a response."""
        row = {
            "model": resource["model"],
            "status": resource["status"],
            "previous": resource["previous_response_id"],
            "conversation": None if resource["conversation"] is None else resource["conversation"]["id"],
            "is_background": int(resource["background"]),
            "job": job,
            "request": request,
            "body": _body(resource),
        }
        return self.responses.inserting(resource["id"], row, created_ns=created_ns)

    def ending(self, resource: dict[str, Any]) -> Statement:
        """The statement that writes the end of a background response; only of one that still runs."""
        changes = {"status": resource["status"], "body": _body(resource), "request": None}
        return self.responses.updating(resource["id"], changes, when={"status": RUNNING})

    def keeping(self, items: Sequence[Item], *, response: str | None, conversation: str | None) -> list[Statement]:
        """The statements that keep new items."""
        return inserting_items(self._database, self._owner, items, response=response, conversation=conversation)

    def joining(self, id: str, conversation: str) -> Statement:
        """The statement that puts the inputs of a response into a conversation."""
        return Statement(
            "UPDATE items SET conversation = ?1 WHERE owner = ?2 AND response = ?3 AND side = 'input'",
            (conversation, self._owner, id),
        )

    def logging(self, id: str, events: Sequence[dict[str, Any]]) -> Statement:
        """The statement that keeps numbered events."""
        row = {
            "response": id,
            "first_number": events[0]["sequence_number"],
            "last_number": events[-1]["sequence_number"],
            "body": json.dumps(events),
        }
        return EVENTS.of(self._database, self._owner).inserting(EVENTS.ids.new(), row, created_ns=stamp())

    async def events(self, id: str, after: int = -1) -> list[dict[str, Any]]:
        """The kept events of a response that come after a number."""
        rows = await EVENTS.of(self._database, self._owner).select("response = ?1 AND last_number > ?2", id, after)
        rows.sort(key=lambda row: row["first_number"])
        return [event for row in rows for event in json.loads(row["body"]) if event["sequence_number"] > after]

    def removing(self, id: str) -> list[Statement]:
        """The statements that remove a response; items of a conversation stay there."""
        return [
            self.responses.deleting(id),
            Statement("DELETE FROM response_events WHERE owner = ?1 AND response = ?2", (self._owner, id)),
            *releasing(self._owner, "response", id),
        ]


def _body(resource: dict[str, Any]) -> str:
    """The resource without its output, which is rows of its own."""
    return json.dumps({name: value for name, value in resource.items() if name not in ("output", "status")})


def _no_previous(id: str) -> InvalidRequest:
    return InvalidRequest(
        f"previous_response_id: no response {id[:80]!r} is kept here; it was deleted, or not stored",
        param="previous_response_id",
        code="previous_response_not_found",
    )
