"""A gateway: every official client to a server whose models are another server's, over OpenAI's wire."""

from __future__ import annotations

import time

import anthropic
import httpx2
import ollama
import openai
import pytest
from tests.serving import echo_stack, served

from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single

USER = [{"role": "user", "content": "Grüße, 世界 🦙"}]
TOOL = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def behind():
    """The server that has the models; slow enough to be left in the middle of an answer."""
    with served(echo_stack(EchoInference(EchoConfig(models=("echo",), delay_s=0.001)))) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(behind):
    settings = {"base_url": behind.base_url, "retries": 0}
    with served(build_stack(single("remote::llamakit", ("echo",), settings))) as running:
        yield running


def test_openais_client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0) as client:
        whole = client.chat.completions.create(model="echo", messages=USER, logprobs=True)
        chunks = list(client.chat.completions.create(model="echo", messages=USER, stream=True))
        assert whole.choices[0].message.content == USER[0]["content"]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == USER[0]["content"]
        assert (
            bytes(b for entry in whole.choices[0].logprobs.content for b in entry.bytes).decode() == USER[0]["content"]
        )
        tools = [{"type": "function", "function": TOOL}]
        called = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "get_time"}], tools=tools
        )
        assert called.choices[0].message.tool_calls[0].function.name == "get_time"
        assert len(client.embeddings.create(model="echo", input=["a", "b"]).data) == 2
        assert client.completions.create(model="echo", prompt="abc", max_tokens=3).choices[0].text == "abc"
        assert [model.id for model in client.models.list()] == ["echo"]
        with pytest.raises(openai.NotFoundError, match="Served: echo"):
            client.chat.completions.create(model="nobody", messages=USER)
        with pytest.raises(openai.BadRequestError, match="32768"):
            client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x" * 40_000}])


def test_anthropics_client(gateway):
    with anthropic.Anthropic(base_url=gateway.url, api_key="unused", max_retries=0) as client:
        with client.messages.stream(model="echo", max_tokens=1_000_000, messages=USER) as stream:
            final = stream.get_final_message()
        assert final.content[0].text == USER[0]["content"] and final.stop_reason == "end_turn"
        assert client.messages.count_tokens(model="echo", messages=USER).input_tokens > 0


def test_ollamas_client(gateway):
    with ollama.Client(host=gateway.url) as client:
        parts = list(client.chat("echo", USER, stream=True))
        assert "".join(part.message.content for part in parts) == USER[0]["content"]
        assert parts[-1].eval_count > 0 and parts[-1].eval_duration > 0
        assert [model.model for model in client.ps().models] == ["echo"]


def test_who_leaves_the_gateway_stops_the_work_behind_it(gateway, behind):
    body = {"model": "echo", "messages": [{"role": "user", "content": "word " * 5000}], "stream": True}
    with httpx2.stream("POST", f"{gateway.base_url}/chat/completions", json=body) as response:
        next(response.iter_raw())
        assert behind.stack.inference.running
    deadline = time.monotonic() + 5
    while behind.stack.inference.running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not behind.stack.inference.running and behind.stack.inference.cancelled


def test_nobody_behind_the_gateway():
    settings = {"base_url": "http://127.0.0.1:9", "retries": 0}
    with served(build_stack(single("remote::vllm", config=settings))) as running:
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            body = {"model": "m", "messages": USER, "max_tokens": 9}
            response = httpx2.post(running.url + path, json=body)
            assert response.status_code == 502 and "error" in response.json(), response.text
            assert "vLLM" in response.text or "127.0.0.1" in response.text
