"""The official classic Llama Stack client (0.2.x) against the real server: every resource that is served.

`pip install 'llamakit[clients]'` brings it on Python 3.11; from 3.12 on, `pip install 'llama-stack-client<0.3'`.
What it reads is held to the types it was generated with, except where those contradict OpenAI's own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from tests.serving import Served, served

from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry, StorageConfig, ToolGroupEntry
from llamakit.stack.tool_providers import with_default_tools

llama_stack_client = pytest.importorskip("llama_stack_client", exc_type=ImportError)
if not llama_stack_client.__version__.startswith("0.2."):
    pytest.skip("a newer llama-stack-client is installed", allow_module_level=True)

SERVERS = str(Path(__file__).parents[1] / "unit" / "agents" / "mcp_servers.py")
ECHO = ProviderEntry(provider_id="here", provider_type="inline::echo", config={"models": ("echo", "large")})
TURNS = [{"role": "user", "content": "héllo 🦙"}]
ASKED = [{"role": "user", "content": "please look"}]
LOOK = {"tool_name": "look", "description": "See.", "parameters": {"city": {"param_type": "string", "required": True}}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture(scope="module")
def server():
    described = Distribution(
        providers={"inference": (ECHO,)},
        models=(ModelEntry(model_id="echo"),),
        storage=StorageConfig(database=":memory:"),
        tool_groups=(ToolGroupEntry(toolgroup_id="mcp::tests", args={"command": [sys.executable, SERVERS, "stdio"]}),),
    )
    with served(build_stack(with_default_tools(described))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served):
    with client_of(server, _strict_response_validation=True) as made:
        yield made


@pytest.fixture(scope="module")
def lenient(server: Served):
    """The client as it is used: it reads answers without holding them to its types."""
    with client_of(server) as made:
        yield made


def client_of(server: Served, **settings):
    return llama_stack_client.LlamaStackClient(base_url=server.url, max_retries=0, timeout=20, **settings)


def test_inspection(client):
    assert client.inspect.health().status == "OK" and client.inspect.version().version
    routes = {(route.method, route.route) for route in client.routes.list()}
    assert ("POST", "/v1/inference/chat-completion") in routes
    (row,) = [row for row in client.providers.list() if row.api == "inference"]
    assert client.providers.retrieve("here") == row and row.provider_type == "inline::echo"


def test_models(client):
    names = [model.identifier for model in client.models.list()]
    assert names == ["echo", "large"] and client.models.retrieve("echo").api_model_type == "llm"
    made = client.models.register(model_id="org/mine", provider_id="here", provider_model_id="large", metadata={"a": 1})
    assert (made.identifier, made.provider_resource_id, made.metadata["a"]) == ("org/mine", "large", 1)
    assert client.inference.completion(model_id="org/mine", content="x").content == "x"
    client.models.unregister("org/mine")
    with pytest.raises(llama_stack_client.NotFoundError, match="org/mine"):
        client.inference.completion(model_id="org/mine", content="x")


def test_a_chat_whole_and_streamed(client):
    sampling = {"strategy": {"type": "top_p", "temperature": 0.7, "top_p": 0.9}, "max_tokens": 64}
    whole = client.inference.chat_completion(
        model_id="echo", messages=TURNS, logprobs={"top_k": 2}, sampling_params=sampling
    )
    message = whole.completion_message
    assert (message.content, message.stop_reason, message.tool_calls) == ("héllo 🦙", "end_of_turn", [])
    assert len(whole.logprobs) == 11 and {metric.metric for metric in whole.metrics} >= {"total_tokens"}
    chunks = list(client.inference.chat_completion(model_id="echo", messages=TURNS, stream=True))
    assert [chunk.event.event_type for chunk in chunks[:1] + chunks[-1:]] == ["start", "complete"]
    assert "".join(chunk.event.delta.text for chunk in chunks) == "héllo 🦙"
    assert chunks[-1].event.stop_reason == "end_of_turn" and chunks[-1].metrics


def test_a_tool_loop(client):
    fields = {"model_id": "echo", "tools": [LOOK]}
    first = client.inference.chat_completion(messages=ASKED, **fields).completion_message
    (call,) = first.tool_calls
    assert (first.stop_reason, call.tool_name, call.arguments) == ("end_of_message", "look", {"city": ""})
    chunks = list(client.inference.chat_completion(messages=ASKED, stream=True, **fields))
    statuses = [chunk.event.delta.parse_status for chunk in chunks if chunk.event.delta.type == "tool_call"]
    assert statuses[0] == "started" and statuses[-1] == "succeeded" and set(statuses[1:-1]) == {"in_progress"}
    assert chunks[-2].event.delta.tool_call.arguments == call.arguments
    result = {"role": "tool", "call_id": call.call_id, "content": "sunny"}
    messages = [*ASKED, first.model_dump(), result]
    second = client.inference.chat_completion(messages=messages, **fields).completion_message
    assert second.content == "sunny" and second.stop_reason == "end_of_turn"


def test_formats_completions_batches_and_vectors(client, lenient):
    made = client.inference.chat_completion(
        model_id="echo", messages=TURNS, response_format={"type": "json_schema", "json_schema": SCHEMA}
    )
    assert made.completion_message.content == '{"n": 0}'
    assert client.inference.completion(model_id="echo", content="hi").content == "hi"
    pieces = list(lenient.inference.completion(model_id="echo", content="hi", stream=True))
    assert "".join(piece.delta for piece in pieces) == "hi" and pieces[-1].stop_reason == "end_of_turn"
    batch = client.inference.batch_chat_completion(model_id="echo", messages_batch=[TURNS, ASKED]).batch
    assert [one.completion_message.content for one in batch] == ["héllo 🦙", "please look"]
    batch = client.inference.batch_completion(model_id="echo", content_batch=["a", "b"]).batch
    assert [one.content for one in batch] == ["a", "b"]
    assert len(client.inference.embeddings(model_id="echo", contents=["a", "b"]).embeddings[1]) == 32


def test_openais_part_at_its_classic_paths(client, lenient):
    made = client.chat.completions.create(model="echo", messages=TURNS, extra_body={"store": True})
    assert made.choices[0].message.content == "héllo 🦙"
    (kept,) = client.chat.completions.list().data
    assert client.chat.completions.retrieve(kept.id).input_messages[0].content == "héllo 🦙"
    chunks = lenient.chat.completions.create(model="echo", messages=TURNS, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "héllo 🦙"
    assert client.completions.create(model="echo", prompt="hi").choices[0].text == "hi"
    assert (
        "".join(one.choices[0].text for one in lenient.completions.create(model="echo", prompt="hi", stream=True))
        == "hi"
    )
    assert len(client.embeddings.create(model="echo", input="a").data[0].embedding) == 32


def test_responses(client, lenient):
    made = client.responses.create(model="echo", input="hi")
    assert made.output[0].content[0].text == "hi" and client.responses.retrieve(made.id).id == made.id
    kinds = [event.type for event in lenient.responses.create(model="echo", input="hi", stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert made.id in [row.id for row in client.responses.list().data]
    assert client.responses.input_items.list(made.id).data[0].content[0].text == "hi"


def test_tools(client):
    assert [group.identifier for group in client.toolgroups.list()] == ["builtin::rag", "mcp::tests"]
    add = next(tool for tool in client.tools.list(toolgroup_id="mcp::tests") if tool.identifier == "add")
    assert client.tools.get("add") == add and [one.name for one in add.parameters] == ["a", "b"]
    assert "add" in [tool.name for tool in client.tool_runtime.list_tools(tool_group_id="mcp::tests")]
    made = client.tool_runtime.invoke_tool(tool_name="add", kwargs={"a": 1, "b": 2})
    assert (made.content, made.error_message) == ("3", None)
    endpoint = {"uri": "https://mcp.example.org/mcp"}
    client.toolgroups.register(toolgroup_id="mcp::m", provider_id="model-context-protocol", mcp_endpoint=endpoint)
    assert client.toolgroups.get("mcp::m").mcp_endpoint.uri == endpoint["uri"]
    client.toolgroups.unregister("mcp::m")
    with pytest.raises(llama_stack_client.NotFoundError):
        client.toolgroups.get("mcp::m")


def test_vector_databases_and_documents(client):
    db = client.vector_dbs.register(vector_db_id="notes", embedding_model="echo", embedding_dimension=32)
    assert client.vector_dbs.retrieve("notes").embedding_model == db.embedding_model == "echo"
    assert [row.identifier for row in client.vector_dbs.list()] == ["notes"]
    client.vector_io.insert(vector_db_id="notes", chunks=[{"content": "llamas spit", "metadata": {"document_id": "d"}}])
    found = client.vector_io.query(vector_db_id="notes", query="llamas spit", params={"max_chunks": 1})
    assert found.chunks[0].content == "llamas spit" and found.chunks[0].metadata["document_id"] == "d"
    document = {"document_id": "cats", "content": "cats purr", "mime_type": "text/plain", "metadata": {}}
    client.tool_runtime.rag_tool.insert(documents=[document], vector_db_id="notes", chunk_size_in_tokens=64)
    made = client.tool_runtime.rag_tool.query(content="cats purr", vector_db_ids=["notes"])
    assert made.metadata["document_ids"][0] == "cats" and "cats purr" in made.content[1].text
    client.vector_dbs.unregister("notes")
    with pytest.raises(llama_stack_client.NotFoundError):
        client.vector_io.query(vector_db_id="notes", query="x")


def test_files_and_vector_stores(client, lenient):
    # Its types want `expires_at` and a single `search_query`; OpenAI says null, and a list.
    file = lenient.files.create(file=("llamas.txt", b"llamas are kept for wool"), purpose="assistants")
    assert lenient.files.retrieve(file.id).filename == "llamas.txt" and [one.id for one in lenient.files.list().data]
    store = client.vector_stores.create(name="s", embedding_model="echo")
    assert client.vector_stores.update(store.id, name="t").name == "t"
    assert [one.id for one in client.vector_stores.list().data] == [store.id]
    lenient.vector_stores.files.create(store.id, file_id=file.id)
    deadline = time.monotonic() + 15
    while client.vector_stores.retrieve(store.id).file_counts.completed == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    found = lenient.vector_stores.search(store.id, query="wool").data
    assert found[0].filename == "llamas.txt" and "wool" in found[0].content[0].text
    assert client.vector_stores.delete(store.id).deleted and lenient.files.delete(file.id).deleted


def test_shields(client):
    client.shields.register(shield_id="guard", provider_shield_id="echo")
    assert [shield.identifier for shield in client.shields.list()] == ["guard"]
    made = client.safety.run_shield(shield_id="guard", messages=TURNS, params={})
    # The echo says back what it is told, which is no verdict, and a shield without one stays shut.
    assert made.violation is not None and made.violation.violation_level == "error"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model_id": "nobody"}, llama_stack_client.NotFoundError),
        ({"messages": []}, llama_stack_client.BadRequestError),
        ({"sampling_params": {"strategy": {"type": "beam"}}}, llama_stack_client.BadRequestError),
    ],
    ids=str,
)
def test_errors(client, fields, kind):
    with pytest.raises(kind) as raised:
        client.inference.chat_completion(**{"model_id": "echo", "messages": TURNS, **fields})
    assert raised.value.body["detail"] == raised.value.body["error"]["message"]


def test_what_is_not_served_is_not_there(client):
    with pytest.raises(llama_stack_client.NotFoundError, match=r"openapi\.json"):
        client.post_training.job.list()
