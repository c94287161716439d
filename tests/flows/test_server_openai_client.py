"""The official OpenAI client against the real server on a loopback port."""

from __future__ import annotations

import base64
import struct

import openai
import pytest
from pydantic import BaseModel
from tests.serving import Served, served

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "minLength": 3}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served):
    with openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=20) as made:
        yield made


def user(text: str):
    return [{"role": "user", "content": text}]


def test_chat(client):
    answer = client.chat.completions.create(model="echo", messages=user("Grüße, 世界 🦙"))
    assert answer.choices[0].message.content == "Grüße, 世界 🦙"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.system_fingerprint.startswith("fp_")
    assert answer._request_id.startswith("req-")
    assert answer.model_extra["timings"]["predicted_n"] == answer.usage.completion_tokens


def test_stream_says_the_same_as_the_whole_answer(client):
    whole = client.chat.completions.create(model="echo", messages=user("one two 世"))
    chunks = list(client.chat.completions.create(model="echo", messages=user("one two 世"), stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra["timings"]["predicted_n"] == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_a_last_chunk_without_choices(client):
    stream = client.chat.completions.create(
        model="echo", messages=user("abc"), stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert last.choices == [] and last.usage.completion_tokens == 3
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_tool_calls_whole(client):
    answer = client.chat.completions.create(
        model="echo", messages=user("call get_weather and get_time"), tools=[WEATHER, TIME]
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert [call.function.name for call in message.tool_calls] == ["get_weather", "get_time"]
    assert message.tool_calls[0].function.arguments == '{"city": "xxx", "days": 1}'
    assert len({call.id for call in message.tool_calls}) == 2


def test_tool_calls_streamed_through_the_helper(client):
    with client.chat.completions.stream(
        model="echo", messages=user("call get_weather and get_time"), tools=[WEATHER, TIME]
    ) as stream:
        deltas = [
            call for event in stream if event.type == "chunk" for call in event.chunk.choices[0].delta.tool_calls or []
        ]
        final = stream.get_final_completion()
    assert all(isinstance(delta.index, int) for delta in deltas)
    for index in (0, 1):
        own = [delta for delta in deltas if delta.index == index]
        assert own[0].id and own[0].function.name and own[0].type == "function"
        assert all(delta.id is None and delta.function.name is None for delta in own[1:])
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"city": "xxx", "days": 1}'


def test_tool_loop(client):
    messages = user("please get_time")
    first = client.chat.completions.create(model="echo", messages=messages, tools=[TIME]).choices[0].message
    messages += [first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "noon"}]
    second = client.chat.completions.create(model="echo", messages=messages, tools=[TIME])
    assert second.choices[0].message.content == "noon" and second.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", []),
        ("auto", []),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "get_time"}}, ["get_time"]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [TIME],
                },
            },
            ["get_time"],
        ),
    ],
)
def test_tool_choice(client, choice, names):
    answer = client.chat.completions.create(
        model="echo", messages=user("hi"), tools=[WEATHER, TIME], tool_choice=choice
    )
    assert [call.function.name for call in answer.choices[0].message.tool_calls or []] == names


def test_one_tool_call_when_parallel_calls_are_off(client):
    answer = client.chat.completions.create(
        model="echo", messages=user("get_weather get_time"), tools=[WEATHER, TIME], parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls) == 1


def test_deprecated_functions(client):
    functions = [WEATHER["function"]]
    whole = client.chat.completions.create(model="echo", messages=user("get_weather"), functions=functions)
    assert whole.choices[0].message.function_call.name == "get_weather"
    assert whole.choices[0].finish_reason == "function_call"
    chunks = list(
        client.chat.completions.create(model="echo", messages=user("get_weather"), functions=functions, stream=True)
    )
    arguments = [c.choices[0].delta.function_call.arguments for c in chunks if c.choices[0].delta.function_call]
    assert "".join(arguments) == whole.choices[0].message.function_call.arguments
    assert chunks[-1].choices[0].finish_reason == "function_call"


class Event(BaseModel):
    name: str
    people: list[str]
    day: int


def test_json_schema_through_parse(client):
    answer = client.chat.completions.parse(model="echo", messages=user("when?"), response_format=Event)
    assert answer.choices[0].message.parsed == Event(name="", people=[], day=0)


def test_json_object(client):
    answer = client.chat.completions.create(model="echo", messages=user("x"), response_format={"type": "json_object"})
    assert answer.choices[0].message.content == '{"echo": "x"}'


def test_choice_extension(client):
    answer = client.chat.completions.create(
        model="echo", messages=user("x"), extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert answer.choices[0].message.content == "yes"


def test_logprobs(client):
    answer = client.chat.completions.create(model="echo", messages=user("é!"), logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert bytes(byte for token in content for byte in token.bytes).decode() == "é!"
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in content)
    stream = client.chat.completions.create(
        model="echo", messages=user("é!"), logprobs=True, top_logprobs=3, stream=True
    )
    pieces = [chunk.choices[0].logprobs.content for chunk in stream if chunk.choices[0].logprobs]
    assert [token for piece in pieces for token in piece] == content


def test_n_choices(client):
    whole = client.chat.completions.create(model="echo", messages=user("ab"), n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert whole.usage.completion_tokens == 6
    texts = ["", "", ""]
    finished = []
    for chunk in client.chat.completions.create(model="echo", messages=user("ab"), n=3, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        finished += [choice.index] if choice.finish_reason else []
    assert texts == ["ab"] * 3 and sorted(finished) == [0, 1, 2]


def test_length_and_stop(client):
    cut = client.chat.completions.create(model="echo", messages=user("abcdef"), max_completion_tokens=3)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("abc", "length")
    stopped = client.chat.completions.create(model="echo", messages=user("abcdef"), stop=["de", "zz"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("abc", "stop")


def test_completions_of_many_prompts(client):
    answer = client.completions.create(model="echo", prompt=["ab", "cd"], n=2, max_tokens=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "ab"), (1, "ab"), (2, "cd"), (3, "cd")]
    texts = {}
    for chunk in client.completions.create(model="echo", prompt=["ab", "cd"], n=2, max_tokens=2, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert texts == {0: "ab", 1: "ab", 2: "cd", 3: "cd"}


@pytest.mark.parametrize("prompt", ["ab", [97, 98], [[97, 98]], ["ab"]])
def test_completion_prompt_forms(client, prompt):
    assert client.completions.create(model="echo", prompt=prompt).choices[0].text == "ab"


def test_completion_suffix(client):
    answer = client.completions.create(model="echo", prompt="def f(", suffix="): pass")
    assert answer.choices[0].text == "): pass"


def test_completion_logprobs_in_the_older_shape(client):
    answer = client.completions.create(model="echo", prompt="aé", logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == ["a", "bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs.text_offset == [0, 1, 1]
    assert len(logprobs.top_logprobs[0]) == 2 and logprobs.token_logprobs == [-0.125] * 3


def test_embeddings(client):
    as_sent_by_default = client.embeddings.create(model="echo", input=["a", "bc"])
    as_numbers = client.embeddings.create(model="echo", input=["a", "bc"], encoding_format="float")
    assert [item.embedding for item in as_sent_by_default.data] == [item.embedding for item in as_numbers.data]
    raw = client.embeddings.with_raw_response.create(model="echo", input="a", encoding_format="base64")
    text = raw.http_response.json()["data"][0]["embedding"]
    assert list(struct.unpack("<32f", base64.b64decode(text))) == as_numbers.data[0].embedding
    assert as_numbers.usage.prompt_tokens == 3


@pytest.mark.parametrize("given", ["ab", ["ab"], [97, 98], [[97, 98]]])
def test_embedding_input_forms(client, given):
    assert len(client.embeddings.create(model="echo", input=given, dimensions=8).data[0].embedding) == 8


def test_models_with_slash_and_colon(client):
    assert [model.id for model in client.models.list()] == ["echo", "meta/echo:1b"]
    assert client.models.retrieve("meta/echo:1b").id == "meta/echo:1b"
    answer = client.chat.completions.create(model="meta/echo:1b", messages=user("x"))
    assert answer.model == "meta/echo:1b"


def test_unknown_model_is_not_found_with_the_next_step(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="llama9", messages=user("x"))
    assert caught.value.code == "model_not_found" and "llama pull llama9" in str(caught.value)


def test_bad_value_names_the_field(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=user("x"), temperature=9)
    assert caught.value.param == "temperature" and caught.value.type == "invalid_request_error"


def test_too_long_prompt_says_the_numbers(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=user("x" * 40_000))
    assert caught.value.code == "context_length_exceeded" and "32768" in str(caught.value)


def test_too_long_prompt_is_a_status_when_streaming_too(client):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="echo", messages=user("x" * 40_000), stream=True)


def test_what_is_set_aside_is_named(client):
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=user("x"), reasoning_effort="high", extra_body={"made_up": 1}
    )
    assert raw.headers["x-llamakit-ignored"] == "made_up, reasoning_effort"


def test_prefill_progress_is_tolerated(client):
    stream = client.chat.completions.create(
        model="echo", messages=user("abc"), stream=True, extra_body={"return_progress": True}
    )
    chunks = list(stream)
    progress = [chunk.model_extra["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk.model_extra]
    assert progress[-1]["processed"] == progress[-1]["total"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "abc"


async def test_async_client_streams_side_by_side(server):
    import asyncio

    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:

        async def one(text: str) -> str:
            stream = await client.chat.completions.create(model="echo", messages=user(text), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        texts = [f"stream {number} " * 5 for number in range(16)]
        assert await asyncio.gather(*map(one, texts)) == texts
