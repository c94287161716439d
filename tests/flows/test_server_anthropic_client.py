"""The official Anthropic client against the real server on a loopback port."""

from __future__ import annotations

import base64

import anthropic
import httpx2
import pytest
from tests.serving import Served, served
from tests.tiny import tiny_checkpoint

from llamakit.core.config import Secret
from llamakit.core.errors import EngineStopped
from llamakit.core.messages import TextDelta
from llamakit.providers.inline.inference.echo import EchoInference
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import single

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "minLength": 3}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city", "days"],
    },
}
TIME = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served):
    with client_of(server) as made:
        yield made


def client_of(server: Served, **settings):
    return anthropic.Anthropic(
        base_url=server.url, **{"api_key": "unused", "max_retries": 0, "timeout": 20, **settings}
    )


def user(text):
    return [{"role": "user", "content": text}]


def ask(client, content, **fields):
    return client.messages.create(**{"model": "echo", "max_tokens": 64, "messages": user(content), **fields})


def test_a_message(client):
    answer = ask(client, "Grüße, 世界 🦙")
    assert [block.type for block in answer.content] == ["text"] and answer.content[0].text == "Grüße, 世界 🦙"
    assert (answer.role, answer.type, answer.model) == ("assistant", "message", "echo")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens == len("Grüße, 世界 🦙".encode()) and answer.usage.input_tokens > 0
    assert answer._request_id.startswith("req-")


def test_a_stream_says_the_same_as_the_whole_message(client):
    whole = ask(client, "one two 世")
    with client.messages.stream(model="echo", max_tokens=64, messages=user("one two 世")) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text and final.stop_reason == whole.stop_reason
    total = final.usage.input_tokens + final.usage.cache_read_input_tokens
    assert total == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert final.usage.output_tokens == whole.usage.output_tokens
    kinds = [event.type for event in events if event.type not in ("text", "content_block_delta", "ping")]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]


def test_the_raw_events(server):
    body = {"model": "echo", "max_tokens": 9, "messages": user("ab"), "stream": True}
    response = httpx2.post(f"{server.url}/v1/messages", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["request-id"] == response.headers["x-request-id"]
    blocks = response.text.strip().split("\n\n")
    names = [block.splitlines()[0].removeprefix("event: ") for block in blocks]
    assert names[0] == "message_start" and names[-1] == "message_stop" and "[DONE]" not in response.text
    assert all(f'"type":"{name}"' in block for name, block in zip(names, blocks, strict=True))
    assert '"input_tokens":0' not in blocks[0]


def test_tool_use(client):
    answer = ask(client, "call get_weather and get_time", tools=[WEATHER, TIME])
    assert answer.stop_reason == "tool_use"
    assert [(block.name, block.input) for block in answer.content] == [
        ("get_weather", {"city": "xxx", "days": 1}),
        ("get_time", {}),
    ]
    assert len({block.id for block in answer.content}) == 2


def test_streamed_tool_use_is_the_same(client):
    tools = [WEATHER, TIME]
    whole = ask(client, "call get_weather and get_time", tools=tools)
    messages = user("call get_weather and get_time")
    with client.messages.stream(model="echo", max_tokens=64, messages=messages, tools=tools) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert [(block.name, block.input) for block in final.content] == [
        (block.name, block.input) for block in whole.content
    ]
    assert final.stop_reason == "tool_use"
    deltas = [event for event in events if event.type == "content_block_delta"]
    assert {delta.delta.type for delta in deltas} == {"input_json_delta"}
    starts = [event.index for event in events if event.type == "content_block_start"]
    stops = [event.index for event in events if event.type == "content_block_stop"]
    assert starts == stops == [0, 1]


def test_a_tool_loop(client):
    messages = user("please get_time")
    first = ask(client, "", messages=messages, tools=[TIME])
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "noon"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ask(client, "", messages=messages, tools=[TIME])
    assert second.content[0].text == "noon" and second.stop_reason == "end_turn"
    failed = {**result, "content": [{"type": "text", "text": "no clock"}], "is_error": True}
    third = ask(client, "", messages=[*messages[:2], {"role": "user", "content": [failed]}], tools=[TIME])
    assert third.content[0].text == "Error: no clock"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "none"}, []),
        ({"type": "auto"}, []),
        ({"type": "any"}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
    ],
)
def test_tool_choice(client, choice, names):
    answer = ask(client, "hi", tools=[WEATHER, TIME], tool_choice=choice)
    assert [block.name for block in answer.content if block.type == "tool_use"] == names


def test_one_tool_at_a_time(client):
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    answer = ask(client, "get_weather get_time", tools=[WEATHER, TIME], tool_choice=choice)
    assert len(answer.content) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences_and_length(client, stream):
    def ending(**fields):
        if not stream:
            answer = ask(client, "hello world", **fields)
        else:
            with client.messages.stream(model="echo", messages=user("hello world"), **fields) as opened:
                answer = opened.get_final_message()
        return answer.content[0].text, answer.stop_reason, answer.stop_sequence

    assert ending(stop_sequences=["wor"], max_tokens=64) == ("hello ", "stop_sequence", "wor")
    assert ending(max_tokens=5) == ("hello", "max_tokens", None)


def test_more_tokens_than_the_context_holds_are_a_ceiling(client):
    assert ask(client, "hi", max_tokens=2_000_000).content[0].text == "hi"
    with pytest.raises(anthropic.BadRequestError, match="32768"):
        ask(client, "x" * 40_000)


def test_system_as_text_and_as_blocks(client):
    count = client.messages.count_tokens
    plain = count(model="echo", messages=user("hi")).input_tokens
    text = count(model="echo", messages=user("hi"), system="Be brief.").input_tokens
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert count(model="echo", messages=user("hi"), system=blocks).input_tokens == text > plain
    answer = ask(client, "hi", system=blocks)
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == text


def test_an_answer_that_was_begun_goes_on(client):
    messages = [*user("Say it."), {"role": "assistant", "content": "The best answer is ("}]
    assert ask(client, "", messages=messages).content[0].text == "The best answer is ("


def test_structured_output(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = ask(client, "hi", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert answer.content[0].text == '{"n": 0}'


def test_what_is_set_aside_is_named(client):
    raw = client.messages.with_raw_response.create(
        model="echo",
        max_tokens=2048,
        messages=user([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]),
        thinking={"type": "enabled", "budget_tokens": 1024},
        metadata={"user_id": "u"},
    )
    assert raw.headers["x-llamakit-ignored"] == "thinking, metadata, messages[0].content[0].cache_control"
    history = [
        *user("hi"),
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        *user("go on"),
    ]
    raw = client.messages.with_raw_response.create(model="echo", max_tokens=9, messages=history)
    assert raw.headers["x-llamakit-ignored"] == "messages[1].content[0]"


def test_models_in_both_shapes(server, client):
    listed = list(client.models.list(limit=1))
    assert [model.id for model in listed] == ["echo", "meta/echo:1b"]
    model = client.models.retrieve("meta/echo:1b")
    assert (model.type, model.id, model.max_input_tokens) == ("model", "meta/echo:1b", 32768)
    assert httpx2.get(f"{server.base_url}/models").json()["object"] == "list"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("fields", "kind", "match"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError, "llama pull nobody"),
        ({"max_tokens": -1}, anthropic.BadRequestError, "max_tokens"),
        ({"extra_body": {"temperature": 9}}, anthropic.BadRequestError, "temperature"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, anthropic.BadRequestError, "Anthropic"),
        ({"tools": [TIME, TIME]}, anthropic.BadRequestError, "twice"),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "tool_choice"),
        ({"stop_sequences": ["x"] * 99}, anthropic.BadRequestError, "stop"),
        ({"messages": [{"role": "assistant", "content": ""}]}, anthropic.BadRequestError, "no text to go on"),
    ],
)
def test_errors_in_anthropics_shape(client, fields, kind, match):
    with pytest.raises(kind, match=match) as raised:
        ask(client, "hi", **fields)
    assert raised.value.body["type"] == "error" and raised.value.body["request_id"].startswith("req-")


@pytest.mark.parametrize(
    ("block", "match"),
    [
        ({"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/x"}}, "not fetched"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": PIXEL}}, "image/png"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%%%"}}, "base64"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "text"),
        ({"type": "tool_use", "id": "x", "name": "y", "input": {}}, "assistant"),
        ({"type": "server_tool_use", "id": "x", "name": "y", "input": {}}, "type must be one of"),
    ],
)
def test_blocks_nobody_can_take(client, block, match):
    with pytest.raises(anthropic.BadRequestError, match=match):
        ask(client, [block])


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_keys_in_either_header(header):
    key = "sk-the-right-key-1"
    with served(api_keys=(Secret(key),)) as server:
        own = {"api_key": key} if header == "x-api-key" else {"auth_token": key, "api_key": None}
        with client_of(server, **own) as client:
            assert ask(client, "hi").content[0].text == "hi"
        with (
            client_of(server, api_key="wrong") as client,
            pytest.raises(anthropic.AuthenticationError, match="API key"),
        ):
            ask(client, "hi")


def test_a_stream_that_fails_ends_with_an_error_event():
    class Failing(EchoInference):
        async def chat(self, request):
            yield TextDelta(text="half")
            raise EngineStopped("the engine stopped")

    with served(Stack(inference=Failing(), default_models=("echo",))) as server, client_of(server) as client:
        stream = client.messages.create(model="echo", max_tokens=9, messages=user("hi"), stream=True)
        with pytest.raises(anthropic.APIStatusError, match="engine stopped"):
            list(stream)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("anthropic") / "tiny")
    settings = {"threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}
    distribution = single(models=(str(checkpoint),), config=settings)
    with served(build_stack(distribution)) as running, client_of(running, timeout=60) as client:
        yield client


def test_the_engine_streams_what_it_says_whole(local):
    fields = {"model": "tiny", "max_tokens": 20, "messages": user("Tell me of llamas.")}
    fields["extra_body"] = {"temperature": 0}
    whole = local.messages.create(**fields)
    with local.messages.stream(**fields) as stream:
        streamed = stream.get_final_message()
    assert [block.text for block in streamed.content] == [block.text for block in whole.content]
    assert (streamed.stop_reason, streamed.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    counted = local.messages.count_tokens(model="tiny", messages=fields["messages"])
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def test_the_engine_calls_a_tool_it_must_call(local):
    choice = {"type": "tool", "name": "get_weather"}
    schema = {"type": "object", "properties": {"city": {"enum": ["Cusco", "Lima"]}}, "required": ["city"]}
    tools = [{"name": "get_weather", "input_schema": schema}]
    with local.messages.stream(
        model="tiny", max_tokens=1500, messages=user("Weather?"), tools=tools, tool_choice=choice
    ) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use" and final.content[0].input["city"] in ("Cusco", "Lima")


def test_the_engine_reads_no_images(local):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    with pytest.raises(anthropic.BadRequestError, match="image"):
        local.messages.create(model="tiny", max_tokens=9, messages=user([image]))
