"""Where a server keeps its rows: targets, private files, and the whole of what is kept on PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.postgres import empty_database

from llamakit.api.openai_conversations import WireConversationRequest
from llamakit.api.openai_lists import PageQuery
from llamakit.api.openai_responses import ResponseRequest
from llamakit.api.prompts import WirePromptRequest
from llamakit.api.wire import read
from llamakit.core.errors import ConfigError, NotFound, StorageError
from llamakit.providers.inline.inference.echo import EchoInference
from llamakit.stack.build import Stack
from llamakit.stack.distribution import StorageConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

OWNER = "tests"


@pytest.mark.parametrize("target", ["", "mysql://u:hunter2@h/d", "sqlite:", "x.db", "LOCAL", "sqlite3:/x"])
def test_what_is_no_target_is_refused_and_not_repeated(target):
    with pytest.raises(ConfigError) as caught:
        StorageConfig(database=target)
    assert "hunter2" not in str(caught.value) and "sqlite:PATH" in str(caught.value)


def test_a_url_does_not_show_itself():
    assert "hunter2" not in repr(StorageConfig(database="postgresql://u:hunter2@h/d"))


async def test_a_private_file_goes_with_the_server():
    storage = Storage(":memory:", STEPS)
    first, second = await asyncio.gather(storage.database(), storage.database())
    assert first is second
    path = Path(first.path)
    assert path.is_file() and path.stat().st_mode & 0o077 == 0
    await storage.aclose()
    await storage.aclose()
    assert not path.parent.exists()
    with pytest.raises(StorageError):
        await storage.database()


async def test_the_default_is_under_the_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    storage = Storage(StorageConfig().database, STEPS)
    await storage.database()
    await storage.aclose()
    assert (tmp_path / "home" / "server.db").is_file()


async def test_a_file_of_a_newer_build_is_refused(tmp_path):
    target = f"sqlite:{tmp_path}/x.db"

    async def create_later(transaction):
        await transaction.execute("CREATE TABLE later (x TEXT)")

    newer = Storage(target, (*STEPS, create_later))
    await newer.database()
    await newer.aclose()
    storage = Storage(target, STEPS)
    with pytest.raises(ConfigError, match="newer"):
        await storage.database()
    await storage.aclose()


@pytest.fixture(params=["sqlite", "postgres"])
async def target(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/x.db"
        return
    async with empty_database(request.getfixturevalue("postgres_server")) as url:
        yield url


async def test_everything_on_both_engines(target):
    stack = Stack(inference=EchoInference(), default_models=("echo",), storage=Storage(target, STEPS))
    await stack.start()

    async def ask(**fields):
        wire, _ = read(ResponseRequest, {"model": "echo", **fields})
        plan = await stack.responses.prepare(OWNER, wire, "")
        if wire.background:
            return await stack.responses.background.enqueue(OWNER, plan)
        return await stack.responses.whole(OWNER, plan, stack.inference.chat)

    conversation = (await stack.conversations.create(OWNER, WireConversationRequest(metadata={"a": "b"})))["id"]
    before = None
    for n in range(3):
        before = (await ask(input=f"q{n}", previous_response_id=before))["id"]
    items = (await stack.responses.input_items(OWNER, before, PageQuery(order="asc")))["data"]
    assert [item["content"][0]["text"] for item in items] == ["q0", "q0", "q1", "q1", "q2"]
    queued = await ask(input="later\u0000!", background=True, conversation=conversation)
    events = [event async for event in stack.responses.background.tail(OWNER, queued["id"], -1)]
    kept = await stack.responses.get(OWNER, queued["id"])
    assert events[-1]["response"] == kept and kept["status"] == "completed"
    assert len((await stack.conversations.list_items(OWNER, conversation, PageQuery()))["data"]) == 2
    prompt = await stack.prompts.create(OWNER, WirePromptRequest(prompt="x"))
    body = {"id": "chatcmpl-" + "a" * 48, "model": "echo"}
    await stack.chats.keep(await stack.chats.keeping(OWNER, body, [], {"k": "v"}))
    found = await stack.chats.list(OWNER, PageQuery(), model="echo", metadata={"k": "v"})
    assert len(found["data"]) == 1
    assert (await stack.responses.list(OWNER, PageQuery(limit=2), model=None))["has_more"]
    for owner in ("somebody",):
        with pytest.raises(NotFound):
            await stack.responses.get(owner, before)
        with pytest.raises(NotFound):
            await stack.prompts.get(owner, prompt["prompt_id"])
    await stack.responses.delete(OWNER, queued["id"])
    await stack.conversations.delete(OWNER, conversation)
    database = await stack.storage.database()
    assert (await database.fetch("SELECT count(*) AS n FROM items WHERE response IS NULL"))[0]["n"] == 0
    await stack.aclose()
