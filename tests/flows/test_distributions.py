"""Every distribution that comes with the package is started and asked, as far as a machine without a network can."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from tests.postgres import empty_database, postgres_server
from tests.serving import Served, echo_stack, served

import llamakit
from llamakit.providers.specs import Api
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution
from llamakit.stack.distribution_file import load, shipped

__all__ = ["postgres_server"]
SRC = Path(llamakit.__file__).parents[1]
KEY = "sk-0123456789"
MODELS = ("llama3.3:70b-instruct", "llama3.2:1b", "tgi")
CLOUD = {
    "DATABRICKS_HOST": "dbc-1.cloud.databricks.com",
    "DATABRICKS_TOKEN": "dapi-x",
    "TOGETHER_API_KEY": "sk-together",
    "FIREWORKS_API_KEY": "sk-fireworks",
    "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key",
}
"""Keys of services that nobody asks anything of."""
ENGINES = {"ollama": "OLLAMA_URL", "vllm": "VLLM_URL", "tgi": "TGI_URL", "onprem": "VLLM_URL"}
"""Distributions around a server of models, and the variable that says where it is."""
COMPUTES = {"local", "edge"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Served]:
    """This project's own server in the place of Ollama, vLLM and TGI."""
    with served(echo_stack(models=MODELS)) as running:
        yield running


def started(name: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Distribution:
    """A distribution under an environment, kept in memory instead of under the data home."""
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    distribution = load(name)
    if "POSTGRES_URL" in environ:
        return distribution
    return dataclasses.replace(distribution, storage=dataclasses.replace(distribution.storage, database=":memory:"))


@pytest.mark.parametrize("name", sorted(set(shipped()) - COMPUTES - set(ENGINES)))
def test_a_cloud_is_ready_without_being_asked(name, monkeypatch):
    distribution = started(name, CLOUD, monkeypatch)
    with served(build_stack(distribution)) as running, httpx2.Client(base_url=running.url) as client:
        assert client.get("/health").status_code == 200
        listed = client.get("/v1/providers").json()
        ids = {row["provider_id"] for row in listed["data"] if row["api"] == "inference"}
        assert ids == {row.provider_id for row in distribution.of(Api.inference)}
        if distribution.models:
            names = {model["id"] for model in client.get("/v1/models").json()["data"]}
            assert names == {model.model_id for model in distribution.models}


@pytest.mark.parametrize("name", sorted(set(ENGINES) - {"onprem"}))
def test_an_engine_behind_a_distribution_answers(name, engine, monkeypatch):
    distribution = started(name, {ENGINES[name]: engine.url}, monkeypatch)
    with served(build_stack(distribution)) as running:
        answers(running, distribution.models[0].model_id if distribution.models else "llama3.2:1b")


async def test_the_rack_answers_from_postgres(engine, postgres_server, monkeypatch):
    async with empty_database(postgres_server) as url:
        environ = {"VLLM_URL": engine.url, "POSTGRES_URL": url, "LLAMA_API_KEY": KEY}
        distribution = started("onprem", environ, monkeypatch)
        assert distribution.server.is_exposed and distribution.server.wants_key and distribution.telemetry.json_logs
        stack = build_stack(distribution)
        with served(stack, api_keys=distribution.server.api_keys) as running:
            assert httpx2.get(f"{running.url}/v1/models").status_code == 401
            answers(running, "llama3.3:70b-instruct", key=KEY)
            client = openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0)
            made = client.responses.create(model="llama3.3:70b-instruct", input="keep this")
            assert client.responses.retrieve(made.id).output_text == "keep this"


def answers(running: Served, model: str, *, key: str = "unused") -> None:
    client = openai.OpenAI(base_url=running.base_url, api_key=key, max_retries=0)
    messages: list = [{"role": "user", "content": "hello"}]
    assert client.chat.completions.create(model=model, messages=messages).choices[0].message.content == "hello"
    chunks = client.chat.completions.create(model=model, messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello"
    assert model in [each.id for each in client.models.list()]


def test_several_clouds_side_by_side(monkeypatch):
    distribution = started("cloud-any", CLOUD, monkeypatch)
    ids = [row.provider_id for row in distribution.of(Api.inference)]
    assert ids == ["together", "fireworks", "databricks", "bedrock"]
    with served(build_stack(distribution)) as running:
        body = {"model": "groq/llama3.1:8b-instruct", "messages": [{"role": "user", "content": "x"}]}
        refused = httpx2.post(f"{running.base_url}/chat/completions", json=body)
        assert refused.status_code == 404 and "one of: together, fireworks, databricks, bedrock" in refused.text


SHUT = """
import asyncio, socket, sys
import httpx2
from llamakit.outbound.client import OutboundClient
from llamakit.outbound.offline import is_shut, shut
from llamakit.outbound.policy import OutboundPolicy

shut()
shut()
assert is_shut()
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname()).close()
left, right = socket.socketpair()
socket.getaddrinfo("192.0.2.1", 80)

def refused(call):
    try:
        call()
    except Exception as fault:
        # Other packages put it into an error of their own; why it was refused stays.
        assert "server is offline" in str(fault), fault
    else:
        sys.exit(f"{call} went out")

refused(lambda: socket.create_connection(("192.0.2.1", 80), timeout=1))
refused(lambda: socket.create_connection(("example.com", 80), timeout=1))
refused(lambda: socket.gethostbyname("example.com"))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused(lambda: datagrams.sendto(b"x", ("192.0.2.1", 53)))
refused(lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)))
refused(lambda: httpx2.get("http://192.0.2.1/", timeout=1))

async def through_the_client():
    client = OutboundClient(OutboundPolicy(hosts=("example.com",), plain_http=True))
    await client.request("GET", "http://example.com/")

refused(lambda: asyncio.run(through_the_client()))
"""


def test_offline_nothing_leaves_the_process():
    subprocess.run([sys.executable, "-c", SHUT], check=True, env=os.environ | {"PYTHONPATH": str(SRC)})


@pytest.mark.parametrize("name", ["edge", pytest.param("local", marks=pytest.mark.slow)])
def test_a_distribution_that_computes_answers_from_its_own_model(name, tmp_path):
    """By the command, in a process of its own, with the model that comes with the package."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
    environ |= {"PYTHONPATH": str(SRC), "LLAMA_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "llamakit", "stack", "run", name, "--port", "0"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next((found[1] for line in process.stderr if (found := re.search(r"serving on (\S+)", line))), None)
        assert url is not None
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60)
        asked: list = [{"role": "user", "content": "What is a llama?"}]
        made = client.chat.completions.create(model="cria", messages=asked, max_tokens=16)
        assert made.choices[0].message.content and made.usage is not None
        if name == "edge":
            rss = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            assert rss is not None and int(rss[1]) / 1024 <= 512
            pulled = httpx2.post(f"{url}/api/pull", json={"model": "llama3.2:1b", "stream": False}, timeout=60)
            assert pulled.status_code >= 400 and "offline" in pulled.text, pulled.text
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
