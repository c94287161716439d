"""Every route through the whole application: what it answers, what it refuses, what it names."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
from fastapi.openapi.models import OpenAPI
from tests.serving import chat_body, echo_app, events_of, in_process

from llamakit.api.anthropic_answer import AnthropicMessage, TokenCount
from llamakit.api.llama_stack_answer import (
    LlamaStackChat,
    LlamaStackChatBatch,
    LlamaStackCompletion,
    LlamaStackCompletionBatch,
    LlamaStackEmbeddings,
)
from llamakit.api.llama_stack_inspect import LlamaStackProviders, LlamaStackRoutes, LlamaStackVersion
from llamakit.api.llama_stack_rerank import LlamaStackRerank
from llamakit.api.management import WireLoaded, WireLoadedModel, WireUnloaded
from llamakit.api.ollama_answer import OllamaChat, OllamaGenerated
from llamakit.api.ollama_models import (
    OllamaEmbedding,
    OllamaEmbeddings,
    OllamaProcesses,
    OllamaShown,
    OllamaTags,
    OllamaVersion,
)
from llamakit.api.openai_chat import ChatCompletion
from llamakit.api.openai_completions import WireCompletion
from llamakit.api.openai_embeddings import WireEmbeddings
from llamakit.api.openai_models import WireModels
from llamakit.api.tokenize import WireDetokenized, WireTokenizerInfo, WireTokens
from llamakit.core.errors import CheckpointError, GatedModel, MissingExtra, Offline, Overloaded
from llamakit.providers.inline.inference.echo import EchoInference
from llamakit.server.app import operations_of
from llamakit.server.routes.health import WireHealth, WireLanding
from llamakit.server.routing import GuardedRoute

TURN = {"role": "user", "content": "hello"}
LLAMA_STACK_CHAT = {"model_id": "echo", "messages": [TURN]}
ANSWERS = [
    ("POST", "/v1/chat/completions", chat_body(), ChatCompletion),
    ("POST", "/v1/completions", {"model": "echo", "prompt": "x"}, WireCompletion),
    ("POST", "/v1/embeddings", {"model": "echo", "input": "x"}, WireEmbeddings),
    ("GET", "/v1/models", None, WireModels),
    ("POST", "/tokenize", {"prompt": "x", "return_token_strs": True}, WireTokens),
    ("POST", "/detokenize", {"tokens": [104, 105, 258]}, WireDetokenized),
    ("GET", "/tokenizer_info", None, WireTokenizerInfo),
    ("POST", "/v1/messages", {**chat_body(), "max_tokens": 9}, AnthropicMessage),
    ("POST", "/v1/messages/count_tokens", chat_body(), TokenCount),
    ("POST", "/api/chat", {**chat_body(), "stream": False}, OllamaChat),
    ("POST", "/api/generate", {"model": "echo", "prompt": "x", "stream": False}, OllamaGenerated),
    ("POST", "/api/embed", {"model": "echo", "input": "x"}, OllamaEmbeddings),
    ("POST", "/api/embeddings", {"model": "echo", "prompt": "x"}, OllamaEmbedding),
    ("GET", "/api/tags", None, OllamaTags),
    ("GET", "/api/ps", None, OllamaProcesses),
    ("GET", "/api/version", None, OllamaVersion),
    ("POST", "/api/show", {"model": "echo"}, OllamaShown),
    ("POST", "/v1/inference/chat-completion", LLAMA_STACK_CHAT, LlamaStackChat),
    (
        "POST",
        "/v1/inference/batch-chat-completion",
        {"model_id": "echo", "messages_batch": [[TURN]]},
        LlamaStackChatBatch,
    ),
    ("POST", "/v1/inference/completion", {"model_id": "echo", "content": "x"}, LlamaStackCompletion),
    ("POST", "/v1/inference/batch-completion", {"model_id": "echo", "content_batch": ["x"]}, LlamaStackCompletionBatch),
    ("POST", "/v1/inference/embeddings", {"model_id": "echo", "contents": ["x"]}, LlamaStackEmbeddings),
    ("POST", "/v1/inference/rerank", {"model": "echo", "query": "x", "items": ["a"]}, LlamaStackRerank),
    ("GET", "/v1/providers", None, LlamaStackProviders),
    ("GET", "/v1/inspect/routes", None, LlamaStackRoutes),
    ("GET", "/v1/version", None, LlamaStackVersion),
    ("GET", "/v1/llamakit/ps", None, WireLoaded),
    ("POST", "/v1/llamakit/load", {"model": "echo", "keep_alive": "5m"}, WireLoadedModel),
    ("POST", "/v1/llamakit/unload", {"model": "echo"}, WireUnloaded),
    ("GET", "/v1/health", None, WireHealth),
    ("GET", "/health", None, WireHealth),
    ("GET", "/", None, WireLanding),
]
KEPT = (
    "responses",
    "conversations",
    "containers",
    "prompts",
    "batches",
    "shields",
    "moderations",
    "stored chat",
    "files",
    "uploads",
    "vector stores",
)


@asynccontextmanager
async def client_of(**settings):
    async with in_process(echo_app(**settings)) as client:
        yield client


@pytest.mark.parametrize(("method", "path", "body", "kind"), ANSWERS, ids=[row[1] for row in ANSWERS])
async def test_answers_are_what_the_document_says(method, path, body, kind):
    async with client_of() as client:
        response = await client.request(method, path, json=body)
        assert response.status_code == 200, response.text
        wire = kind.model_validate(response.json())
        assert not wire.model_extra
        assert response.headers["x-request-id"] and response.headers["x-content-type-options"] == "nosniff"


async def test_every_route_is_in_the_document_and_in_this_table():
    app = echo_app()
    assert all(isinstance(route, GuardedRoute) for route in app.routes)
    tested = {(method, path) for method, path, *_ in ANSWERS}
    rest = {("GET", "/v1/models/{model:path}"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("HEAD", "/")}
    # These need several providers, and are walked through in test_llama_stack_inspect.py.
    rest |= {("POST", "/v1/models"), ("DELETE", "/v1/models/{model:path}"), ("GET", "/v1/providers/{provider_id}")}
    # What changes the machine is reached by the tests of Ollama's client, which bring a machine to change.
    changing = {("POST", "/api/pull"), ("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete")}
    assert changing == {(o.method, o.path) for o in operations_of(app) if o.changes_machine}
    rest |= changing
    # What is kept has a history, and is walked through in test_kept_objects.py.
    rest |= {(o.method, o.path) for o in operations_of(app) if o.tag in KEPT and o.alias_of is None}
    # Llama Stack's other groups want a server of tools, or a history: each has tests of its own.
    own_files = tuple(
        f"llama stack {group}" for group in ("agents", "datasets", "scoring", "telemetry", "tools", "vector io")
    )
    rest |= {(o.method, o.path) for o in operations_of(app) if o.tag in own_files and o.alias_of is None}
    # An operation at a second path is the same operation; test_aliases.py tells which those are.
    own = {(o.method, o.path) for o in operations_of(app) if o.alias_of is None}
    assert own == tested | rest
    async with in_process(app) as client:
        document = (await client.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described >= {(method, path) for method, path in tested} | {("GET", "/v1/models/{model}")}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


async def test_the_document_is_closed_under_references():
    async with client_of() as client:
        text = (await client.get("/openapi.json")).text
    document = json.loads(text)
    OpenAPI.model_validate(document)
    wanted = {piece.split('"')[0] for piece in text.split("#/components/schemas/")[1:]}
    assert wanted <= set(document["components"]["schemas"])
    assert '"422"' not in text and '"default"' not in json.dumps(document["paths"])
    assert not [name for name in document["components"]["schemas"] if name.startswith("Wire")] and "Wire" not in text
    chat = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert {"temperature", "tools", "keep_alive", "structured_outputs", "web_search_options"} <= set(chat)
    assert chat["keep_alive"]["description"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("GET", "/v1"), ("GET", "/v1/chat/completions/")])
async def test_nothing_there(method, path):
    async with client_of() as client:
        response = await client.request(method, path)
        assert response.status_code == 404 and response.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "PATCH", "BREW"])
async def test_wrong_methods(method):
    async with client_of() as client:
        response = await client.request(method, "/v1/completions")
        assert response.status_code == 405 and response.headers["allow"] == "POST"
        if method != "HEAD":
            assert response.json()["error"]["code"] == "method_not_allowed"


async def test_fields_set_aside_are_named():
    async with client_of() as client:
        body = chat_body(**{"made up": 1, "späß": 2, "verbosity": "high", "x" * 300: 3})
        response = await client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200
        names = response.headers["x-llamakit-ignored"].split(", ")
        assert names[:2] == ["made%20up", "sp%C3%A4%C3%9F"] and names[3] == "verbosity"
        assert len(names[2]) == 131


async def test_many_fields_set_aside_are_counted():
    async with client_of() as client:
        response = await client.post("/v1/chat/completions", json=chat_body(**{f"field_{n}": n for n in range(500)}))
        header = response.headers["x-llamakit-ignored"]
        assert len(header) < 2100 and header.endswith("-more")


async def test_strict_servers_refuse_them():
    async with client_of(strict=True) as client:
        response = await client.post("/v1/chat/completions", json=chat_body(made_up=1, verbosity="high"))
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "made_up"
        assert response.json()["error"]["code"] == "unknown_parameter"
        assert (await client.post("/v1/chat/completions", json=chat_body())).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Overloaded("full", retry_after_s=2.5), 503, "overloaded"),
        (MissingExtra("pip install x"), 501, "missing_extra"),
        (GatedModel("accept the licence"), 403, "gated_model"),
        (Offline("no network"), 503, "offline"),
        (CheckpointError("file x is cut short"), 500, "checkpoint_error"),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_a_provider_have_a_status(fault, status, code, stream):
    class Failing(EchoInference):
        async def chat(self, request):
            raise fault
            yield

    async with in_process(echo_app(Failing())) as client:
        response = await client.post("/v1/chat/completions", json=chat_body(stream=stream))
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.json()["error"]["message"] == str(fault)
        if isinstance(fault, Overloaded):
            assert response.headers["retry-after"] == "3"


@pytest.mark.parametrize("stream", [False, True])
async def test_our_own_bugs_tell_nothing_of_the_inside(stream, caplog):
    class Buggy(EchoInference):
        async def chat(self, request):
            raise KeyError("secret detail")
            yield

    async with in_process(echo_app(Buggy())) as client:
        response = await client.post("/v1/chat/completions", json=chat_body(stream=stream))
        assert response.status_code == 500
        assert "secret" not in response.text and response.headers["x-request-id"] in response.text
    assert any(record.exc_info for record in caplog.records)


async def test_a_failure_in_mid_stream_is_an_event_and_no_done():
    class Breaking(EchoInference):
        async def chat(self, request):
            async for event in super().chat(request):
                yield event
                raise CheckpointError("the disk went away")

    async with in_process(echo_app(Breaking())) as client:
        response = await client.post("/v1/chat/completions", json=chat_body(stream=True))
        assert response.status_code == 200
        *_, last = events_of(response.text)
        assert last["error"]["message"] == "the disk went away" and "[DONE]" not in response.text


async def test_one_failing_prompt_fails_the_request():
    provider = EchoInference()
    async with in_process(echo_app(provider)) as client:
        response = await client.post("/v1/completions", json={"model": "echo", "prompt": [[97], [300]]})
        assert response.status_code == 400 and "vocabulary" in response.json()["error"]["message"]
        assert not provider.running


async def test_load_and_unload():
    async with client_of() as client:
        assert (await client.post("/v1/llamakit/unload", json={"model": "echo"})).json()["unloaded"] is True
        assert (await client.post("/v1/llamakit/unload", json={"model": "echo"})).json()["unloaded"] is False
        loaded = (await client.post("/v1/llamakit/load", json={"model": "echo", "keep_alive": -1})).json()
        assert loaded["expires_at"] is None
        names = [model["model"] for model in (await client.get("/v1/llamakit/ps")).json()["models"]]
        assert names == ["meta/echo:1b", "echo"]
        response = await client.post("/v1/llamakit/load", json={"model": "nope"})
        assert response.status_code == 404 and "llama pull nope" in response.json()["error"]["message"]
        response = await client.post("/v1/llamakit/load", json={"model": "echo", "keep_alive": "x"})
        assert response.json()["error"]["param"] == "keep_alive"


async def test_tokens_of_a_chat():
    async with client_of() as client:
        body = {"messages": chat_body("hi")["messages"], "model": "meta/echo:1b"}
        made = (await client.post("/tokenize", json=body)).json()
        text = (await client.post("/detokenize", json={"tokens": made["tokens"]})).json()["prompt"]
        assert text == "<|begin_of_text|>user:hi<|eot_id|>assistant:" and made["count"] == len(made["tokens"])
        assert (await client.get("/tokenizer_info?model=meta/echo:1b")).json()["model"] == "meta/echo:1b"
        assert (await client.get("/tokenizer_info?model=nope")).status_code == 404


async def test_metrics_add_up():
    provider = EchoInference()
    async with in_process(echo_app(provider)) as client:
        for text in ("abc", "abcd"):
            await client.post("/v1/chat/completions", json=chat_body(text, n=2))
        await client.post("/v1/chat/completions", json=chat_body("x", stream=True, max_tokens=0 + 1))
        await client.post("/v1/chat/completions", json=chat_body() | {"model": "made-up-name"})
        await client.get("/made-up-path")
        text = (await client.get("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values["llamakit:generations_accepted_total"] == "4.0"
    assert values['llamakit:generations_ended_total{outcome="finished"}'] == "3.0"
    assert values['llamakit:generations_ended_total{outcome="failed"}'] == "1.0"
    assert values["llamakit:generations_in_work"] == "0.0"
    assert values['vllm:generation_tokens_total{model_name="echo"}'] == "15.0"
    assert values['vllm:request_success_total{finished_reason="stop",model_name="echo"}'] == "5.0"
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
        assert values[f'vllm:{name}_count{{model_name="echo"}}'] == "3.0"
    assert float(values['vllm:inter_token_latency_seconds_count{model_name="echo"}']) == 12
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert values[f'vllm:{name}{{model_name="echo"}}'] == "0.0"
    assert float(values['vllm:prefix_cache_queries_total{model_name="echo"}']) > 0
    assert float(values['vllm:prefix_cache_hits_total{model_name="echo"}']) > 0
    assert 'llamakit:http_requests_total{method="POST",route="/v1/chat/completions",status="200"}' in values
    assert "made-up" not in text


async def test_health_says_when_it_is_not_ready():
    provider = EchoInference()
    async with in_process(echo_app(provider)) as client:
        assert (await client.get("/health")).json() == {"status": "OK"}
        await provider.aclose()
        response = await client.get("/health")
        assert response.status_code == 503 and response.json() == {"status": "not ready"}


async def test_request_ids_are_taken_where_they_are_safe():
    async with client_of() as client:
        assert (await client.get("/health", headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
        response = await client.get("/health", headers={"x-request-id": "a b"})
        assert response.headers["x-request-id"].startswith("req-")
