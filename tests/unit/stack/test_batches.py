"""Batches over HTTP: what is refused, what every line becomes, and how a batch goes on and ends."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tests.kept import kept_stack
from tests.serving import chat_body, echo_stack, in_process

from llamakit.api.batches import window_s
from llamakit.api.openai_lists import PageQuery
from llamakit.core.config import Secret
from llamakit.core.errors import InvalidRequest, Overloaded
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import build_app
from llamakit.stack import batches as batches_module
from llamakit.stack.batch_input import check_input
from llamakit.stack.build import Stack
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


class Books(EchoInference):
    """Counts how often each text was asked, and can be told to be busy or to hang."""

    def __init__(self, **settings) -> None:
        super().__init__(EchoConfig(**settings))
        self.asked: list[str] = []
        self.busy = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def chat(self, request):
        text = request.messages[-1].text
        self.asked.append(text)
        if self.busy:
            self.busy -= 1
            raise Overloaded("busy")
        if text.startswith("wait"):
            await self.gate.wait()
        async for event in super().chat(request):
            yield event


def row(custom_id, body, url=CHAT, **changes):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **changes}


def chats(*texts):
    return [row(f"r{n}", chat_body(text)) for n, text in enumerate(texts)]


@asynccontextmanager
async def serving(inference=None, stack=None, **settings):
    stack = stack or echo_stack(inference)
    async with in_process(build_app(stack, ServeConfig(**settings))) as client:
        try:
            yield client, stack
        finally:
            await stack.aclose()


async def begin(client, stack, rows, endpoint=CHAT, **fields):
    content = rows if isinstance(rows, bytes) else "".join(json.dumps(one) + "\n" for one in rows).encode()
    file = await stack.files.create("local", "in.jsonl", "batch", content)
    body = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h", **fields}
    response = await client.post("/v1/batches", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def ended(client, batch):
    async with asyncio.timeout(20):
        while batch["status"] not in ENDED:
            await asyncio.sleep(0.02)
            batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
    return batch


async def lines_of(stack, file_id):
    return [json.loads(line) for line in (await stack.files.read("local", file_id)).splitlines()]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_every_line_gets_the_answer_of_its_route_or_its_error(engine, request):
    async with kept_stack(engine, request) as kept, serving(stack=kept) as (client, stack):
        rows = [
            *chats("one", "two"),
            row("bad", chat_body("x", temperature=9)),
            row("lost", chat_body("x", model="no")),
        ]
        rows.append(row("odd", chat_body("y", no_such_field=1)))
        batch = await ended(client, await begin(client, stack, rows, metadata={"a": "b"}))
        assert batch["status"] == "completed" and batch["metadata"] == {"a": "b"} and batch["model"] is None
        assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
        assert batch["usage"]["total_tokens"] == batch["usage"]["input_tokens"] + batch["usage"]["output_tokens"] > 0
        output = await lines_of(stack, batch["output_file_id"])
        assert [line["custom_id"] for line in output] == ["r0", "r1", "odd"]
        assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in output] == ["one", "two", "y"]
        assert output[2]["response"]["ignored"] == ["no_such_field"] and output[0]["error"] is None
        errors = await lines_of(stack, batch["error_file_id"])
        assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [
            ("bad", 400),
            ("lost", 404),
        ]
        assert errors[0]["response"]["body"]["error"]["param"] == "temperature"
        shown = await stack.files.get("local", batch["output_file_id"])
        assert shown["purpose"] == "batch_output" and shown["filename"].startswith(batch["id"])
        listed = (await client.get("/v1/batches?limit=1")).json()
        assert listed["data"] == [batch] and listed["first_id"] == batch["id"] and listed["has_more"] is False


@pytest.mark.parametrize(
    ("endpoint", "body", "of"),
    [
        ("/v1/completions", {"model": "echo", "prompt": "abc", "max_tokens": 3}, lambda b: b["choices"][0]["text"]),
        ("/v1/embeddings", {"model": "echo", "input": "abc"}, lambda b: len(b["data"]) * "abc"),
        (
            "/v1/responses",
            {"model": "echo", "input": "abc", "store": True},
            lambda b: b["output"][0]["content"][0]["text"],
        ),
    ],
)
async def test_other_endpoints(endpoint, body, of):
    async with serving() as (client, stack):
        streamed = row("s", {**body, "stream": True}, endpoint)
        batch = await ended(client, await begin(client, stack, [row("x", body, endpoint), streamed], endpoint))
        (line,) = await lines_of(stack, batch["output_file_id"])
        assert of(line["response"]["body"]) == "abc" and batch["model"] == "echo"
        if endpoint == "/v1/responses":
            kept = (await client.get(f"/v1/responses/{line['response']['body']['id']}")).json()
            assert kept == line["response"]["body"]
        if endpoint != "/v1/embeddings":
            (refused,) = await lines_of(stack, batch["error_file_id"])
            assert refused["response"]["body"]["error"]["param"] == "stream"


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"", "empty_file", None),
        (b"\n\n", "empty_file", None),
        (b"{nonsense\n", "invalid_json_line", 1),
        (b'"text"\n', "invalid_json_line", 1),
        (json.dumps(row("a", {}, "/v1/embeddings")).encode(), "mismatched_url", 1),
        (json.dumps(row("a", {}, method="GET")).encode(), "invalid_line", 1),
        (json.dumps(row("", {})).encode(), "invalid_line", 1),
        (json.dumps(row("a", [])).encode(), "invalid_line", 1),
        (json.dumps(row("a", {}, extra=1)).encode(), "invalid_line", 1),
        (b"\n".join(json.dumps(row("a", {})).encode() for _ in range(2)), "duplicate_custom_id", 2),
    ],
)
async def test_a_file_that_is_no_batch_fails_with_the_line_and_the_reason(content, code, line):
    async with serving() as (client, stack):
        batch = await ended(client, await begin(client, stack, content))
        assert batch["status"] == "failed" and batch["failed_at"] and batch["output_file_id"] is None
        (error,) = batch["errors"]["data"]
        assert (error["code"], error["line"]) == (code, line) and error["message"]


async def test_lines_are_found_wherever_the_pieces_are_cut(monkeypatch):
    content = "".join(json.dumps(row(f"ü{n}", {"model": "m"})) + "\r\n" for n in range(5)).encode()

    async def cut(size):
        for start in range(0, len(content), size):
            yield content[start : start + size]

    for size in (1, 7, 64, len(content)):
        checked = await check_input(cut(size), CHAT)
        assert (checked.total, checked.model, checked.errors) == (5, "m", [])
    monkeypatch.setattr("llamakit.stack.batch_input.MAX_LINES", 3)
    checked = await check_input(cut(64), CHAT)
    assert [error["code"] for error in checked.errors] == ["too_many_requests"]


async def test_what_cannot_become_a_batch_is_refused():
    async with serving() as (client, stack):
        other = await stack.files.create("local", "x.txt", "user_data", b"x")
        foreign = await stack.files.create("anna", "x.jsonl", "batch", b"x")
        right = {"endpoint": CHAT, "completion_window": "24h"}
        for body, status in (
            ({**right, "input_file_id": other["id"]}, 400),
            ({**right, "input_file_id": foreign["id"]}, 404),
            ({**right, "input_file_id": "file-" + "0" * 48}, 404),
            ({**right, "input_file_id": foreign["id"], "endpoint": "/v1/nothing"}, 400),
            (right, 400),
        ):
            assert (await client.post("/v1/batches", json=body)).status_code == status, body
        assert (await client.get("/v1/batches")).json()["data"] == []
        for path in ("", "/cancel"):
            response = await client.request("POST" if path else "GET", f"/v1/batches/batch_{'0' * 48}{path}")
            assert response.status_code == 404


async def test_an_idempotency_key_makes_one_batch():
    async with serving() as (client, stack):
        file = await stack.files.create("local", "x", "batch", json.dumps(row("a", chat_body("x"))).encode())
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", "idempotency_key": "k"}
        first, second = [(await client.post("/v1/batches", json=body)).json() for _ in range(2)]
        assert first["id"] == second["id"]
        other = await client.post("/v1/batches", json=body | {"completion_window": "2d"})
        assert other.status_code == 409
        await ended(client, first)


async def test_cancelling_keeps_what_was_answered_and_names_what_was_not():
    inference = Books()
    inference.gate.clear()
    async with serving(inference) as (client, stack):
        batch = await begin(client, stack, chats("a", "b", *(f"wait {n}" for n in range(30))))
        async with asyncio.timeout(10):
            while (await client.get(f"/v1/batches/{batch['id']}")).json()["request_counts"]["completed"] < 2:
                await asyncio.sleep(0.01)
        assert len(inference.running) + len(inference.asked) <= 2 * batches_module.AT_ONCE + 2
        cancelling = (await client.post(f"/v1/batches/{batch['id']}/cancel")).json()
        assert cancelling["status"] == "cancelling" and cancelling["cancelling_at"]
        batch = await ended(client, cancelling)
        assert batch["status"] == "cancelled" and batch["request_counts"] == {"total": 32, "completed": 2, "failed": 0}
        assert len(await lines_of(stack, batch["output_file_id"])) == 2
        left = await lines_of(stack, batch["error_file_id"])
        assert len(left) == 30 and {line["error"]["code"] for line in left} == {"batch_cancelled"}
        assert not inference.running
        assert (await client.post(f"/v1/batches/{batch['id']}/cancel")).json() == batch


async def test_a_line_whose_answer_has_no_place_any_more_is_an_error_of_that_line():
    inference = Books()
    inference.gate.clear()
    async with serving(inference) as (client, stack):
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        rows = [
            row("lost", {"model": "echo", "input": "wait", "conversation": conversation}, "/v1/responses"),
            row("kept", {"model": "echo", "input": "wait too"}, "/v1/responses"),
        ]
        batch = await begin(client, stack, rows, "/v1/responses")
        async with asyncio.timeout(10):
            while len(inference.asked) < 2:
                await asyncio.sleep(0.01)
        assert (await client.delete(f"/v1/conversations/{conversation}")).status_code == 200
        inference.gate.set()
        batch = await ended(client, batch)
        assert batch["status"] == "completed" and batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        (lost,) = await lines_of(stack, batch["error_file_id"])
        assert lost["custom_id"] == "lost" and lost["response"]["status_code"] == 404
        (kept,) = await lines_of(stack, batch["output_file_id"])
        assert [one["id"] for one in (await client.get("/v1/responses")).json()["data"]] == [
            kept["response"]["body"]["id"]
        ]


async def test_a_batch_whose_time_is_over_expires():
    inference = Books()
    inference.gate.clear()
    async with serving(inference) as (client, stack):
        batch = await begin(client, stack, chats("a", "wait"), completion_window="1m")
        assert batch["expires_at"] == batch["created_at"] + 60
        stack.batches._clock = lambda: batch["expires_at"] + 1
        batch = await ended(client, batch)
        assert batch["status"] == "expired" and batch["expired_at"]
        left = await lines_of(stack, batch["error_file_id"])
        assert left[-1]["error"]["code"] == "batch_expired" and left[-1]["response"] is None


async def test_a_busy_server_is_asked_again():
    inference = Books()
    inference.busy = 2
    async with serving(inference) as (client, stack):
        batch = await ended(client, await begin(client, stack, chats("a", "b")))
        assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


async def test_a_stopped_server_goes_on_behind_the_last_answered_line(tmp_path):
    def stack_of(inference):
        storage = Storage(f"sqlite:{tmp_path}/server.db", STEPS)
        return Stack(inference=inference, default_models=("echo",), storage=storage)

    first, second = Books(), Books()
    first.gate.clear()
    async with serving(stack=stack_of(first)) as (client, stack):
        batch = await begin(client, stack, chats("a", "wait b", "c", "wait d"))
        async with asyncio.timeout(10):
            while (await client.get(f"/v1/batches/{batch['id']}")).json()["request_counts"]["completed"] < 2:
                await asyncio.sleep(0.01)
    async with serving(stack=stack_of(second)) as (client, stack):
        await stack.start()
        batch = await ended(client, batch | {"status": "in_progress"})
        assert batch["status"] == "completed"
        assert sorted(second.asked) == ["wait b", "wait d"], "a finished line was computed twice"
        output = await lines_of(stack, batch["output_file_id"])
        said = [line["response"]["body"]["choices"][0]["message"]["content"] for line in output]
        assert said == ["a", "wait b", "c", "wait d"]
        files = (await stack.files.list("local", PageQuery()))["data"]
        assert [file["purpose"] for file in files] == ["batch_output", "batch"]


async def test_a_batch_is_its_owners():
    keys = ("key-of-anna", "key-of-boris")
    anna, boris = ({"authorization": f"Bearer {key}"} for key in keys)
    async with serving(api_keys=tuple(Secret(key) for key in keys)) as (client, stack):
        await client.post("/v1/conversations", json={}, headers=anna)
        (kept,) = await (await stack.storage.database()).fetch("SELECT owner FROM conversations")
        file = await stack.files.create(kept["owner"], "in", "batch", json.dumps(row("a", chat_body("x"))).encode())
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        assert (await client.post("/v1/batches", json=body, headers=boris)).status_code == 404
        batch = (await client.post("/v1/batches", json=body, headers=anna)).json()
        assert (await client.get("/v1/batches", headers=boris)).json()["data"] == []
        for method, path in (("GET", ""), ("POST", "/cancel")):
            path = f"/v1/batches/{batch['id']}{path}"
            assert (await client.request(method, path, headers=boris)).status_code == 404
            assert (await client.request(method, path, headers=anna)).status_code == 200


async def test_a_bug_of_ours_ends_the_batch_and_tells_nothing(monkeypatch):
    monkeypatch.setattr(batches_module, "MAX_ATTEMPTS", 1)
    async with serving() as (client, stack):

        async def broken(*_):
            raise RuntimeError("secret")

        stack.batches.answer_with(broken)
        batch = await ended(client, await begin(client, stack, chats("a")))
        assert batch["status"] == "failed" and "secret" not in json.dumps(batch)
        assert batch["errors"]["data"][0]["code"] == "internal_error"


@pytest.mark.parametrize("text", ["", "24", "0h", "1s", "31d", "99999h", "24H", "-1h", "1.5h"])
def test_windows_that_are_none(text):
    with pytest.raises(InvalidRequest):
        window_s(text)
    assert window_s("24h") == 86_400 and window_s("30d") == 30 * 86_400
