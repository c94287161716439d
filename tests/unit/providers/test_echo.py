"""The echo provider keeps the rules that a test of anything above it leans on."""

from __future__ import annotations

import asyncio

import pytest

from llamakit.api.inference import ChatRequest, CompletionRequest, RequestContext, TokenizeRequest
from llamakit.core.errors import ConfigError, EngineStopped, InvalidRequest, UnknownModel
from llamakit.core.messages import Done, Finish, TextDelta, ToolCallDelta, ToolSpec, fold, user
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference, build
from llamakit.providers.inline.inference.schema_example import example_of


def chat(text: str = "hello", *, salt: str = "", **fields):
    sampling = {key: fields.pop(key) for key in list(fields) if key not in ("tools", "tool_choice")}
    return ChatRequest(
        model="echo", messages=(user(text),), context=RequestContext(id=text, salt=salt), sampling=sampling, **fields
    )


async def answer(provider, request):
    return fold([event async for event in provider.chat(request)])


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({}, "hello", "stop"),
        ({"max_tokens": 5}, "hello", "stop"),
        ({"max_tokens": 4}, "hell", "length"),
        ({"max_tokens": 0}, "", "length"),
        ({"stop": ("l",)}, "he", "stop"),
        ({"stop": ("l",), "include_stop": True}, "hel", "stop"),
        ({"stop_ids": (ord("e"),)}, "h", "stop"),
        ({"ignore_eos": True, "max_tokens": 12}, "hellohellohe", "length"),
        ({"min_tokens": 7}, "hellohello", "stop"),
    ],
    ids=str,
)
async def test_length_and_stops(fields, text, reason):
    made = await answer(EchoInference(), chat(**fields))
    assert (made.text, made.choices[0].reason) == (text, reason)


async def test_cached_prefixes_stay_within_one_salt():
    provider = EchoInference()
    first = await answer(provider, chat("same", salt="a"))
    again = await answer(provider, chat("same", salt="a"))
    other = await answer(provider, chat("same", salt="b"))
    assert first.usage.cached_tokens == other.usage.cached_tokens == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


async def test_closing_a_stream_counts_as_cancelled():
    provider = EchoInference()
    stream = provider.chat(chat())
    await anext(stream)
    assert provider.running == {"hello"}
    await stream.aclose()
    assert provider.cancelled == ["hello"] and not provider.running and not provider.finished


async def test_cancelling_the_reader_counts_as_cancelled():
    provider = EchoInference(EchoConfig(delay_s=10))
    task = asyncio.ensure_future(answer(provider, chat()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.cancelled == ["hello"] and not provider.running


async def test_closing_the_provider_ends_its_streams():
    provider = EchoInference()
    stream = provider.chat(chat())
    await anext(stream)
    await provider.aclose()
    with pytest.raises(EngineStopped):
        await anext(stream)
    assert not (await provider.health()).ready


async def test_tools_are_called_when_named():
    tool = ToolSpec(name="look", parameters={"type": "object", "properties": {"at": {"const": 5}}, "required": ["at"]})
    events = [event async for event in EchoInference().chat(chat("please look", tools=(tool,)))]
    assert isinstance(events[0], ToolCallDelta) and events[0].name == "look"
    made = fold(events)
    assert made.choices[0].message.tool_calls[0].arguments == '{"at": 5}'
    assert made.choices[0].reason == "tool_calls"
    assert isinstance(events[-2], Finish) and isinstance(events[-1], Done)


async def test_text_that_spells_a_special_token_is_text():
    provider = EchoInference()
    spelled = TokenizeRequest(model="echo", prompt="<|eot_id|>", add_special_tokens=False)
    assert max((await provider.tokenize(spelled)).ids) < 256
    meant = TokenizeRequest(model="echo", prompt="<|eot_id|>", parse_special=True)
    assert (await provider.tokenize(meant)).ids == (258,)
    assert await provider.detokenize("echo", (258,)) == "<|eot_id|>"


async def test_requests_that_cannot_be_served():
    provider = EchoInference()
    with pytest.raises(UnknownModel):
        await provider.model("nope")
    with pytest.raises(InvalidRequest, match="outside the vocabulary"):
        prompt = CompletionRequest(model="echo", prompt=(300,), context=RequestContext(id="x"))
        await anext(provider.complete(prompt))
    with pytest.raises(ConfigError, match="nearest: 'delay_s'"):
        build({"delay": 1}, {})
    with pytest.raises(ConfigError):
        EchoConfig(delay_s=-1)


async def test_characters_of_several_bytes_come_whole():
    events = [event async for event in EchoInference().chat(chat("é", logprobs=2))]
    assert isinstance(events[0], TextDelta) and events[0].text == "é" and len(events[0].logprobs) == 2


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object"}, {}),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"a": ""}),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"enum": [3, 4]}, 3),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"type": ["integer", "null"], "minimum": 2}, 2),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": 1}}}, 1),
    ],
    ids=str,
)
def test_examples_of_schemas(schema, value):
    assert example_of(schema) == value


@pytest.mark.parametrize("schema", [{"$ref": "#/nowhere"}, {"$ref": "http://x"}, {"$ref": "#"}, {"type": "poem"}])
def test_schemas_without_an_example(schema):
    with pytest.raises(InvalidRequest):
        example_of(schema)
