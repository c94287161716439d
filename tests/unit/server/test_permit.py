"""The permission of a request: what it counts, and how it ends."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.serving import chat_body, echo_stack, in_process

from llamakit.core.errors import StorageError
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import build_app
from llamakit.server.errors import Unauthenticated
from llamakit.server.exchange import Exchange
from llamakit.server.permit import Permit
from llamakit.stack.run_config import ServeConfig

OVER = Unauthenticated("it is over")


def permit_of(*messages):
    """A permit whose client sends these and then nothing."""
    left = list(messages)

    async def receive():
        if left:
            return left.pop(0)
        await asyncio.Event().wait()

    released = []
    return Permit(Exchange(id="r", method="POST"), receive, released.append), released


async def test_bytes_are_counted_and_the_place_is_given_back():
    permit, released = permit_of({"type": "http.request", "body": b"abc"}, {"type": "http.disconnect"})
    assert (await permit.receive())["body"] == b"abc"
    assert (await permit.receive())["type"] == "http.disconnect"
    permit.close()
    assert permit.num_bytes == 3 and released == [permit]


async def test_one_that_ended_before_it_waited_fails_when_it_does():
    permit, _ = permit_of({"type": "http.request", "body": b"abc"})
    permit.end(OVER)
    permit.end(Unauthenticated("a second time"))
    with pytest.raises(Unauthenticated, match="it is over"):
        await permit.receive()


async def test_one_that_waits_ends_at_once_and_its_task_lives_on():
    permit, _ = permit_of()

    async def work() -> str:
        try:
            async with asyncio.timeout(5):
                await permit.receive()
        except Unauthenticated:
            await asyncio.sleep(0)  # the task is not cancelled any more
            return "ended"
        return "never"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    permit.end(OVER)
    assert await task == "ended" and not task.cancelling()


async def test_a_task_that_is_cancelled_by_others_stays_cancelled():
    permit, _ = permit_of()
    task = asyncio.create_task(permit.receive())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_database_that_is_away_for_a_moment_ends_no_answer(caplog, monkeypatch):
    caplog.set_level(logging.WARNING, "llamakit")
    stack = echo_stack(EchoInference(EchoConfig(models=("echo",), delay_s=0.02)))
    key, _ = await stack.keys.create("laptop")
    asked = 0

    async def away(_ids):
        nonlocal asked
        asked += 1
        raise StorageError("the database is away")

    monkeypatch.setattr(type(stack.keys), "ended", lambda _, ids: away(ids))
    async with in_process(build_app(stack, ServeConfig(require_key=True))) as client:
        headers = {"authorization": f"Bearer {key.reveal()}"}
        answer = await client.post("/v1/chat/completions", json=chat_body("word " * 10), headers=headers)
    assert answer.status_code == 200 and asked
    assert "could not be looked at" in caplog.text
    await stack.aclose()
