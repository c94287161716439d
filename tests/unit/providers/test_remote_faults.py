"""The remote adapters against servers that fail in every way: typed errors, deadlines, no retry after a token."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, asynccontextmanager

import pytest
from tests.faultserver import faulty

from llamakit.api.inference import ChatRequest, EmbeddingRequest, RequestContext
from llamakit.core.errors import (
    EngineStopped,
    InvalidRequest,
    OutboundFailed,
    Overloaded,
    PromptTooLong,
    RateLimited,
    RemoteFailed,
    UnknownModel,
)
from llamakit.core.messages import Done, Finish, TextDelta, fold, user
from llamakit.providers.remote.inference.anthropic import build as build_anthropic
from llamakit.providers.remote.inference.openai_compat import build

FAST = {"max_wait_s": 1.0, "idle_s": 5.0}


def chunk(text="", reason=None, **more):
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}], **more}


def request(**sampling):
    return ChatRequest(
        model="m", messages=(user("hi"),), context=RequestContext(id="r"), sampling={"max_tokens": 9, **sampling}
    )


@asynccontextmanager
async def provider_of(script, **settings):
    """The adapter in front of a server that does what `script` says."""
    async with faulty(script) as server:
        config = {"base_url": server.url, "api_key": "sk-secret-1", **FAST, **settings}
        provider = build(config, {})
        provider.server = server
        try:
            yield provider
        finally:
            await provider.aclose()


async def events_of(provider, asked=None):
    async with aclosing(provider.chat(asked or request())) as events:
        return [event async for event in events]


async def test_a_good_stream():
    async def script(asked, answer):
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
        await answer.events(chunk("a"), chunk("b"), chunk(reason="stop"), {"choices": [], "usage": usage})

    async with provider_of(script) as provider:
        events = await events_of(provider)
        asked = provider.server.asked[0]
    assert fold(events).text == "ab" and isinstance(events[-1], Done)
    assert (fold(events).usage.prompt_tokens, fold(events).usage.cached_tokens) == (5, 3)
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == "Bearer sk-secret-1"
    assert asked.json()["stream_options"] == {"include_usage": True}


async def test_bytes_cut_anywhere_say_the_same():
    text = "".join(f"data: {json.dumps(chunk(c), ensure_ascii=False)}\r\n\r\n" for c in "Grüße 🦙")
    whole = (": ping\n\n" + text + f"data: {json.dumps(chunk(reason='stop'))}\n\ndata: [DONE]\n\n").encode()

    async def script(asked, answer):
        await answer.head(kind="text/event-stream; charset=utf-8")
        for at in range(0, len(whole), 3):
            await answer.send(whole[at : at + 3])

    async with provider_of(script) as provider:
        assert fold(await events_of(provider)).text == "Grüße 🦙"


async def test_nobody_is_there():
    async def script(asked, answer):
        pass

    async with faulty(script) as server:
        url = server.url
    provider = build({"base_url": url, "retries": 1, "max_wait_s": 0.5}, {})
    with pytest.raises(OutboundFailed, match="ConnectError"):
        await events_of(provider)
    await provider.aclose()


@pytest.mark.parametrize("has_text", [False, True])
async def test_a_reset_is_an_error_and_tried_again_only_before_the_first_token(has_text):
    async def script(asked, answer):
        await answer.head(kind="text/event-stream")
        if has_text:
            await answer.send(f"data: {json.dumps(chunk('a'))}\n\n".encode())
            await asyncio.sleep(0.05)
        answer.reset()

    async with provider_of(script, retries=2) as provider:
        seen = []
        with pytest.raises(OutboundFailed):
            async with aclosing(provider.chat(request())) as events:
                async for event in events:
                    seen.append(event)
        assert len(provider.server.asked) == (1 if has_text else 3)
        assert [event.text for event in seen] == (["a"] if has_text else [])
        assert not provider.stats()


async def test_what_passes_is_tried_again():
    async def script(asked, answer):
        if len(tries) < 2:
            tries.append(time.monotonic())
            await answer.json({"error": {"message": "busy"}}, status=[500, 429][len(tries) - 1], retry_after="0.3")
        else:
            tries.append(time.monotonic())
            await answer.events(chunk("ok"), chunk(reason="stop"))

    tries: list[float] = []
    async with provider_of(script, retries=2) as provider:
        assert fold(await events_of(provider)).text == "ok"
    assert tries[2] - tries[1] >= 0.3


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "match"),
    [
        (429, {"error": {"message": "slow down"}}, {"retry_after": "60"}, RateLimited, "slow down"),
        (429, {}, {"retry_after": "Wed, 21 Oct 2099 07:28:00 GMT"}, RateLimited, "429"),
        (503, {"error": "full"}, {"retry_after": "60"}, Overloaded, "full"),
        (529, {}, {"retry_after": "60"}, Overloaded, "529"),
        (400, {"error": {"message": "bad top_k", "param": "top_k"}}, {}, InvalidRequest, "bad top_k"),
        (422, {"detail": "bad body"}, {}, InvalidRequest, "bad body"),
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, {}, PromptTooLong, "x"),
        (400, {"error": {"message": "This model's maximum context length is 8"}}, {}, PromptTooLong, "8"),
        (404, {"error": {"message": "no model m", "code": "model_not_found"}}, {}, UnknownModel, "no model m"),
        (404, {"detail": "Not Found"}, {}, RemoteFailed, "base URL"),
        (307, {}, {"location": "http://169.254.169.254/"}, RemoteFailed, "redirects"),
        (418, {"error": {"message": "a\x00b\n" + "x" * 9000}}, {}, RemoteFailed, "a b"),
    ],
)
async def test_statuses(status, body, headers, kind, match):
    async def script(asked, answer):
        await answer.json(body, status=status, **headers)

    async with provider_of(script) as provider:
        with pytest.raises(kind, match=match) as raised:
            await events_of(provider)
        assert len(provider.server.asked) == 1 and len(str(raised.value)) < 700
    if isinstance(raised.value, Overloaded):
        assert raised.value.retry_after_s >= 60


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_the_operators_and_stays_secret(status):
    async def script(asked, answer):
        await answer.json({"error": {"message": f"bad key {asked.headers['authorization']}"}}, status=status)

    async with provider_of(script) as provider:
        with pytest.raises(RemoteFailed, match="OPENAI_COMPAT_API_KEY") as raised:
            await events_of(provider)
    assert "sk-secret" not in str(raised.value) and "sk-secret" not in repr(provider._settings)


BAD_STREAMS = {
    "truncated": ([chunk("a")], "ended before"),
    "nothing": ([], "ended before"),
    "not JSON": (["{"], "not JSON"),
    "NaN": (['{"choices": NaN}'], "not JSON"),
    "deep": (["[" * 100_000], "not JSON"),
    "no object": (["[]"], "not a JSON object"),
    "choices of another kind": ([{"choices": 1}], "choices"),
    "a choice of another kind": ([{"choices": [1]}], "choices"),
    "text of another kind": ([{"choices": [{"delta": {"content": {}}}]}], "content"),
    "an index nobody asked for": ([{"choices": [{"index": 7, "delta": {}}]}], "index"),
    "an index below zero": ([{"choices": [{"index": -1, "delta": {}}]}], "index"),
    "a call without a name": ([{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}], "name"),
    "a call of another kind": ([{"choices": [{"delta": {"tool_calls": "x"}}]}], "tool_calls"),
    "counts of another kind": ([{"choices": [], "usage": {"prompt_tokens": "5"}}], "prompt_tokens"),
    "withheld": ([chunk("a"), chunk(reason="content_filter")], "withheld"),
    "more after the end": ([chunk("a", "stop"), chunk("b")], "index"),
    "an error inside": ([chunk("a"), {"error": {"message": "broke", "type": "server_error"}}], "broke"),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
async def test_streams_that_are_no_answer(name):
    values, match = BAD_STREAMS[name]

    async def script(asked, answer):
        await answer.events(*values)

    async with provider_of(script) as provider:
        with pytest.raises(RemoteFailed, match=match):
            await events_of(provider)
        assert len(provider.server.asked) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "rate_limit_error", "message": "x"}, RateLimited),
        ({"type": "overloaded_error", "message": "x"}, Overloaded),
        ({"type": "invalid_request_error", "message": "x"}, InvalidRequest),
        ("just text", RemoteFailed),
    ],
)
async def test_errors_inside_a_stream(error, kind):
    async def script(asked, answer):
        await answer.events(chunk("a"), {"error": error})

    async with provider_of(script) as provider:
        with pytest.raises(kind):
            await events_of(provider)


async def test_the_wrong_content_type():
    async def script(asked, answer):
        await answer.head(kind="text/html")
        await answer.send(b"<html>")

    async with provider_of(script) as provider:
        with pytest.raises(RemoteFailed, match="text/html"):
            await events_of(provider)


async def test_not_utf8_and_too_long():
    async def script(asked, answer):
        await answer.head(kind="text/event-stream")
        if asked.json()["max_tokens"] == 1:
            await answer.send(b"data: \xff\n\n")
        else:
            while True:
                await answer.send(b"x" * (1 << 20))

    async with provider_of(script) as provider:
        with pytest.raises(RemoteFailed, match="UTF-8"):
            await events_of(provider, request(max_tokens=1))
        with pytest.raises(RemoteFailed, match="more than"):
            await events_of(provider, request(max_tokens=2))


@pytest.mark.parametrize("waits", [{"idle_s": 0.2}, {"idle_s": 5.0, "total_s": 0.3}])
async def test_slow_servers_are_given_up(waits):
    async def script(asked, answer):
        await answer.head(kind="text/event-stream")
        while "total_s" in waits:
            await answer.send(b": ping\n\n")
            await asyncio.sleep(0.02)
        await asyncio.sleep(10)

    async with provider_of(script, retries=0, **waits) as provider:
        started = time.monotonic()
        with pytest.raises(OutboundFailed):
            await events_of(provider)
        assert time.monotonic() - started < 3


async def test_leaving_closes_the_connection():
    async def script(asked, answer):
        await answer.head(kind="text/event-stream")
        while True:
            await answer.send(f"data: {json.dumps(chunk('a'))}\n\n".encode())
            await asyncio.sleep(0.01)

    async with provider_of(script) as provider:
        stream = provider.chat(request())
        assert (await anext(stream)).text == "a"
        assert provider.stats()[0].running == 1
        await stream.aclose()
        await asyncio.wait_for(provider.server.gone.wait(), 5)
        assert not provider.stats()


async def test_closing_the_provider_ends_its_streams():
    async def script(asked, answer):
        await answer.head(kind="text/event-stream")
        await answer.send(f"data: {json.dumps(chunk('a'))}\n\n".encode())
        await asyncio.sleep(10)

    async with provider_of(script) as provider:
        stream = provider.chat(request())
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        await provider.aclose()
        with pytest.raises(EngineStopped):
            await asyncio.wait_for(reading, 5)
        with pytest.raises(EngineStopped):
            await events_of(provider)
        assert not (await provider.health()).ready
        await stream.aclose()


async def test_a_whole_answer_where_a_stream_was_asked_for():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}

    async def script(asked, answer):
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        await answer.json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async with provider_of(script) as provider:
        answer = fold(await events_of(provider))
    (made,) = answer.choices[0].message.tool_calls
    assert (made.id, made.name, json.loads(made.arguments)) == ("c1", "f", {"a": 1})
    assert answer.choices[0].reason == "tool_calls"


async def test_calls_without_index_or_id():
    def part(**call):
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    async def script(asked, answer):
        await answer.events(
            part(function={"name": "f", "arguments": "{"}),
            part(function={"arguments": "}"}),
            part(id="x", function={"name": "g", "arguments": "{}"}),
            part(id="x", function={"arguments": ""}),
            chunk(reason="tool_calls"),
        )

    async with provider_of(script) as provider:
        calls = fold(await events_of(provider)).choices[0].message.tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("f", "{}"), ("g", "{}")]
    assert calls[0].id and calls[1].id == "x"


async def test_halves_of_characters_do_no_harm():
    async def script(asked, answer):
        await answer.events('{"choices":[{"delta":{"content":"a\\ud83d"},"finish_reason":"stop"}]}')

    async with provider_of(script) as provider:
        assert fold(await events_of(provider)).text.encode() == "a\ufffd".encode()


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 5, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"embedding": []}, {"embedding": [1.0]}],
        [{"embedding": ["x"]}, {"embedding": [1.0]}],
        [{"embedding": "%%%%"}, {"embedding": [1.0]}],
        [{"embedding": [1e39]}, {"embedding": [1.0]}],
    ],
)
async def test_vectors_that_are_none(data):
    async def script(asked, answer):
        await answer.json({"data": data})

    async with provider_of(script) as provider:
        with pytest.raises(RemoteFailed):
            await provider.embed(EmbeddingRequest(model="m", inputs=("a", "b"), context=RequestContext(id="e")))


async def test_lists_of_models():
    async def script(asked, answer):
        await answer.json(
            [{"id": "a/b", "created": 5, "context_length": 9, "owned_by": "x"}, {"id": "e", "type": "embedding"}]
        )

    async with provider_of(script) as provider:
        first, second = await provider.models()
        assert (first.name, first.context_length, second.kind) == ("a/b", 9, "embedding")
        assert (await provider.model("a/b")).created == 5
        assert len(provider.server.asked) == 1
        with pytest.raises(UnknownModel, match="nearest: 'a/b'"):
            await provider.model("a/bb")


@asynccontextmanager
async def anthropic_of(script, **settings):
    async with faulty(script) as server:
        provider = build_anthropic({"base_url": server.url, "api_key": "sk-secret-1", **FAST, **settings}, {})
        provider.server = server
        try:
            yield provider
        finally:
            await provider.aclose()


START = {"type": "message_start", "message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 3}}}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
STOP = {
    "type": "message_delta",
    "delta": {"stop_reason": "stop_sequence", "stop_sequence": "x"},
    "usage": {"output_tokens": 2},
}


async def test_a_good_message():
    async def script(asked, answer):
        await answer.events(START, {"type": "ping"}, OPEN, TEXT, STOP, {"type": "message_stop"}, done=False)

    async with anthropic_of(script) as provider:
        events = await events_of(provider)
        asked = provider.server.asked[0]
    answer = fold(events)
    assert (answer.text, answer.choices[0].stop) == ("hi", "x")
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens, answer.usage.completion_tokens) == (7, 3, 2)
    assert asked.path == "/v1/messages" and asked.headers["x-api-key"] == "sk-secret-1"
    assert asked.headers["anthropic-version"] and asked.json()["max_tokens"] == 9


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([START, OPEN, TEXT], RemoteFailed),
        ([START, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}], Overloaded),
        ([START, {**TEXT, "index": "0"}], RemoteFailed),
        ([START, {**TEXT, "delta": {"type": "text_delta"}}], RemoteFailed),
        ([START, {**TEXT, "delta": {"type": "input_json_delta", "partial_json": "{"}}], RemoteFailed),
        ([START, {**STOP, "delta": {"stop_reason": "refusal"}}], RemoteFailed),
    ],
)
async def test_messages_that_are_no_answer(values, kind):
    async def script(asked, answer):
        await answer.events(*values, done=False)

    async with anthropic_of(script) as provider:
        with pytest.raises(kind):
            await events_of(provider)


async def test_finish_comes_after_every_text():
    async def script(asked, answer):
        await answer.events(chunk("a", "length"))

    async with provider_of(script) as provider:
        events = await events_of(provider)
    assert [type(event) for event in events] == [TextDelta, Finish, Done]
    assert events[1].reason == "length"
