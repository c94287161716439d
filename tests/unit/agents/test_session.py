import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamakit.agents.session import Sessions, create_sessions, message_from_json, message_to_json
from llamakit.core.errors import Conflict, NotFound, StorageError
from llamakit.core.messages import ImagePart, Message, TextPart, ToolCall, assistant, system, tool_result, user
from llamakit.storage.migrations import migrate
from llamakit.storage.sql import Database
from llamakit.storage.sqlite import SqliteDatabase

CALL = ToolCall(id="c1", name="add", arguments='{"a": 1}')


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await SqliteDatabase.open(tmp_path / "agents.db")
    await migrate(opened, [create_sessions])
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    "message",
    [
        system("be kind"),
        user("hi 🦙"),
        assistant("so", CALL),
        assistant(),
        tool_result(CALL, "3"),
        Message(role="user", content=(TextPart(text="see"), ImagePart(data=b"\x89PNG\0", mime="image/png"))),
    ],
)
def test_messages_come_back_as_they_went(message: Message):
    assert message_from_json(message_to_json(message)) == message


@pytest.mark.parametrize(
    "row", [{}, {"role": "user", "content": [{}]}, {"role": "user", "content": [{"image": "!", "mime": "x"}]}]
)
def test_a_damaged_row_is_told(row: dict):
    with pytest.raises(StorageError, match="damaged"):
        message_from_json(row)


async def test_a_session_remembers(database: Database):
    sessions = Sessions(database)
    session = await sessions.create("ann", "agent_1", "first", {"k": 1})
    turn = await sessions.begin("ann", session.id, [user("add")])
    turn = await sessions.save("ann", turn, state="running", added=[assistant("", CALL)], steps=[{"type": "inference"}])
    assert (turn.state, turn.steps) == ("running", ({"type": "inference"},))
    said = [assistant("", CALL), tool_result(CALL, "3"), assistant("3")]
    await sessions.save("ann", turn, state="done", added=said, steps=[])
    assert await sessions.conversation("ann", session.id) == [user("add"), *said]
    assert [found.id for found in await sessions.of_agent("ann", "agent_1")] == [session.id]


async def test_one_turn_at_a_time(database: Database):
    sessions = Sessions(database)
    session = await sessions.create("ann", "a", "s")
    results = await asyncio.gather(
        *(sessions.begin("ann", session.id, [user(str(n))]) for n in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 4
    (turn,) = await sessions.turns("ann", session.id)
    await sessions.save("ann", turn, state="cancelled", added=[], steps=[])
    with pytest.raises(Conflict):
        await sessions.save("ann", turn, state="done", added=[assistant("late")], steps=[])
    assert await sessions.conversation("ann", session.id) == []
    await sessions.begin("ann", session.id, [user("again")])


async def test_turns_of_a_dead_process_are_failed_at_the_start(database: Database):
    sessions = Sessions(database)
    session = await sessions.create("ann", "a", "s")
    turn = await sessions.begin("ann", session.id, [user("x")])
    assert await sessions.fail_running("the server was restarted") == 1
    found = await sessions.turn("ann", session.id, turn.id)
    assert (found.state, found.reason) == ("failed", "the server was restarted")


async def test_nobody_reaches_anothers_session(database: Database):
    sessions = Sessions(database)
    session = await sessions.create("ann", "a", "s")
    turn = await sessions.begin("ann", session.id, [user("x")])
    for attempt in (
        sessions.get("bob", session.id),
        sessions.begin("bob", session.id, [user("y")]),
        sessions.turns("bob", session.id),
        sessions.turn("bob", session.id, turn.id),
        sessions.conversation("bob", session.id),
        sessions.delete("bob", session.id),
        sessions.save("bob", turn, state="done", added=[], steps=[]),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await sessions.of_agent("bob", "a") == []
    await sessions.delete("ann", session.id)
    with pytest.raises(NotFound):
        await sessions.turns("ann", session.id)
