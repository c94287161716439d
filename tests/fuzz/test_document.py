"""The whole OpenAPI document under generated requests: no answer is a server's fault, and all are as described.

Slow; every operation gets an equal share of `LLAMAKIT_FUZZ_CASES` requests (2,000 unless it says otherwise). The
server is a real one on a loopback port, with the echo provider, shields by word list, and a database of its own.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import httpx2
import pytest

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'llamakit[fuzz]'")

from hypothesis import HealthCheck, Phase, given, reject, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.core.errors import InvalidSchema  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.serving import chat_body, served  # noqa: E402

from llamakit.server.app import build_app  # noqa: E402
from llamakit.stack.build import Stack, build_stack  # noqa: E402
from llamakit.stack.distribution import (  # noqa: E402
    Distribution,
    ModelEntry,
    ProviderEntry,
    ShieldEntry,
    StorageConfig,
)
from llamakit.stack.run_config import ServeConfig  # noqa: E402

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CASES = int(os.environ.get("LLAMAKIT_FUZZ_CASES", "2000"))
WAIT_S = 300
"""Seconds for an answer. The server shares its process with what makes the requests, and the machine with others."""
TRIES = 3
"""Times that something to ask about is made; what is asked about it is asked once."""
STREAMS = ("text/event-stream", "application/x-ndjson")


def fuzzed_stack() -> Stack:
    """Everything that a server can be without weights."""
    return build_stack(
        Distribution(
            providers={
                "inference": (
                    ProviderEntry(provider_id="echo", provider_type="inline::echo", config={"models": ("echo",)}),
                ),
                "safety": (ProviderEntry(provider_id="word-list", provider_type="inline::word-list"),),
            },
            models=(ModelEntry(model_id="echo"),),
            shields=(ShieldEntry(shield_id="words", params={"words": ["forbidden"]}),),
            storage=StorageConfig(database=":memory:"),
        )
    )


def described() -> dict:
    """The document, its streamed answers left to the tests of streams: they are no JSON.

    A model is one that is there, so that requests get past its name.
    """
    document = build_app(fuzzed_stack(), ServeConfig()).openapi()
    for schema in document["components"]["schemas"].values():
        model = schema.get("properties", {}).get("model", {})
        if model.get("minLength") == 1:
            model["enum"] = ["echo"]
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for media in STREAMS:
                    if media in response.get("content", {}):
                        response["content"][media] = {}
    return document


DOCUMENT = described()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]
OWN = [operation for operation in OPERATIONS if not operation.path.startswith("/v1/openai/")]
"""Those at a second path are the same operations."""
ASKED: Counter[str] = Counter()
"""Cases that were answered as described, by operation; some have fewer different requests than their share."""


@pytest.fixture(scope="module")
def server():
    with served(fuzzed_stack()) as running:
        yield running
    print(f"{sum(ASKED.values())} cases over {len(ASKED)} operations")


@pytest.fixture
def made(server):
    """One of everything, by the names of the paths' places."""

    def post(path, body=None, **more):
        for attempt in range(1, TRIES + 1):
            try:
                response = httpx2.post(f"{server.base_url}/{path}", json=body, timeout=WAIT_S, **more)
            except httpx2.TimeoutException:
                assert attempt < TRIES, f"{path} is not answered in {TRIES} times {WAIT_S} s"
            else:
                assert response.status_code == 200, response.text
                return response.json()

    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "echo", "input": "x"}}
    content = {"file": ("in.jsonl", json.dumps(line).encode())}
    file = post("files", files=content, data={"purpose": "batch"})["id"]
    batch = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "1h"}
    conversation = post("conversations", {"items": [{"role": "user", "content": "hi"}]})["id"]
    items = httpx2.get(f"{server.base_url}/conversations/{conversation}/items", timeout=WAIT_S).json()["data"]
    upload = {"filename": "a.txt", "purpose": "user_data", "bytes": 3, "mime_type": "text/plain"}
    return {
        "file_id": file,
        "batch_id": post("batches", batch)["id"],
        "conversation_id": conversation,
        "item_id": items[0]["id"],
        "completion_id": post("chat/completions", chat_body(store=True))["id"],
        "response_id": post("responses", {"model": "echo", "input": "x", "background": True})["id"],
        "prompt_id": post("prompts", {"prompt": "x {{ name }}"})["prompt_id"],
        "upload_id": post("uploads", upload)["id"],
        "vector_store_id": post("vector_stores", {"name": "x"})["id"],
        "identifier": "words",
        "model": "echo",
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operation", OWN, ids=[operation.label for operation in OWN])
def test_an_operation(operation, server, made):
    @settings(
        max_examples=max(1, CASES // len(OWN)),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy_of(operation), st.booleans())
    def one(case, is_real):
        if is_real:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = made.get(name, case.path_parameters[name])
        case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=WAIT_S)
        ASKED[operation.label] += 1

    one()


def strategy_of(operation):
    """Requests as described, and, where there is something to get wrong, requests that are not."""
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not operation.body and not operation.query:
        return right
    return st.one_of(right, right, possible(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)))


@st.composite
def possible(draw, requests):
    """The requests, without those that the generator begins and cannot end: it gives up on filters within filters."""
    try:
        return draw(requests)
    except InvalidSchema:
        reject()
