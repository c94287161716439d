"""Sessions: conversations of an agent that outlive the process, turn by turn, as rows with an owner.

A turn is written when it begins, after each step, and when it ends, so what was shown to a client
is found again after a crash. Messages are JSON; the two functions that write and read them are here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.core.errors import Conflict, StorageError
from llamakit.core.messages import ImagePart, Message, Part, TextPart, ToolCall
from llamakit.storage.ids import SESSION, TURN
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

TurnState = Literal["running", "awaiting", "done", "failed", "cancelled"]

SESSIONS = Table("agent_sessions", ("agent", "name", "facts"), ids=SESSION)
TURNS = Table("agent_turns", ("session", "state", "input", "added", "steps", "reason"), ids=TURN)


async def create_sessions(transaction: Executor) -> None:
    """The migration that makes the tables of sessions."""
    statements = [
        *create_owned("agent_sessions", "agent TEXT NOT NULL", "name TEXT NOT NULL", "facts TEXT NOT NULL"),
        *create_owned(
            "agent_turns",
            "session TEXT NOT NULL",
            "state TEXT NOT NULL",
            "input TEXT NOT NULL",
            "added TEXT NOT NULL",
            "steps TEXT NOT NULL",
            "reason TEXT",
        ),
        "CREATE INDEX agent_turns_of_session ON agent_turns (owner, session, created_ns)",
        # One turn at a time, whichever process it runs in.
        "CREATE UNIQUE INDEX agent_turns_running ON agent_turns (owner, session) WHERE state = 'running'",
    ]
    for sql in statements:
        await transaction.execute(sql)


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as JSON; only the fields it has."""
    made: dict[str, Any] = {"role": message.role}
    if message.content:
        made["content"] = [_part_to_json(part) for part in message.content]
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        made["name"] = message.name
    return made


def message_from_json(value: Mapping[str, Any]) -> Message:
    """The message of `message_to_json`; `StorageError` where a row does not hold one."""
    try:
        return Message(
            role=value["role"],
            content=tuple(_part_from_json(part) for part in value.get("content", ())),
            tool_calls=tuple(
                ToolCall(id=call["id"], name=call["name"], arguments=call["arguments"])
                for call in value.get("tool_calls", ())
            ),
            tool_call_id=value.get("tool_call_id"),
            name=value.get("name"),
        )
    except (KeyError, TypeError, binascii.Error) as error:
        raise StorageError(f"a stored message is damaged ({error}); restore a backup") from error


def _part_to_json(part: Part) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"image": base64.b64encode(part.data).decode("ascii"), "mime": part.mime}
    return {"text": part.text}


def _part_from_json(value: Mapping[str, Any]) -> Part:
    if "image" in value:
        return ImagePart(data=base64.b64decode(value["image"], validate=True), mime=value["mime"])
    return TextPart(text=value["text"])


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn of a session."""

    id: str
    session: str
    state: TurnState
    input: tuple[Message, ...]
    """What the person sent."""
    added: tuple[Message, ...]
    """What the agent and its tools said so far."""
    steps: tuple[Mapping[str, Any], ...]
    """The caller's own records, in order."""
    reason: str | None
    created_ns: int


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with one agent."""

    id: str
    agent: str
    name: str
    facts: Mapping[str, Any]
    created_ns: int


class Sessions:
    """The sessions of all owners; every method takes one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, owner: str, agent: str, name: str, facts: Mapping[str, Any] | None = None) -> Session:
        """Begin a session."""
        id = SESSION.new()
        row = {"agent": agent, "name": name, "facts": json.dumps(dict(facts or {}))}
        await SESSIONS.of(self._database, owner).insert(id, row)
        return await self.get(owner, id)

    async def get(self, owner: str, id: str) -> Session:
        """A session, or `NotFound`."""
        row = await SESSIONS.of(self._database, owner).get(id)
        return Session(row["id"], row["agent"], row["name"], json.loads(row["facts"]), row["created_ns"])

    async def of_agent(self, owner: str, agent: str) -> list[Session]:
        """The sessions of an agent, oldest first."""
        rows = await SESSIONS.of(self._database, owner).find({"agent": agent})
        return [await self.get(owner, row["id"]) for row in rows]

    async def delete(self, owner: str, id: str) -> None:
        """Remove a session and its turns."""
        turns = Statement("DELETE FROM agent_turns WHERE owner = ?1 AND session = ?2", (owner, id))
        await self._database.run(SESSIONS.of(self._database, owner).deleting(id), turns)

    async def begin(self, owner: str, session: str, input: Sequence[Message]) -> StoredTurn:
        """Write a new turn of a session; `Conflict` while another of it runs."""
        await self.get(owner, session)
        id = TURN.new()
        row = {"session": session, "state": "running", "input": _dump(input), "added": "[]", "steps": "[]"}
        try:
            await TURNS.of(self._database, owner).insert(id, row)
        except Conflict as error:
            raise Conflict(f"session {session} is still answering; wait for its turn to end, or cancel it") from error
        return await self.turn(owner, session, id)

    async def save(
        self,
        owner: str,
        turn: StoredTurn,
        *,
        state: TurnState,
        added: Sequence[Message],
        steps: Sequence[Mapping[str, Any]],
        reason: str | None = None,
    ) -> StoredTurn:
        """Write what a turn has come to; `Conflict` where it was ended meanwhile."""
        changes = {"state": state, "added": _dump(added), "steps": json.dumps(list(steps)), "reason": reason}
        open_states = ("running", "awaiting")
        await TURNS.of(self._database, owner).update(turn.id, changes, when={"state": open_states})
        return await self.turn(owner, turn.session, turn.id)

    async def turn(self, owner: str, session: str, id: str) -> StoredTurn:
        """A turn of a session, or `NotFound`."""
        rows = await TURNS.of(self._database, owner).find({"id": id, "session": session})
        if not rows:
            raise TURN.missing(id)
        return _turn(rows[0])

    async def turns(self, owner: str, session: str) -> list[StoredTurn]:
        """The turns of a session, oldest first."""
        await self.get(owner, session)
        return [_turn(row) for row in await TURNS.of(self._database, owner).find({"session": session})]

    async def conversation(self, owner: str, session: str) -> list[Message]:
        """Everything said in a session, to go on from; turns that failed or were cancelled are left out."""
        said: list[Message] = []
        for turn in await self.turns(owner, session):
            if turn.state in ("done", "awaiting"):
                said += [*turn.input, *turn.added]
        return said

    async def fail_running(self, reason: str) -> int:
        """At a start: turns a dead process left running are failed with the reason; how many there were."""
        return await self._database.execute(
            "UPDATE agent_turns SET state = 'failed', reason = ?1 WHERE state = 'running'", reason
        )


def _dump(messages: Sequence[Message]) -> str:
    return json.dumps([message_to_json(message) for message in messages])


def _turn(row: Row) -> StoredTurn:
    return StoredTurn(
        id=row["id"],
        session=row["session"],
        state=row["state"],
        input=tuple(message_from_json(value) for value in json.loads(row["input"])),
        added=tuple(message_from_json(value) for value in json.loads(row["added"])),
        steps=tuple(json.loads(row["steps"])),
        reason=row["reason"],
        created_ns=row["created_ns"],
    )
