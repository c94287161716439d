"""Work that a key asked for and that has not been done when the key is revoked or runs out: it is not done."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tests.kept import until
from tests.serving import chat_body, echo_stack, in_process

from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import build_app
from llamakit.stack.background import KEY_ENDED, REASON
from llamakit.stack.run_config import ServeConfig
from llamakit.storage.jobs import JobQueue

CHAT = "/v1/chat/completions"


class Gated(EchoInference):
    """Answers what does not begin with `wait` at once, and the rest when the gate is opened."""

    def __init__(self) -> None:
        super().__init__(EchoConfig(models=("echo",), delay_s=0.0))
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def chat(self, request):
        self.asked.append(request.messages[-1].text)
        if self.asked[-1].startswith("wait"):
            await self.gate.wait()
        async for event in super().chat(request):
            yield event


@asynccontextmanager
async def serving():
    inference = Gated()
    stack = echo_stack(inference, models=("echo",))
    async with in_process(build_app(stack, ServeConfig(require_key=True))) as client:
        try:
            yield client, stack, inference
        finally:
            await stack.aclose()


async def a_key(stack, name, **fields):
    key, kept = await stack.keys.create(name, owner="shop", **fields)
    return {"authorization": f"Bearer {key.reveal()}"}, kept


async def a_response(client, headers, text):
    body = {"model": "echo", "input": text, "background": True}
    return (await client.post("/v1/responses", json=body, headers=headers)).json()["id"]


async def a_batch(client, headers, *texts):
    rows = [{"custom_id": t, "method": "POST", "url": CHAT, "body": chat_body(t, store=True)} for t in texts]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {"file": ("in.jsonl", content)}
    file = (await client.post("/v1/files", files=files, data={"purpose": "batch"}, headers=headers)).json()["id"]
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    return (await client.post("/v1/batches", json=body, headers=headers)).json()["id"]


@asynccontextmanager
async def nobody_working(stack, background):
    """Jobs are put in within the block, and taken when it ends."""

    async def queue():
        return JobQueue(await stack.storage.database())

    await background.aclose()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "queue", queue)
        yield
    await background.start()


async def shown(client, headers, path):
    async def get():
        body = (await client.get(path, headers=headers)).json()
        return body | {"status": "in_progress"} if body["status"] == "validating" else body

    return await until(get)


async def test_running_work_of_a_revoked_key_is_stopped_and_says_why():
    async with serving() as (client, stack, inference):
        old, key = await a_key(stack, "old")
        new, _ = await a_key(stack, "new")
        response, other = await a_response(client, old, "wait a"), await a_response(client, new, "wait b")
        batch = await a_batch(client, old, "done", "wait c")
        async with asyncio.timeout(10):
            while not {"wait a", "wait b", "done", "wait c"} <= set(inference.asked):
                await asyncio.sleep(0.01)
            while (await client.get(f"/v1/batches/{batch}", headers=new)).json()["request_counts"]["completed"] < 1:
                await asyncio.sleep(0.01)
        await stack.keys.revoke(key.id)
        ended = await shown(client, new, f"/v1/responses/{response}")
        assert ended["status"] == "failed" and ended["error"] == {"code": KEY_ENDED, "message": REASON}
        ended = await shown(client, new, f"/v1/batches/{batch}")
        assert ended["status"] == "failed" and ended["request_counts"] == {"total": 2, "completed": 1, "failed": 0}
        (error,) = ended["errors"]["data"]
        assert (error["code"], error["message"]) == (KEY_ENDED, REASON)
        output = (await client.get(f"/v1/files/{ended['output_file_id']}/content", headers=new)).text
        assert [json.loads(line)["custom_id"] for line in output.splitlines()] == ["done"]
        inference.gate.set()
        assert (await shown(client, new, f"/v1/responses/{other}"))["status"] == "completed"
        assert len((await client.get(CHAT, headers=new)).json()["data"]) == 1


@pytest.mark.parametrize("way", ["revoked", "expired"])
async def test_waiting_work_of_an_ended_key_is_not_begun(way):
    async with serving() as (client, stack, inference):
        old, key = await a_key(stack, "old", expires_s=None if way == "revoked" else 3600)
        new, _ = await a_key(stack, "new")
        async with nobody_working(stack, stack.background):
            response, batch = await a_response(client, old, "never"), await a_batch(client, old, "never")
            if way == "revoked":
                await stack.keys.revoke(key.id)
            else:
                database = await stack.storage.database()
                await database.execute("UPDATE api_keys SET expires_ns = 1 WHERE id = ?1", key.id)
        for path in (f"/v1/responses/{response}", f"/v1/batches/{batch}"):
            ended = await shown(client, new, path)
            assert ended["status"] == "failed" and REASON in json.dumps(ended)
        assert inference.asked == []


async def test_a_file_of_an_ended_key_is_not_read():
    async with serving() as (client, stack, _):
        old, key = await a_key(stack, "old")
        new, _ = await a_key(stack, "new")
        files = {"file": ("a.txt", b"words")}
        made = await client.post("/v1/files", files=files, data={"purpose": "assistants"}, headers=old)
        store = (await client.post("/v1/vector_stores", json={"name": "x"}, headers=old)).json()["id"]
        file = made.json()["id"]
        async with nobody_working(stack, stack.vector_stores.ingestion.background):
            await client.post(f"/v1/vector_stores/{store}/files", json={"file_id": file}, headers=old)
            await stack.keys.revoke(key.id)
        ended = await shown(client, new, f"/v1/vector_stores/{store}/files/{file}")
        assert ended["status"] == "failed" and ended["last_error"]["message"] == REASON
