"""The official OpenAI client against the real server: responses, conversations, stored chats; Open Responses' cases."""

from __future__ import annotations

import base64
import json

import httpx2
import openai
import pytest
from pydantic import BaseModel
from tests.serving import served
from tests.tiny import tiny_checkpoint

from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 40).decode()
NEVER_NULL = (
    "id",
    "object",
    "created_at",
    "status",
    "model",
    "output",
    "parallel_tool_calls",
    "metadata",
    "background",
    "service_tier",
    "store",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "tool_choice",
    "tools",
    "truncation",
    "text",
    "reasoning",
)
PRESENT = (
    "completed_at",
    "error",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "conversation",
    "prompt",
    "prompt_cache_key",
    "safety_identifier",
    "usage",
    "user",
)


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def post(server):
    def call(**fields):
        response = httpx2.post(f"{server.base_url}/responses", json={"model": "echo", "input": "hi", **fields})
        assert response.status_code == 200, response.text
        return response

    return call


def check_whole(response: dict):
    """What readers of the resource demand."""
    for name in NEVER_NULL:
        assert response.get(name) is not None, name
    assert set(PRESENT) <= set(response)
    for item in response["output"]:
        assert item["id"] and item["status"]
        if item["type"] == "message":
            for part in item["content"]:
                assert isinstance(part["annotations"], list) and isinstance(part["logprobs"], list)
    for tool in response["tools"]:
        assert {"name", "description", "parameters", "strict"} <= set(tool)
    if response["usage"] is not None:
        details = response["usage"]["input_tokens_details"], response["usage"]["output_tokens_details"]
        assert "cached_tokens" in details[0] and "reasoning_tokens" in details[1]


def read_stream(response):
    """Events of a stream, each named by its type, ended by the mark."""
    blocks = [block for block in response.text.split("\n\n") if block and not block.startswith(":")]
    assert blocks.pop() == "data: [DONE]" and response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


# The cases of Open Responses.


@pytest.mark.parametrize("background", [False, True])
def test_basic_text(post, background):
    response = post(background=background).json()
    check_whole(response)
    assert response["status"] == ("queued" if background else "completed")


def test_streaming(post):
    events = read_stream(post(stream=True, input="one two"))
    for event in events:
        if "response" in event:
            check_whole(event["response"])
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "one two" == events[-1]["response"]["output"][0]["content"][0]["text"]


def test_system_prompt(post):
    said = [{"type": "message", "role": "system", "content": "Be a pirate."}, {"role": "user", "content": "hi"}]
    check_whole(post(input=said).json())
    check_whole(post(instructions="Be a pirate.").json())


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calling(post, stream):
    response = post(input="get_weather please", tools=[WEATHER], stream=stream)
    response = read_stream(response)[-1]["response"] if stream else response.json()
    check_whole(response)
    (call,) = response["output"]
    assert call["type"] == "function_call" and call["name"] == "get_weather" and call["call_id"]
    assert json.loads(call["arguments"]) == {"city": ""}


def test_image_input_is_passed_on(post):
    content = [{"type": "input_text", "text": "what is it?"}, {"type": "input_image", "image_url": PIXEL}]
    check_whole(post(input=[{"type": "message", "role": "user", "content": content}]).json())


def test_several_turns(post):
    said = [
        {"type": "message", "role": "user", "content": "My name is Anna."},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello Anna!"}]},
        {"type": "message", "role": "user", "content": "What is my name?"},
    ]
    check_whole(post(input=said).json())


def test_phase_of_messages_is_kept_and_given(client):
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "looking", "phase": "commentary"},
        {"role": "user", "content": "b"},
    ]
    made = client.responses.create(model="echo", input=said)
    assert made.output[0].phase == "final_answer"
    items = list(client.responses.input_items.list(made.id, order="asc"))
    assert items[1].phase == "commentary"


# The client's own roads.


def test_a_chain(client):
    first = client.responses.create(model="echo", input="one", metadata={"a": "b"}, safety_identifier="s", user="u")
    second = client.responses.create(model="echo", input="two", previous_response_id=first.id)
    assert second.output_text == "two" and second.previous_response_id == first.id
    texts = [item.content[0].text for item in client.responses.input_items.list(second.id, order="asc", limit=2)]
    assert texts == ["one", "one", "two"]
    kept = client.responses.retrieve(first.id)
    assert kept == first and kept.metadata == {"a": "b"} and kept.safety_identifier == "s"
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_what_is_not_stored_is_not_there(client):
    made = client.responses.create(model="echo", input="one", store=False)
    assert made.model_extra["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="echo", input="two", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"


def test_streamed_and_whole_answers_are_the_same(client):
    whole = client.responses.create(model="echo", input="hello", tools=[WEATHER])
    with client.responses.stream(model="echo", input="hello", tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert (final.output_text == whole.output_text and final.usage == whole.usage) or final.usage.output_tokens == 5


def test_a_tool_loop(client):
    first = client.responses.create(model="echo", input="get_weather", tools=[WEATHER])
    output = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "sunny"}
    second = client.responses.create(model="echo", input=[output], previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text == "sunny"
    # Codex and its like keep the history themselves, and send items back as they came.
    said = [{"role": "user", "content": "get_weather"}, first.output[0].model_dump(exclude_none=True), output]
    assert client.responses.create(model="echo", input=said, store=False).output_text == "sunny"


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("none", ["message"]),
        ("required", ["function_call"]),
        ({"type": "function", "name": "get_weather"}, ["function_call"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]}, None),
    ],
)
def test_tool_choice(client, choice, kinds):
    made = client.responses.create(model="echo", input="hi", tools=[WEATHER], tool_choice=choice)
    assert [item.type for item in made.output] == (kinds or ["function_call"])
    assert made.to_dict()["tool_choice"] == choice


def test_free_form_tools(client):
    tool = {"type": "custom", "name": "patch", "description": "Apply a patch."}
    events = list(client.responses.create(model="echo", input="patch", tools=[tool], stream=True))
    call = events[-1].response.output[0]
    assert call.type == "custom_tool_call" and call.name == "patch"
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "applied"}
    made = client.responses.create(model="echo", input=[output], previous_response_id=events[-1].response.id)
    assert made.output_text == "applied"


class Event(BaseModel):
    name: str
    people: list[str]


def test_structured_output(client):
    made = client.responses.parse(model="echo", input="when?", text_format=Event)
    assert made.output_parsed == Event(name="", people=[])
    plain = client.responses.create(model="echo", input="x", text={"format": {"type": "json_object"}})
    assert json.loads(plain.output_text) == {"echo": "x"}


def test_logprobs_come_when_included(client):
    made = client.responses.create(model="echo", input="ab", include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = made.output[0].content[0].logprobs
    assert [one.token for one in logprobs] == ["a", "b"] and len(logprobs[0].top_logprobs) == 2
    assert client.responses.create(model="echo", input="ab").output[0].content[0].logprobs == []


def test_an_answer_that_is_cut_says_so(client):
    made = client.responses.create(model="echo", input="a long text", max_output_tokens=3)
    assert made.status == "incomplete" and made.incomplete_details.reason == "max_output_tokens"
    assert made.output_text == "a l" and made.output[0].status == "incomplete"


def test_conversations(client):
    made = client.conversations.create(items=[{"role": "user", "content": "zero"}], metadata={"a": "1"})
    client.responses.create(model="echo", input="one", conversation=made.id)
    list(client.responses.create(model="echo", input="two", conversation=made.id, stream=True))
    client.responses.create(model="echo", input="three", conversation=made.id, store=False)
    items = list(client.conversations.items.list(made.id, order="asc", limit=3))
    assert [item.content[0].text for item in items] == ["zero", "one", "one", "two", "two", "three", "three"]
    added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "four"}])
    item = client.conversations.items.retrieve(added.data[0].id, conversation_id=made.id)
    assert item.content[0].text == "four"
    client.conversations.items.delete(item.id, conversation_id=made.id)
    assert client.conversations.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="echo", input="x", conversation=made.id, previous_response_id="resp_x")
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


def test_background_and_resume(client):
    stream = client.responses.create(model="echo", input="a text to resume", background=True, stream=True)
    events = []
    for event in stream:
        events.append(event)
        if len(events) == 7:
            break
    stream.close()
    id = events[0].response.id
    rest = list(client.responses.retrieve(id, stream=True, starting_after=events[-1].sequence_number))
    text = "".join(event.delta for event in [*events, *rest] if event.type == "response.output_text.delta")
    assert text == "a text to resume" and rest[-1].type == "response.completed"
    assert rest[0].sequence_number == events[-1].sequence_number + 1


def test_unknown_fields_are_named(client):
    made = client.responses.with_raw_response.create(
        model="echo", input="x", reasoning={"effort": "high"}, extra_body={"client_metadata": {"a": 1}}
    )
    assert made.headers["x-llamakit-ignored"] == "client_metadata, reasoning"
    assert made.parse().reasoning.effort == "high"


def test_what_codex_sends(client):
    made = client.responses.create(
        model="echo",
        instructions="You are a coding agent.",
        input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        tools=[WEATHER | {"strict": False}, {"type": "custom", "name": "apply_patch", "description": "d"}],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"effort": "medium", "summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="key",
    )
    assert list(made)[-1].response.output_text == "hi"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "juggling_call"}]}, "input[0]"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "image_generation"}]}, "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "no"}}, "tool_choice"),
        ({"moderation": {"model": "x"}}, "moderation.model"),
        ({"background": True, "store": False}, "background"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"truncation": "maybe"}, "truncation"),
        ({"text": {"format": {"type": "poem"}}}, "text.format.type"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0].id"),
        ({"input": "x" * 40_000}, "input"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_name_their_field(server, fields, param, stream):
    body = {"model": "echo", "input": "hi", **fields, "stream": stream}
    if stream and param == "stream_options":
        return
    response = httpx2.post(f"{server.base_url}/responses", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_unknown_models(client):
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nope", input="x")


def test_the_road_to_the_engine(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    generation = checkpoint / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"temperature": 0.6, "top_p": 0.9}))
    settings = {"threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}
    distribution = single(models=(str(checkpoint),), config=settings, database=f"sqlite:{tmp_path}/x.db")
    asked = {"model": "tiny", "temperature": 0, "max_output_tokens": 12, "instructions": "Be brief."}
    with served(build_stack(distribution)) as running:
        client = openai.OpenAI(base_url=running.base_url, api_key="unused", max_retries=0, timeout=60)
        first = client.responses.create(**asked, input="Tell me of llamas.")
        events = list(client.responses.create(**asked, input="Tell me of llamas.", stream=True))
        assert events[-1].response.output_text == first.output_text and first.usage.output_tokens <= 12
        assert (first.temperature, first.top_p) == (0, 0.9)
        second = client.responses.create(**asked, input="More.", previous_response_id=first.id)
        assert second.usage.input_tokens > first.usage.input_tokens
        assert second.usage.input_tokens_details.cached_tokens > 0
        count = client.responses.input_tokens.count(model="tiny", input="Tell me of llamas.", instructions="Be brief.")
        assert count.input_tokens == first.usage.input_tokens
        background = client.responses.create(**asked, input="Tell me of llamas.", background=True, stream=True)
        assert list(background)[-1].response.output_text == first.output_text
        client.close()
