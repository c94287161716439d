"""Hostile bodies and values are refused with 400 and the field's name, never 422 and never 500."""

from __future__ import annotations

import asyncio
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import chat_body, echo_app, in_process

from llamakit.api.anthropic import CountTokensRequest, MessagesRequest
from llamakit.api.files import WireUploadRequest
from llamakit.api.limits import Limits
from llamakit.api.management import WireLoadRequest, WireUnloadRequest
from llamakit.api.ollama import OllamaChatRequest, OllamaGenerateRequest
from llamakit.api.ollama_models import (
    OllamaCopyRequest,
    OllamaCreateRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaPullRequest,
    OllamaShowRequest,
)
from llamakit.api.openai_chat import ChatCompletionRequest
from llamakit.api.openai_completions import WireCompletionRequest
from llamakit.api.openai_conversations import WireConversationRequest
from llamakit.api.openai_embeddings import WireEmbeddingRequest
from llamakit.api.openai_responses import CompactRequest, ResponseRequest, ResponseTokensRequest
from llamakit.api.prompts import WirePromptRequest
from llamakit.api.tokenize import WireDetokenizeRequest, WireTokenizeRequest
from llamakit.api.vector_stores import WireStoreRequest

JSON = {"content-type": "application/json"}
ROUTES = {
    "/v1/responses": (ResponseRequest, {"model": "echo", "input": "x", "store": False}),
    "/v1/responses/input_tokens": (ResponseTokensRequest, {"model": "echo", "input": "x"}),
    "/v1/responses/compact": (CompactRequest, {"model": "echo", "input": "x"}),
    "/v1/conversations": (WireConversationRequest, {}),
    "/v1/prompts": (WirePromptRequest, {"prompt": "x"}),
    "/v1/chat/completions": (ChatCompletionRequest, chat_body("x")),
    "/v1/completions": (WireCompletionRequest, {"model": "echo", "prompt": "x"}),
    "/v1/embeddings": (WireEmbeddingRequest, {"model": "echo", "input": "x"}),
    "/tokenize": (WireTokenizeRequest, {"prompt": "x"}),
    "/detokenize": (WireDetokenizeRequest, {"tokens": [1]}),
    "/v1/messages": (MessagesRequest, {**chat_body("x"), "max_tokens": 9}),
    "/v1/messages/count_tokens": (CountTokensRequest, chat_body("x")),
    "/api/chat": (OllamaChatRequest, chat_body("x")),
    "/api/generate": (OllamaGenerateRequest, {"model": "echo", "prompt": "x"}),
    "/api/embed": (OllamaEmbedRequest, {"model": "echo", "input": "x"}),
    "/api/embeddings": (OllamaEmbeddingsRequest, {"model": "echo", "prompt": "x"}),
    "/api/show": (OllamaShowRequest, {"model": "echo"}),
    "/api/pull": (OllamaPullRequest, {"model": "echo"}),
    "/api/create": (OllamaCreateRequest, {"model": "echo"}),
    "/api/copy": (OllamaCopyRequest, {"source": "echo", "destination": "other"}),
    "/v1/llamakit/load": (WireLoadRequest, {"model": "echo"}),
    "/v1/llamakit/unload": (WireUnloadRequest, {"model": "echo"}),
    "/v1/uploads": (WireUploadRequest, {"filename": "x", "purpose": "batch", "bytes": 1, "mime_type": "text/plain"}),
    "/v1/vector_stores": (WireStoreRequest, {"name": "x"}),
}
HOSTILE = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-0.0",
    "1e308",
    "1e999",
    "2147483648",
    "9223372036854775808",
    "-9223372036854775809",
    "-1",
    "true",
    '"1"',
    "9" * 4000,
    "9" * 5000,
    "[]",
    "{}",
]
NEVER_GOOD = {"NaN", "Infinity", "-Infinity", "1e999", "true", "9" * 4000, "9" * 5000, "[]", "{}", "1e308"}


def error_of(response):
    """The error object; Ollama's is a sentence."""
    error = response.json()["error"]
    return {"message": error} if isinstance(error, str) else error


def numeric_fields():
    """Every number that the published schemas take at the top of a body."""
    for path, (kind, body) in ROUTES.items():
        for name, schema in kind.model_json_schema()["properties"].items():
            options = schema.get("anyOf", [schema])
            if any(option.get("type") in ("integer", "number") for option in options):
                yield path, name, body


FIELDS = list(numeric_fields())


def test_there_are_numeric_fields_to_try():
    assert len(FIELDS) > 30 and ("/v1/chat/completions", "temperature") in {field[:2] for field in FIELDS}


@pytest.mark.parametrize(("path", "name", "body"), FIELDS, ids=[f"{path} {name}" for path, name, _ in FIELDS])
async def test_hostile_numbers(path, name, body):
    async with in_process(echo_app()) as client:
        for value in HOSTILE:
            text = json.dumps(body)[:-1] + f', "{name}": {value}}}'
            response = await client.post(path, content=text.encode(), headers=JSON)
            assert response.status_code in (200, 400), (value, response.text)
            if value in NEVER_GOOD:
                assert response.status_code == 400, value
            if response.status_code == 400:
                error = error_of(response)
                assert error.get("type", "invalid_request_error") == "invalid_request_error"
                assert len(error["message"]) < 400
                if value not in ("NaN", "Infinity", "-Infinity", "9" * 5000):
                    said = error.get("param") or error["message"]
                    assert any(word in said for word in (name, "min_tokens", "best_of")), error


SCALARS = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=6)
KEYS = st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
KNOWN = {path: sorted(kind.model_fields) for path, (kind, _) in ROUTES.items()}


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_in_any_field_is_answered_with_200_or_400(data):
    path = data.draw(st.sampled_from(sorted(ROUTES)))
    names = data.draw(st.lists(st.sampled_from(KNOWN[path]), max_size=3, unique=True))
    body = {**ROUTES[path][1], **{name: data.draw(VALUES) for name in names}}
    text = json.dumps(body).encode("utf-8", "surrogatepass")

    async def post():
        async with in_process(APP) as client:
            return await client.post(path, content=text, headers=JSON)

    response = asyncio.run(post())
    assert response.status_code in (200, 400, 404), (body, response.text)
    if response.status_code == 400:
        assert set(error_of(response)) in ({"message", "type", "param", "code"}, {"message", "type"}, {"message"})


APP = echo_app(limits=Limits(body_bytes=1 << 20))


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"null", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"a":1,"a":1}', JSON, 400),
        (b"\xff\xfe{}", JSON, 400),
        (b"{}", {}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"x", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"{}", JSON | {"content-encoding": "gzip"}, 415),
        (b"{}", JSON | {"content-length": "99999999999"}, 413),
        (b"{}", JSON | {"content-length": "9" * 30}, 413),
        (b" " * ((1 << 20) + 1), JSON, 413),
        (b"[" * 2000 + b"]" * 2000, JSON, 400),
        (json.dumps(chat_body("x")).encode(), {"content-type": "application/json; charset=utf-8"}, 200),
        (json.dumps(chat_body("x")).encode(), {"content-type": "Application/JSON"}, 200),
    ],
    ids=range(17),
)
async def test_bodies(content, headers, status):
    async with in_process(APP) as client:
        response = await client.post("/v1/chat/completions", content=content, headers=headers)
        assert response.status_code == status, response.text
        if status == 413:
            assert response.headers["connection"] == "close"


async def test_a_body_without_length_is_counted_while_it_comes():
    sent = 0

    async def flood():
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    limits = Limits(body_bytes=1 << 20)
    messages = []

    async def receive():
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    async def send(message):
        messages.append(message)

    pieces = flood()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    tracemalloc.start()
    try:
        await echo_app(limits=limits)(scope, receive, send)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert messages[0]["status"] == 413 and sent <= (1 << 20) + (1 << 17)
    assert peak <= 4 << 20


async def test_a_body_that_never_ends_is_given_up():
    async def receive():
        await asyncio.sleep(9)

    messages = []

    async def send(message):
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    await asyncio.wait_for(echo_app(limits=Limits(body_s=0.05))(scope, receive, send), 2)
    assert messages[0]["status"] == 408


async def test_large_but_sound_bodies_are_taken():
    async with in_process(echo_app()) as client:
        ids = list(range(256)) * 100
        response = await client.post("/detokenize", json={"tokens": ids})
        assert response.status_code == 200
        body = {"model": "echo", "prompt": "x" * 30_000, "max_tokens": 1}
        assert (await client.post("/v1/completions", json=body)).status_code == 200
