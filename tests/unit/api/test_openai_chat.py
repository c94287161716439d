"""Wire chats become the house's requests, and events become what the official client's types accept."""

from __future__ import annotations

import base64
import json

import pytest
from openai.types.chat import ChatCompletion as OfficialCompletion
from openai.types.chat import ChatCompletionChunk as OfficialChunk

from llamakit.api.openai_answer import AnswerHead
from llamakit.api.openai_chat import (
    ChatChunks,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    echoed_text,
    to_body,
    to_request,
)
from llamakit.api.wire import read
from llamakit.core.errors import EngineStopped, InvalidRequest
from llamakit.core.messages import (
    Done,
    Finish,
    ImagePart,
    PrefillProgress,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    fold,
)
from llamakit.core.sampling import Constraint

HEAD = AnswerHead(id="chatcmpl-1", created=7, model="m")
DONE = Done(
    usage=Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=3, drafted_tokens=5, accepted_tokens=2),
    timings=Timings(queue_s=0.5, prefill_s=2.0, decode_s=0.5),
)


def chat(text: str = "hello", **fields):
    return read(ChatCompletionRequest, {"model": "m", "messages": [{"role": "user", "content": text}], **fields})[0]


def chunks_of(wire, events, **head):
    writer = ChatChunks(wire, HEAD, **head)
    made = [json.loads(chunk) for event in events for chunk in writer.push(event)]
    for chunk in made:
        OfficialChunk.model_validate(chunk, strict=True)
        ChatCompletionChunk.model_validate(chunk)
    return made


def test_messages_of_every_role():
    image = base64.b64encode(b"PNG").decode()
    wire, _ = read(
        ChatCompletionRequest,
        {
            "model": "m",
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": " kind"}]},
                {
                    "role": "user",
                    "name": "ann",
                    "content": [
                        {"type": "text", "text": "see"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "42"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
                {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": '{"a":1}'}},
                {"role": "function", "name": "g", "content": "ok"},
            ],
        },
    )
    system, user, call, result, refusal, older, older_result = to_request(wire, request_id="r").messages
    assert (system.role, system.text) == ("system", "be kind")
    assert user.name == "ann" and user.content[1] == ImagePart(data=b"PNG", mime="image/png")
    assert call.tool_calls[0].arguments == "{}"
    assert (result.role, result.name, result.tool_call_id) == ("tool", "f", "c1")
    assert refusal.text == "no"
    assert older.tool_calls[0].name == "g"
    assert (older_result.role, older_result.name, older_result.text) == ("tool", "g", "ok")


@pytest.mark.parametrize(
    "url", ["http://a/b.png", "data:image/png,x", "data:text/html;base64,eA==", "data:image/png;base64,@@", "file:///x"]
)
def test_images_that_are_no_data_are_refused(url):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    wire, _ = read(ChatCompletionRequest, {"model": "m", "messages": [{"role": "user", "content": content}]})
    with pytest.raises(InvalidRequest) as caught:
        to_request(wire, request_id="r")
    assert caught.value.param == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize("arguments", ["[1]", "{", "x", '"a"'])
def test_arguments_that_are_no_object_are_refused(arguments):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    wire, _ = read(ChatCompletionRequest, {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]})
    with pytest.raises(InvalidRequest) as caught:
        to_request(wire, request_id="r")
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


def test_sampling_carries_what_was_sent_and_nothing_else():
    request = to_request(
        chat(
            temperature=0.5,
            top_k=-1,
            stop="x",
            seed=3,
            n=2,
            logprobs=True,
            top_logprobs=4,
            max_tokens=9,
            logit_bias={"5": -100},
            stop_token_ids=[7],
            include_stop_str_in_output=True,
            ignore_eos=True,
        ),
        request_id="r",
    )
    assert request.sampling == {
        "temperature": 0.5,
        "top_k": 0,
        "stop": ("x",),
        "seed": 3,
        "n": 2,
        "logprobs": 4,
        "max_tokens": 9,
        "logit_bias": {5: -100},
        "stop_ids": (7,),
        "include_stop": True,
        "ignore_eos": True,
    }


def test_context():
    context = to_request(
        chat(priority=-3, keep_alive="10m", cache_salt="mine", stream=True, return_progress=True),
        request_id="r",
        salt="tenant",
    ).context
    assert (context.id, context.salt, context.priority, context.keep_alive) == ("r", "tenant/mine", -3, 600.0)
    assert context.wants_progress
    assert to_request(chat(return_progress=True), request_id="r").context.wants_progress is False


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}},
            Constraint(kind="json_schema", source='{"type": "null"}'),
        ),
        ({"response_format": {"type": "regex", "regex": "a+"}}, Constraint(kind="regex", source="a+")),
        (
            {"response_format": {"type": "grammar", "grammar": "s: x"}},
            Constraint(kind="grammar", source="s: x"),
        ),
        ({"response_format": {"type": "choice", "choice": ["a"]}}, Constraint(kind="choice", source='["a"]')),
        ({"structured_outputs": {"json": '{"type":"null"}'}}, Constraint(kind="json_schema", source='{"type":"null"}')),
        ({"structured_outputs": {"json_object": True}}, Constraint(kind="json_object")),
        ({"guided_json": {"a": 1}}, Constraint(kind="json_schema", source='{"a": 1}')),
        ({"guided_regex": "b"}, Constraint(kind="regex", source="b")),
        ({"guided_choice": ["x", "y"]}, Constraint(kind="choice", source='["x", "y"]')),
        ({"guided_grammar": "g"}, Constraint(kind="grammar", source="g")),
    ],
    ids=str,
)
def test_constraints(fields, constraint):
    assert to_request(chat(**fields), request_id="r").sampling.get("constraint") == constraint


def test_a_schema_too_large_is_refused():
    with pytest.raises(InvalidRequest, match="more than"):
        to_request(chat(guided_json={"enum": ["x" * 1000] * 300}), request_id="r")


def test_text_chunks():
    made = chunks_of(chat(), [TextDelta(text="He"), TextDelta(text="y"), Finish(reason="stop"), DONE])
    assert [chunk["choices"][0]["delta"] for chunk in made] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "He"},
        {"content": "y"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in made] == [None, None, None, "stop"]
    assert made[-1]["timings"] == {
        "queue_ms": 500.0,
        "cache_n": 4,
        "prompt_n": 6,
        "prompt_ms": 2000.0,
        "prompt_per_token_ms": 333.333,
        "prompt_per_second": 3.0,
        "predicted_n": 3,
        "predicted_ms": 500.0,
        "predicted_per_token_ms": 166.667,
        "predicted_per_second": 6.0,
        "draft_n": 5,
        "draft_n_accepted": 2,
    }
    assert "usage" not in made[-1]


def test_usage_chunk_is_last_and_only_it_has_usage():
    wire = chat(stream=True, stream_options={"include_usage": True})
    made = chunks_of(wire, [TextDelta(text="a"), Finish(reason="length"), DONE])
    assert [chunk["usage"] is None for chunk in made] == [True, True, True, False]
    assert made[-1]["choices"] == [] and made[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert "timings" in made[-1] and "timings" not in made[-2]


def test_an_answer_without_text_still_has_role_and_end():
    made = chunks_of(chat(), [Finish(reason="stop"), DONE])
    assert made[0]["choices"][0]["delta"]["role"] == "assistant"
    assert made[-1]["choices"][0]["finish_reason"] == "stop"


def test_held_back_text_makes_no_empty_chunk_but_keeps_logprobs():
    token = TokenLogprob(id=1, token="\ufffd", bytes=b"\xc3", logprob=float("-inf"))
    events = [TextDelta(text=""), TextDelta(text="", logprobs=(token,)), Finish(reason="stop"), DONE]
    assert len(chunks_of(chat(), events)) == 3
    made = chunks_of(chat(logprobs=True), events)
    assert made[1]["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


def test_interleaved_choices():
    events = [
        TextDelta(text="a"),
        TextDelta(text="b", choice=1),
        Finish(reason="stop"),
        TextDelta(text="c", choice=1),
        Finish(reason="length", choice=1),
        DONE,
    ]
    made = chunks_of(chat(n=2), events)
    assert [chunk["choices"][0]["index"] for chunk in made] == [0, 0, 1, 1, 0, 1, 1]
    assert ["timings" in chunk for chunk in made] == [False] * 6 + [True]


def test_tool_call_chunks():
    events = [
        ToolCallDelta(index=0, id="c0", name="f"),
        ToolCallDelta(index=0, arguments='{"a":'),
        ToolCallDelta(index=0, arguments="1}"),
        ToolCallDelta(index=1, id="c1", name="g", arguments="{}"),
        Finish(reason="stop"),
        DONE,
    ]
    made = chunks_of(chat(), events)
    assert made[0]["choices"][0]["delta"] == {"role": "assistant", "content": None, "refusal": None}
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in made[1:-1]]
    assert calls == [
        {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert made[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_streamed_and_whole_tool_calls_are_the_same():
    events = [
        ToolCallDelta(index=0, id="c0", name="f"),
        ToolCallDelta(index=0, arguments="{}"),
        Finish(reason="tool_calls"),
        DONE,
    ]
    body = to_body(chat(), HEAD, fold(events))
    OfficialCompletion.model_validate(body, strict=True)
    ChatCompletion.model_validate(body)
    assert body["choices"][0]["message"]["tool_calls"] == [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert body["choices"][0]["message"]["content"] is None
    assert body["choices"][0]["finish_reason"] == "tool_calls"


def test_progress_chunks_carry_an_empty_delta():
    events = [PrefillProgress(done=5, total=10, cached=2), TextDelta(text="x"), Finish(reason="stop"), DONE]
    made = chunks_of(chat(), events)
    assert made[1]["prompt_progress"]["processed"] == 5 and made[1]["choices"][0]["delta"] == {}


@pytest.mark.parametrize("reason", ["cancelled", "error"])
def test_an_end_that_is_no_answer_is_an_error(reason):
    with pytest.raises(EngineStopped):
        chunks_of(chat(), [TextDelta(text="x"), Finish(reason=reason), DONE])
    with pytest.raises(EngineStopped):
        to_body(chat(), HEAD, fold([TextDelta(text="x"), Finish(reason=reason), DONE]))


def test_continued_answers_can_be_echoed():
    wire, _ = read(
        ChatCompletionRequest,
        {
            "model": "m",
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Once"}],
            "continue_final_message": True,
            "echo": True,
        },
    )
    request = to_request(wire, request_id="r")
    assert request.continue_final_message and not request.add_generation_prompt
    echo = echoed_text(wire, request)
    events = [TextDelta(text=" upon"), Finish(reason="stop"), DONE]
    assert to_body(wire, HEAD, fold(events), echo=echo)["choices"][0]["message"]["content"] == "Once upon"
    made = chunks_of(wire, events, echo=echo)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in made) == "Once upon"


def test_no_line_end_that_some_reader_knows_stands_raw_in_a_chunk():
    text = 'a\nb\rc\x0b\x0c\x1c\x85\u2028\u2029é\u0000"\\'
    writer = ChatChunks(chat(), HEAD)
    raw = list(writer.push(TextDelta(text=text)))
    assert all(len(chunk.splitlines()) == 1 for chunk in raw)
    assert json.loads(raw[1])["choices"][0]["delta"]["content"] == text


def test_prompt_logprobs_by_token_id():
    other = TokenLogprob(id=8, token="o", bytes=b"o", logprob=-0.1)
    token = TokenLogprob(id=7, token="t", bytes=b"t", logprob=-3.0, top=(other,))
    done = Done(usage=Usage(), prompt_logprobs=(None, token))
    body = to_body(chat(prompt_logprobs=1), HEAD, fold([Finish(reason="stop"), done]))
    assert body["prompt_logprobs"] == [
        None,
        {
            "7": {"logprob": -3.0, "rank": None, "decoded_token": "t"},
            "8": {"logprob": -0.1, "rank": 1, "decoded_token": "o"},
        },
    ]
