"""What a server keeps: every operation of it, by its owner and by somebody else, on a private database."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.serving import chat_body, echo_app, echo_stack, in_process

from llamakit.core.config import Secret
from llamakit.core.errors import Overloaded, StorageFull
from llamakit.server.app import build_app, operations_of
from llamakit.stack.build import Stack
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

KEYS = ("key-of-anna", "key-of-boris")
ANNA, BORIS = ({"authorization": f"Bearer {key}"} for key in KEYS)
UNKNOWN = {
    "response_id": "resp_" + "0" * 48,
    "conversation_id": "conv_" + "0" * 48,
    "prompt_id": "pmpt_" + "0" * 48,
    "completion_id": "chatcmpl-" + "0" * 48,
    "item_id": "msg_" + "0" * 48,
}
BODIES = {
    "updateConversation": {"metadata": {"a": "b"}},
    "createConversationItems": {"items": [{"role": "user", "content": "x"}]},
    "updateChatCompletion": {"metadata": {"a": "b"}},
    "updatePrompt": {"prompt": "y {{ name }}", "version": 1},
    "setDefaultPromptVersion": {"version": 1},
}
TAGS = ("responses", "conversations", "prompts", "stored chat")


@asynccontextmanager
async def client_of(stack: Stack | None = None, **settings):
    stack = stack or echo_stack()
    app = build_app(stack, ServeConfig(**settings))
    async with in_process(app) as client:
        try:
            yield client
        finally:
            await stack.aclose()


async def made(client, headers=None) -> dict[str, str]:
    """One of everything, by the names of the path's places."""

    async def post(path, body):
        response = await client.post(path, json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    conversation = await post("/v1/conversations", {"items": [{"role": "user", "content": "hi"}]})
    items = await client.get(f"/v1/conversations/{conversation['id']}/items", headers=headers)
    return {
        "response_id": (await post("/v1/responses", {"model": "echo", "input": "x", "background": True}))["id"],
        "conversation_id": conversation["id"],
        "prompt_id": (await post("/v1/prompts", {"prompt": "x {{ name }}"}))["prompt_id"],
        "completion_id": (await post("/v1/chat/completions", chat_body(store=True)))["id"],
        "item_id": items.json()["data"][0]["id"],
    }


def kept_operations():
    """Those that name an object, the deletions last."""
    own = [operation for operation in operations_of(echo_app()) if operation.alias_of is None]
    found = [operation for operation in own if operation.tag in TAGS and "{" in operation.path]
    return sorted(found, key=lambda operation: (operation.method == "DELETE", len(operation.path) * -1))


async def call(client, operation, ids, headers=None):
    body = BODIES.get(operation.name)
    return await client.request(operation.method, operation.path.format(**ids), json=body, headers=headers)


async def test_every_operation_answers_as_the_document_says():
    async with client_of() as client:
        ids = await made(client)
        for operation in kept_operations():
            response = await call(client, operation, ids)
            assert response.status_code == (204 if operation.is_empty else 200), (operation.name, response.text)
            if operation.answer is not None:
                wire = operation.answer.model_validate(response.json())
                assert not wire.__pydantic_extra__, (operation.name, wire.__pydantic_extra__)
        for path in ("responses", "prompts", "chat/completions"):
            assert (await client.get(f"/v1/{path}")).json()["data"] == []


@pytest.mark.parametrize("operation", kept_operations(), ids=lambda operation: operation.name)
async def test_what_is_somebody_elses_looks_like_what_is_not_there(operation):
    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        ids = await made(client, ANNA)
        foreign = await call(client, operation, ids, BORIS)
        absent = await call(client, operation, UNKNOWN, BORIS)
        assert foreign.status_code == absent.status_code == 404, (foreign.text, absent.text)
        shown = foreign.json()["error"]
        for name, id in ids.items():
            shown["message"] = shown["message"].replace(id, UNKNOWN[name])
        assert shown == absent.json()["error"]
        assert (await call(client, operation, ids, ANNA)).status_code in (200, 204)


@pytest.mark.parametrize("id", ["x", "resp_", "resp_" + "A" * 48, "resp_%00", "..", "resp_" + "0" * 47, "é"])
async def test_ill_formed_ids_are_absent(id):
    async with client_of() as client:
        for path in (f"/v1/responses/{id}", f"/v1/conversations/{id}", f"/v1/prompts/{id}"):
            response = await client.get(path)
            assert response.status_code in (404, 405), path


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "{response_id}"},
        {"conversation": "{conversation_id}"},
        {"conversation": {"id": "{conversation_id}"}},
        {"prompt": {"id": "{prompt_id}", "variables": {"name": "x"}}},
        {"input": [{"type": "item_reference", "id": "{item_id}"}]},
    ],
    ids=lambda body: next(iter(body)),
)
async def test_references_reach_nothing_of_somebody_else(body):
    def filled(value, ids):
        if isinstance(value, dict):
            return {key: filled(item, ids) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item, ids) for item in value]
        return value.format(**ids)

    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        ids = await made(client, ANNA)
        await _ended(client, ids["response_id"], ANNA)
        for headers, found in ((ANNA, True), (BORIS, False)):
            asked = {"model": "echo", "input": "x", **filled(body, ids)}
            response = await client.post("/v1/responses", json=asked, headers=headers)
            assert (response.status_code == 200) is found, response.text
            assert found or response.status_code in (400, 404)


async def _ended(client, id, headers=None):
    for _ in range(200):
        response = (await client.get(f"/v1/responses/{id}", headers=headers)).json()
        if response["status"] not in ("queued", "in_progress"):
            return response
        await asyncio.sleep(0.02)
    raise TimeoutError(response)


async def test_lists_page_by_page():
    async with client_of() as client:
        ids = []
        for n in range(5):
            body = {"model": "echo", "input": str(n)}
            ids.append((await client.post("/v1/responses", json=body)).json()["id"])
        page = (await client.get("/v1/responses?limit=2&order=asc")).json()
        assert [one["id"] for one in page["data"]] == ids[:2] and page["has_more"]
        page = (await client.get(f"/v1/responses?limit=9&order=asc&after={page['last_id']}")).json()
        assert [one["id"] for one in page["data"]] == ids[2:] and not page["has_more"]
        assert (page["first_id"], page["last_id"]) == (ids[2], ids[4])
        assert (await client.get("/v1/responses?model=other")).json()["data"] == []
        for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=resp_x", "limit=-1", "limit=٣"):
            response = await client.get(f"/v1/responses?{query}")
            assert response.status_code == 400, query
            assert response.json()["error"]["param"] == query.split("=")[0]


async def test_stored_chats_are_found_by_model_and_metadata():
    async with client_of() as client:
        for n in range(5):
            body = chat_body(str(n), store=True, metadata={"n": str(n), "kind": "odd" if n % 2 else "even"})
            await client.post("/v1/chat/completions", json=body)
        await client.post("/v1/chat/completions", json=chat_body("not kept"))

        async def texts(query):
            data = (await client.get(f"/v1/chat/completions?{query}")).json()["data"]
            return [one["choices"][0]["message"]["content"] for one in data]

        assert await texts("") == ["0", "1", "2", "3", "4"]
        assert await texts("metadata[kind]=odd&order=desc") == ["3", "1"]
        assert await texts("metadata[kind]=odd&metadata[n]=3") == ["3"]
        assert await texts("metadata[kind]=odd&limit=1") == ["1"]
        assert await texts("model=meta/echo:1b") == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stored_chat_is_whole_however_it_was_sent(stream):
    async with client_of() as client:
        messages = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        ]
        body = {"model": "echo", "messages": messages, "store": True, "stream": stream, "n": 2}
        await client.post("/v1/chat/completions", json=body)
        (kept,) = (await client.get("/v1/chat/completions")).json()["data"]
        assert [choice["message"]["content"] for choice in kept["choices"]] == ["hello", "hello"]
        page = (await client.get(f"/v1/chat/completions/{kept['id']}/messages")).json()
        assert [one["role"] for one in page["data"]] == ["system", "user"]
        assert page["data"][1]["content_parts"] == messages[1]["content"] and page["data"][1]["content"] is None


async def test_prompts_have_versions_that_never_change():
    async with client_of() as client:
        one = (await client.post("/v1/prompts", json={"prompt": "Hi {{ name }}"})).json()
        assert one["version"] == 1 and one["variables"] == ["name"] and one["is_default"]
        path = f"/v1/prompts/{one['prompt_id']}"
        two = (await client.put(path, json={"prompt": "Ho {{name}}", "version": 1})).json()
        assert two["version"] == 2 and two["is_default"]
        late = await client.put(path, json={"prompt": "x", "version": 1})
        assert late.status_code == 400 and late.json()["error"]["param"] == "version"
        three = await client.put(path, json={"prompt": "Hu", "version": 2, "set_as_default": False})
        assert three.json()["version"] == 3 and not three.json()["is_default"]
        assert (await client.get(path)).json()["version"] == 2
        assert (await client.get(f"{path}?version=1")).json()["prompt"] == "Hi {{ name }}"
        assert (await client.get(f"{path}?version=9")).status_code == 404
        await client.put(f"{path}/set-default-version", json={"version": 3})
        assert [(v["version"], v["is_default"]) for v in (await client.get(f"{path}/versions")).json()["data"]] == [
            (1, False),
            (2, False),
            (3, True),
        ]
        undeclared = await client.post("/v1/prompts", json={"prompt": "{{ a }}", "variables": ["b"]})
        assert undeclared.status_code == 400


async def test_a_prompt_stands_first_with_its_values():
    async with client_of() as client:
        id = (await client.post("/v1/prompts", json={"prompt": "You are {{ name }}. {{ more }}"})).json()["prompt_id"]

        async def ask(**prompt):
            body = {"model": "echo", "input": "hi", "prompt": {"id": id, **prompt}}
            return await client.post("/v1/responses", json=body)

        good = await ask(variables={"name": "{{ more }}", "more": {"type": "input_text", "text": "Be brief."}})
        assert good.status_code == 200 and good.json()["prompt"]["id"] == id
        asked = {"role": "system", "content": "You are {{ more }}. Be brief."}
        plain = await client.post(
            "/v1/responses", json={"model": "echo", "input": [asked, {"role": "user", "content": "hi"}]}
        )
        assert good.json()["usage"]["input_tokens"] == plain.json()["usage"]["input_tokens"]
        for bad, param in (
            ({"variables": {"name": "x"}}, "prompt.variables.more"),
            ({"variables": {"name": "x", "more": "y", "z": "z"}}, "prompt.variables"),
            ({"version": "7"}, "prompt.id"),
            ({"version": "x"}, "prompt.version"),
        ):
            response = await ask(**bad)
            assert response.status_code == 400 and response.json()["error"]["param"] == param, response.text


async def test_items_stay_as_long_as_somebody_wants_them():
    async with client_of() as client:
        conversation = (await client.post("/v1/conversations", json={})).json()["id"]
        body = {"model": "echo", "input": "hi", "conversation": conversation}
        response = (await client.post("/v1/responses", json=body)).json()
        items = f"/v1/conversations/{conversation}/items"
        said = (await client.get(f"{items}?order=asc")).json()["data"]
        assert [item["role"] for item in said] == ["user", "assistant"] and said[1] == response["output"][0]
        await client.delete(f"/v1/responses/{response['id']}")
        assert (await client.get(f"{items}?order=asc")).json()["data"] == said
        await client.delete(f"{items}/{said[0]['id']}")
        assert (await client.get(items)).json()["data"] == said[1:]
        second = (await client.post("/v1/responses", json=body)).json()
        await client.delete(f"/v1/conversations/{conversation}")
        assert (await client.get(f"/v1/responses/{second['id']}")).json()["output"] == second["output"]
        gone = await client.post("/v1/responses", json=body)
        assert gone.status_code == 404


async def test_two_servers_on_one_file_see_the_same(tmp_path):
    target = f"sqlite:{tmp_path}/shared.db"
    one, two = (Stack(inference=echo_stack().inference, storage=Storage(target, STEPS)) for _ in range(2))
    async with client_of(one) as first, client_of(two) as second:
        id = (await first.post("/v1/responses", json={"model": "echo", "input": "x"})).json()["id"]
        assert (await second.get(f"/v1/responses/{id}")).json()["output"][0]["content"][0]["text"] == "x"
        queued = (await first.post("/v1/responses", json={"model": "echo", "input": "y", "background": True})).json()
        assert (await _ended(second, queued["id"]))["status"] == "completed"
    async with client_of(Stack(inference=echo_stack().inference, storage=Storage(target, STEPS))) as third:
        assert len((await third.get("/v1/responses")).json()["data"]) == 2


@pytest.mark.parametrize("fault", [StorageFull("full"), Overloaded("busy")])
async def test_an_answer_is_not_lost_because_it_cannot_be_kept(monkeypatch, fault):
    stack = echo_stack()

    async def keep(*_):
        raise fault

    monkeypatch.setattr(stack.chats, "keep", keep)
    async with client_of(stack) as client:
        whole = await client.post("/v1/chat/completions", json=chat_body(store=True))
        assert whole.status_code == 200 and whole.headers["x-llamakit-ignored"] == "store"
        assert whole.json()["choices"][0]["message"]["content"] == "hello"
        streamed = await client.post("/v1/chat/completions", json=chat_body(store=True, stream=True))
        assert streamed.status_code == 200 and streamed.text.endswith("data: [DONE]\n\n")


async def test_lists_show_what_was_asked():
    async with client_of() as client:
        sent = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
        ]
        made = (await client.post("/v1/chat/completions", json=chat_body(store=True, messages=sent))).json()
        (listed,) = (await client.get("/v1/chat/completions")).json()["data"]
        assert listed["input_messages"] == sent
        assert (await client.get(f"/v1/chat/completions/{made['id']}")).json() == listed
        first = (await client.post("/v1/responses", json={"model": "echo", "input": "one"})).json()
        body = {"model": "echo", "input": "two", "previous_response_id": first["id"]}
        await client.post("/v1/responses", json=body)
        inputs = [response["input"] for response in (await client.get("/v1/responses")).json()["data"]]
        assert [[item["content"][0]["text"] for item in items] for items in inputs] == [["two"], ["one"]]
