"""The official Ollama client against the real server on a loopback port."""

from __future__ import annotations

import json
from contextlib import contextmanager

import httpx2
import ollama
import pytest
from tests.fakehub import FakeHub, Repo
from tests.serving import MODELS, echo_stack, served
from tests.tiny import tiny_checkpoint

from llamakit.core.config import Secret
from llamakit.core.errors import EngineStopped
from llamakit.core.messages import TextDelta
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import single
from llamakit.stack.library import Library

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
PIXEL = b"\x89PNG\r\n\x1a\n"


@contextmanager
def client_of(stack=None, **settings):
    """A client of a server, its address as `url`."""
    with served(stack, **settings) as server, ollama.Client(host=server.url, timeout=60) as client:
        client.url = server.url
        yield client


@pytest.fixture(scope="module")
def client():
    with client_of() as made:
        yield made


def user(text, **fields):
    return [{"role": "user", "content": text, **fields}]


def test_chat(client):
    answer = client.chat("echo", user("Grüße, 世界 🦙"))
    assert answer.message.content == "Grüße, 世界 🦙" and answer.message.role == "assistant"
    assert (answer.model, answer.done, answer.done_reason) == ("echo", True, "stop")
    assert answer.eval_count == len("Grüße, 世界 🦙".encode()) and answer.prompt_eval_count > 0
    assert answer.total_duration >= answer.eval_duration + answer.prompt_eval_duration > 0


def test_a_stream_says_the_same_as_the_whole_answer(client):
    whole = client.chat("echo", user("one two 世"))
    *parts, last = list(client.chat("echo", user("one two 世"), stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert not any(part.done for part in parts) and last.done and last.message.content == ""
    assert (last.done_reason, last.eval_count) == (whole.done_reason, whole.eval_count)


def test_lines_by_default(client):
    response = httpx2.post(f"{client.url}/api/chat", json={"model": "echo", "messages": user("ab")})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["message"]["content"] for line in lines] == ["a", "b", ""]
    assert [line["done"] for line in lines] == [False, False, True]
    assert all(line["created_at"].endswith("Z") and line["model"] == "echo" for line in lines)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(client, stream):
    answer = client.chat("echo", user("call get_weather and get_time"), tools=[WEATHER, TIME], stream=stream)
    parts = list(answer) if stream else [answer]
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [(call.function.name, dict(call.function.arguments)) for call in calls] == [
        ("get_weather", {"city": "", "days": 0}),
        ("get_time", {}),
    ]
    assert parts[-1].done_reason == "stop"


def test_a_tool_loop(client):
    messages = user("please get_time and get_weather")
    first = client.chat("echo", messages, tools=[TIME, WEATHER]).message
    results = [{"role": "tool", "tool_name": "get_time", "content": "noon"}]
    second = client.chat("echo", [*messages, first, *results], tools=[TIME, WEATHER])
    assert second.message.content == "noon" and not second.message.tool_calls


def test_a_function_of_python_as_tool(client):
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
          a: one
          b: the other
        """
        return a + b

    answer = client.chat("echo", user("please add"), tools=[add])
    assert answer.message.tool_calls[0].function.name == "add"


def test_generate(client):
    assert client.generate("echo", "hello").response == "hello"
    parts = list(client.generate("echo", "hello", system="Be brief.", stream=True))
    assert "".join(part.response for part in parts) == "hello" and parts[-1].done
    assert client.generate("echo", "def f(", suffix="return 1").response == "return 1"


def test_a_raw_prompt_spells_its_special_tokens(client):
    raw = client.generate("echo", "<|begin_of_text|>", raw=True)
    assert raw.prompt_eval_count == 1
    assert client.generate("echo", "ab", raw=True).prompt_eval_count == 3


def test_options(client):
    def chat(**options):
        answer = client.chat("echo", user("hello world"), options=options)
        return answer.message.content, answer.done_reason

    assert chat(num_predict=5, temperature=0.0, seed=1, top_k=40, top_p=0.9) == ("hello", "length")
    assert chat(stop=["wor"], num_predict=-1) == ("hello ", "stop")
    assert chat(num_predict=2_000_000) == ("hello world", "stop")


def test_what_is_set_aside_is_named(client):
    body = {"model": "echo", "messages": user("x"), "stream": False, "think": True}
    body["options"] = {"num_ctx": 131072, "num_gpu": 99, "made_up": 1}
    response = httpx2.post(f"{client.url}/api/chat", json=body)
    assert response.status_code == 200
    named = set(response.headers["x-llamakit-ignored"].split(", "))
    assert named == {"options.made_up", "think", "options.num_ctx", "options.num_gpu"}


def test_json_and_schema(client):
    assert json.loads(client.chat("echo", user("hi"), format="json").message.content) == {"echo": "hi"}
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert json.loads(client.generate("echo", "hi", format=schema).response) == {"n": 0}


def test_logprobs(client):
    answer = client.chat("echo", user("ab"), logprobs=True, top_logprobs=2)
    assert [entry.token for entry in answer.logprobs] == ["a", "b"]
    assert all(len(entry.top_logprobs) == 2 for entry in answer.logprobs)


def test_models_are_loaded_and_let_go(client):
    assert client.generate("echo", keep_alive=0).done_reason == "unload"
    assert "echo" not in [model.model for model in client.ps().models]
    assert client.chat("echo", keep_alive="1h30m0s").done_reason == "load"
    (running,) = [model for model in client.ps().models if model.model == "echo"]
    assert running.context_length == 32768 and running.size_vram == 0
    client.generate("echo", keep_alive=-1)
    (running,) = [model for model in client.ps().models if model.model == "echo"]
    assert running.expires_at.year == 9999


def test_names_and_facts(client):
    assert [model.model for model in client.list().models] == list(MODELS)
    shown = client.show("echo:latest")
    assert shown.modelinfo["llama.context_length"] == 32768 and shown.capabilities == ["completion"]
    assert httpx2.get(f"{client.url}/api/version").json()["version"].count(".") == 2


def test_vectors(client):
    made = client.embed("echo", ["llama", "alpaca"])
    assert len(made.embeddings) == 2 and len(made.embeddings[0]) == 32
    assert client.embed("echo", "llama", dimensions=8).embeddings[0] != made.embeddings[0][:8]
    assert client.embeddings("echo", "llama").embedding == made.embeddings[0]
    assert list(client.embeddings("echo", "").embedding) == []


def test_somebody_is_there(client):
    assert httpx2.head(client.url).status_code == 200
    assert httpx2.get(client.url, headers={"user-agent": "ollama/0.13 (x86_64 linux)"}).text == "Ollama is running"
    assert httpx2.get(client.url).json()["name"] == "llamakit"


@pytest.mark.parametrize(
    ("path", "body", "status", "match"),
    [
        ("chat", {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}, 404, "llama pull nobody"),
        ("chat", {"messages": []}, 400, "model is required"),
        ("chat", {"model": "echo", "messages": [{"role": "robot", "content": "x"}]}, 400, "role"),
        ("chat", {"model": "echo", "options": {"temperature": "hot"}}, 400, "options.temperature"),
        ("chat", {"model": "echo", "messages": [{"role": "user", "images": ["AAAA"]}]}, 400, "images"),
        ("chat", {"model": "echo", "messages": [{"role": "user", "images": ["%"]}]}, 400, "base64"),
        ("chat", {"model": "echo", "format": "yaml", "messages": []}, 400, "json"),
        ("chat", {"model": "echo", "keep_alive": "soon"}, 400, "keep_alive"),
        ("generate", {"model": "echo", "prompt": "x", "template": "{{ .Prompt }}"}, 400, "template"),
        ("generate", {"model": "echo", "prompt": "x", "context": [1, 2]}, 400, "/api/chat"),
        ("generate", {"model": "echo", "prompt": "x", "raw": True, "system": "y"}, 400, "raw"),
        ("generate", {"model": "echo", "prompt": "x", "width": 512}, 400, "images"),
        ("embed", {"model": "echo", "input": [""]}, 400, "input"),
        ("show", {}, 400, "model is required"),
        ("nothing", {}, 404, "nothing is at this path"),
    ],
)
def test_errors_are_a_sentence(client, path, body, status, match):
    response = httpx2.post(f"{client.url}/api/{path}", json=body)
    assert response.status_code == status and match in response.json()["error"], response.text
    assert set(response.json()) == {"error"}


def test_a_stream_that_fails_ends_with_an_error_line():
    class Failing(EchoInference):
        async def chat(self, request):
            yield TextDelta(text="half")
            raise EngineStopped("the engine stopped")

    with client_of(Stack(inference=Failing())) as client, pytest.raises(ollama.ResponseError, match="engine stopped"):
        list(client.chat("echo", user("x"), stream=True))


@pytest.fixture
def hub():
    with FakeHub() as running:
        yield running


@pytest.fixture
def machine(tmp_path, hub):
    """A client of a server whose models are files below `tmp_path`."""
    library = Library(home=tmp_path / "home", hub=tmp_path / "hub", endpoint=hub.url)
    inference = EchoInference(EchoConfig(models=("echo", "mario")))
    with client_of(Stack(inference=inference, library=library)) as client:
        client.library = library
        yield client


def test_pull(machine, hub):
    files = {"config.json": b"{}", "model.safetensors": b"w" * 300_000, "tokenizer.json": b"{}"}
    hub.repos["someone/llama"] = Repo(files)
    steps = list(machine.pull("hf.co/someone/llama", stream=True))
    assert steps[0].status == "pulling manifest" and steps[-1].status == "success"
    moving = [step for step in steps if step.status.startswith("pulling ") and step.total]
    total = sum(map(len, files.values()))
    assert moving and {step.total for step in moving} == {total} and moving[-1].completed == total
    assert machine.pull("hf.co/someone/llama").status == "success"
    machine.delete("hf.co/someone/llama")
    with pytest.raises(ollama.ResponseError, match="not on this machine"):
        machine.delete("hf.co/someone/llama")


@pytest.mark.parametrize("stream", [False, True])
def test_a_pull_that_cannot_be(machine, stream):
    with pytest.raises(ollama.ResponseError, match="has no repository someone/nothing"):
        list(machine.pull("someone/nothing", stream=stream))
    with pytest.raises(ollama.ResponseError, match="by name here, not by path"):
        list(machine.pull("../../etc", stream=stream))


def test_created_models(machine):
    parameters = {"temperature": 0.5, "stop": ["a", "b"], "num_ctx": 2048, "num_gpu": 1}
    steps = machine.create("mario", from_="llama3.2:1b", system="You are Mario.", parameters=parameters, stream=True)
    assert [step.status for step in steps][-1] == "success"
    shown = machine.show("mario")
    assert "SYSTEM You are Mario." in shown.modelfile and shown.details.parent_model == "llama3.2:1b"
    assert shown.parameters.splitlines()[0].split() == ["temperature", "0.5"]
    machine.copy("mario", "luigi")
    assert machine.library._recipe("luigi").system == "You are Mario."
    machine.delete("mario")
    assert machine.library._recipe("mario") is None
    body = {"name": "peach", "modelfile": "FROM luigi\nSYSTEM You are Peach.", "stream": False}
    assert httpx2.post(f"{machine.url}/api/create", json=body).json() == {"status": "success"}


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"from": "/etc/passwd"}, "by name here"),
        ({"modelfile": "FROM ./secret.gguf"}, "by name here"),
        ({"modelfile": "FROM llama3.2:1b\nADAPTER /etc/passwd"}, "adapters"),
        ({"from": "llama3.2:1b", "adapters": {"x": "sha256:1"}}, "adapters"),
        ({"from": "llama3.2:1b", "files": {"x": "sha256:1"}}, "files"),
        ({"from": "llama3.2:1b", "template": "{{ .Prompt }}"}, "template"),
        ({"from": "llama3.2:1b", "quantize": "q4_K_M"}, "quantize"),
        ({"from": "llama3.2:1b", "parameters": {"temprature": 1}}, "nearest: 'temperature'"),
        ({"from": "llama3.2:1b", "parameters": {"temperature": [[1]]}}, "number or text"),
        ({"from": "llama3.2:1b", "model": "../../x"}, "lower-case letters"),
        ({"from": "llama3.2:1b", "model": "llama3.2:3b"}, "already known"),
        ({}, "from is required"),
    ],
)
def test_what_is_not_created_over_http(machine, fields, match):
    response = httpx2.post(f"{machine.url}/api/create", json={"model": "new", **fields})
    assert response.status_code in (400, 404) and match in response.json()["error"], response.text


def test_the_machine_is_changed_only_where_it_is_the_servers_own(client):
    for call in (client.pull, client.delete):
        with pytest.raises(ollama.ResponseError, match="not files of its machine"):
            call("llama3.2:1b")


def test_strangers_do_not_change_the_machine(tmp_path):
    stack = Stack(inference=EchoInference(), library=Library(home=tmp_path, hub=tmp_path))
    with served(stack, host="0.0.0.0", allow_anonymous=True) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        with ollama.Client(host=url) as client:
            assert client.chat("echo", user("hi")).message.content == "hi"
            with pytest.raises(ollama.ResponseError, match="without a key") as raised:
                client.pull("llama3.2:1b")
            assert raised.value.status_code == 403


def test_a_key_is_wanted_and_sent():
    key = "sk-the-right-key-1"
    with served(echo_stack(), api_keys=(Secret(key),)) as server:
        with ollama.Client(host=server.url) as client, pytest.raises(ollama.ResponseError, match="API key") as raised:
            client.list()
        assert raised.value.status_code == 401
        with ollama.Client(host=server.url, headers={"authorization": f"Bearer {key}"}) as client:
            assert client.list().models


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("ollama") / "tiny")
    settings = {"threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}
    distribution = single(models=(str(checkpoint),), config=settings)
    with client_of(build_stack(distribution)) as client:
        yield client


def test_the_engine_streams_what_it_says_whole(local):
    options = {"temperature": 0, "num_predict": 20, "num_ctx": 131072}
    whole = local.chat("tiny", user("Tell me of llamas."), options=options)
    parts = list(local.chat("tiny", user("Tell me of llamas."), options=options, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count)
    assert whole.eval_duration > 0 and whole.total_duration >= whole.eval_duration


def test_what_the_files_of_a_model_tell(local):
    shown = local.show("tiny")
    info = shown.modelinfo
    assert (info["llama.context_length"], info["llama.block_count"], info["llama.embedding_length"]) == (4096, 2, 64)
    assert shown.capabilities == ["completion", "tools"] and shown.details.quantization_level
    assert "/ollama" not in shown.model_dump_json()


def test_a_raw_prompt_of_the_engine(local):
    prompt = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    raw = local.generate("tiny", prompt, raw=True, options={"num_predict": 1})
    assert raw.prompt_eval_count == 1 + 1 + 4 + 1 + 2 + 2 + 1


def test_the_engine_reads_no_images(local):
    with pytest.raises(ollama.ResponseError, match="image"):
        local.chat("tiny", user("what is this?", images=[PIXEL]))
