"""The newer official clients, llama-stack-client from 0.3 on and ogx-client, against the real server.

`pip install 'llamakit[clients]'` brings ogx-client, and from Python 3.12 on a newer llama-stack-client too. What they
read is held to the types they were generated with, except where those contradict OpenAI's own.
"""

from __future__ import annotations

import importlib
import time

import pytest
from tests.serving import Served, served

from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry, StorageConfig
from llamakit.stack.tool_providers import with_default_tools

CLIENTS = {"llama_stack_client": "LlamaStackClient", "ogx_client": "OgxClient"}
ECHO = ProviderEntry(provider_id="here", provider_type="inline::echo", config={"models": ("echo", "large")})
TURNS = [{"role": "user", "content": "héllo 🦙"}]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
REQUEST = (
    b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions",'
    b'"body":{"model":"echo","messages":[{"role":"user","content":"x"}]}}\n'
)


@pytest.fixture(scope="module", params=CLIENTS)
def module(request):
    found = pytest.importorskip(request.param, exc_type=ImportError)
    if found.__version__.startswith("0.2."):
        pytest.skip("a classic llama-stack-client is installed")
    return found


@pytest.fixture(scope="module")
def server(module):
    described = Distribution(
        providers={"inference": (ECHO,)},
        models=(ModelEntry(model_id="echo"),),
        storage=StorageConfig(database=":memory:"),
    )
    with served(build_stack(with_default_tools(described))) as running:
        yield running


@pytest.fixture(scope="module")
def client(module, server: Served):
    with client_of(module, server, _strict_response_validation=True) as made:
        yield made


@pytest.fixture(scope="module")
def lenient(module, server: Served):
    """The client as it is used: it reads answers without holding them to its types."""
    with client_of(module, server) as made:
        yield made


def client_of(module, server: Served, **settings):
    made = getattr(importlib.import_module(module.__name__), CLIENTS[module.__name__])
    return made(base_url=server.url, max_retries=0, timeout=20, **settings)


def test_inspection_and_administration(client):
    assert client.inspect.health().status == client.alpha.admin.health().status == "OK"
    assert client.inspect.version() == client.alpha.admin.version()
    routes = {route.route for route in client.routes.list(api_filter="v1")}
    assert "/v1/responses" in routes and not [route for route in routes if not route.startswith("/v1/")]
    assert {route.route.split("/")[1] for route in client.alpha.admin.list_routes(api_filter="v1alpha")} == {"v1alpha"}
    (row,) = [row for row in client.providers.list() if row.api == "inference"]
    assert client.providers.retrieve("here") == client.alpha.admin.inspect_provider("here") == row
    assert row in client.alpha.admin.list_providers()


def test_models(client):
    listed = client.models.list()
    models = {model.id: model for model in getattr(listed, "data", listed)}
    assert models["large"].custom_metadata["provider_id"] == "here" and models["echo"].model_type == "llm"
    found = client.models.retrieve("echo")
    assert (found.identifier, found.provider_id, found.api_model_type) == ("echo", "here", "llm")


def test_chats_completions_and_vectors(client, lenient):
    made = client.chat.completions.create(model="echo", messages=TURNS, extra_body={"store": True})
    assert made.choices[0].message.content == "héllo 🦙"
    assert client.chat.completions.retrieve(made.id).input_messages[0].content == "héllo 🦙"
    assert [row.id for row in client.chat.completions.list().data] == [made.id]
    chunks = client.chat.completions.create(model="echo", messages=TURNS, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "héllo 🦙"
    asked = [{"role": "user", "content": "look"}]
    called = client.chat.completions.create(model="echo", messages=asked, tools=[LOOK]).choices[0]
    assert called.finish_reason == "tool_calls" and called.message.tool_calls[0].function.name == "look"
    assert client.completions.create(model="echo", prompt="hi").choices[0].text == "hi"
    # Its types want a finish_reason in every piece; OpenAI says null until the last.
    pieces = lenient.completions.create(model="echo", prompt="hi", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "hi"
    assert len(client.embeddings.create(model="echo", input="a").data[0].embedding) == 32
    ranked = client.alpha.inference.rerank(model="echo", query="x", items=["a", "b"])
    assert {row.index for row in ranked} == {0, 1}


def test_responses(client, lenient):
    made = client.responses.create(model="echo", input="hi")
    assert made.output[0].content[0].text == "hi" and client.responses.retrieve(made.id).id == made.id
    # Its types want a response_id in events of items; OpenAI's have none.
    kinds = [event.type for event in lenient.responses.create(model="echo", input="hi", stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    listed = {row.id: row for row in client.responses.list()}
    assert listed[made.id].input[0].content[0].text == "hi"
    assert client.responses.input_items.list(made.id).data[0].role == "user"
    again = client.responses.create(model="echo", input="more", previous_response_id=made.id)
    assert again.previous_response_id == made.id
    assert client.responses.delete(again.id).deleted


def test_conversations(client):
    made = client.conversations.create(metadata={"a": "b"})
    assert client.conversations.retrieve(made.id).metadata == {"a": "b"}
    assert client.conversations.update(made.id, metadata={"c": "d"}).metadata == {"c": "d"}
    sent = [{"type": "message", "role": "user", "content": "x"}]
    (item,) = client.conversations.items.create(made.id, items=sent).data
    assert [one.id for one in client.conversations.items.list(made.id)] == [item.id]
    assert client.conversations.items.get(item.id, conversation_id=made.id).role == "user"
    assert client.conversations.items.delete(item.id, conversation_id=made.id).id == made.id
    answered = client.responses.create(model="echo", input="hi", conversation=made.id)
    assert len(list(client.conversations.items.list(made.id))) == 2 and answered.status == "completed"
    assert client.conversations.delete(made.id).deleted


def test_prompts(client):
    made = client.prompts.create(prompt="hi {{ name }}", variables=["name"])
    id = made.prompt_id
    assert client.prompts.update(id, prompt="yo {{ name }}", version=1, set_as_default=False).version == 2
    assert client.prompts.retrieve(id).version == 1 and client.prompts.retrieve(id, version=2).version == 2
    assert client.prompts.set_default_version(id, version=2).is_default
    assert [one.version for one in client.prompts.versions.list(id)] == [1, 2]
    assert id in [one.prompt_id for one in client.prompts.list()]
    client.prompts.delete(id)
    assert id not in [one.prompt_id for one in client.prompts.list()]


def test_files_vector_stores_and_chunks(client, lenient):
    # Types of files may want `expires_at`; OpenAI says null for a file that stays.
    file = lenient.files.create(file=("llamas.txt", b"llamas are kept for wool"), purpose="assistants")
    assert lenient.files.retrieve(file.id).filename == "llamas.txt"
    assert [one.id for one in lenient.files.list()] == [file.id]
    store = client.vector_stores.create(name="s", extra_body={"embedding_model": "echo"})
    assert client.vector_stores.update(store.id, name="t").name == "t"
    assert [one.id for one in client.vector_stores.list()] == [store.id]
    batch = client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
    deadline = time.monotonic() + 15
    while client.vector_stores.retrieve(store.id).file_counts.completed == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id).status == "completed"
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
    assert [one.id for one in listed] == [file.id]
    files = client.vector_stores.files
    assert [one.id for one in files.list(store.id)] == [file.id]
    assert files.update(file.id, vector_store_id=store.id, attributes={"a": "b"}).attributes == {"a": "b"}
    assert "wool" in files.content(file.id, vector_store_id=store.id).data[0].text
    assert client.vector_stores.search(store.id, query="wool").data[0].filename == "llamas.txt"
    chunk = {
        "content": "alpacas are smaller",
        "chunk_id": "mine",
        "metadata": {"page": 1},
        "chunk_metadata": {"document_id": "alpacas"},
        "embedding": [1.0] + [0.0] * 31,
        "embedding_model": "echo",
        "embedding_dimension": 32,
    }
    client.vector_io.insert(vector_store_id=store.id, chunks=[chunk])
    found = client.vector_io.query(vector_store_id=store.id, query="alpacas", params={"mode": "keyword"})
    assert (found.chunks[0].chunk_id, found.chunks[0].chunk_metadata.document_id) == ("mine", "alpacas")
    assert files.delete(file.id, vector_store_id=store.id).deleted
    assert client.vector_stores.delete(store.id).deleted and lenient.files.delete(file.id).deleted


def test_batches(client, lenient):
    file = lenient.files.create(file=("requests.jsonl", REQUEST), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    deadline = time.monotonic() + 15
    while (now := client.batches.retrieve(made.id)).status != "completed" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now.status == "completed" and now.request_counts.completed == 1
    assert made.id in [one.id for one in client.batches.list()]


def test_errors(module, client):
    with pytest.raises(module.NotFoundError, match="nobody"):
        client.models.retrieve("nobody")
    with pytest.raises(module.BadRequestError) as raised:
        client.vector_io.insert(vector_store_id="vs_nobody", chunks=[])
    assert raised.value.body["error"]["param"] == "chunks"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_shields(module, client):
    if module.__name__ != "llama_stack_client":
        pytest.skip("ogx-client knows no shields")
    client.shields.register(shield_id="guard", provider_shield_id="echo")
    assert client.shields.retrieve("guard").provider_resource_id == "echo"
    assert client.safety.run_shield(shield_id="guard", messages=TURNS).violation is not None
    assert client.moderations.create(input="x", model="guard").results[0].flagged
    client.shields.delete("guard")
    assert client.shields.list() == []
