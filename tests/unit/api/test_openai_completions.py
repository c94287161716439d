"""The older completions: many prompts, echo with logprobs, and the shapes that harnesses read."""

from __future__ import annotations

import json

import pytest
from openai.types import Completion as OfficialCompletion

from llamakit.api.openai_answer import AnswerHead
from llamakit.api.openai_completions import (
    CompletionChunks,
    Echo,
    WireCompletion,
    WireCompletionRequest,
    to_body,
    to_requests,
)
from llamakit.api.wire import read
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Done, Finish, PrefillProgress, TextDelta, TokenLogprob, Usage, fold

HEAD = AnswerHead(id="cmpl-1", created=7, model="m")


def wire_of(**fields):
    return read(WireCompletionRequest, {"model": "m", "prompt": "ab", **fields})[0]


def token(text: str, logprob: float = -0.5, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    data = text.encode("latin-1") if text in ("\xc3", "\xa9") else text.encode()
    return TokenLogprob(id=1, token=data.decode(errors="replace"), bytes=data, logprob=logprob, top=top)


def chunks_of(wire, events, echoes=(None,)):
    writer = CompletionChunks(wire, HEAD, echoes)
    made = [json.loads(chunk) for prompt, event in events for chunk in writer.push(prompt, event)]
    for chunk in made:
        WireCompletion.model_validate(chunk)
    return made


def test_each_prompt_is_a_request():
    requests = to_requests(wire_of(prompt=["a", "b"], max_tokens=3), request_id="r", salt="s")
    assert [request.prompt for request in requests] == ["a", "b"]
    assert [request.context.id for request in requests] == ["r-0", "r-1"]
    assert all(request.context.salt == "s" and request.sampling["max_tokens"] == 3 for request in requests)
    (only,) = to_requests(wire_of(prompt=[1, 2]), request_id="r")
    assert only.prompt == (1, 2) and only.context.id == "r" and only.sampling["max_tokens"] == 16
    assert to_requests(wire_of(prompt=None), request_id="r")[0].prompt == ""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [2**31]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 128}, "prompt"),
        ({"prompt": [1], "suffix": "x"}, "suffix"),
        ({"suffix": "x", "echo": True}, "echo"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
    ],
    ids=str,
)
def test_a_bad_value_names_its_field(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        to_requests(wire_of(**fields), request_id="r")
    assert caught.value.param == param


def test_an_empty_suffix_is_none():
    assert to_requests(wire_of(suffix=""), request_id="r")[0].suffix is None


def test_echo_asks_for_the_prompts_logprobs():
    assert to_requests(wire_of(echo=True, logprobs=1), request_id="r")[0].sampling["prompt_logprobs"] == 1
    assert "prompt_logprobs" not in to_requests(wire_of(echo=True), request_id="r")[0].sampling
    assert "prompt_logprobs" not in to_requests(wire_of(logprobs=1), request_id="r")[0].sampling


ECHOED = [
    TextDelta(text="c", logprobs=(token("c", -0.25, (token("d", -0.125),)),)),
    Finish(reason="length"),
    Done(usage=Usage(prompt_tokens=2, completion_tokens=1), prompt_logprobs=(None, token("b", -1.0))),
]


def test_echo_with_logprobs_whole():
    wire = wire_of(echo=True, logprobs=1, max_tokens=1)
    body = to_body(wire, HEAD, [fold(ECHOED)], [Echo(text="ab", first_token="a")])
    assert body["choices"][0]["text"] == "abc"
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -1.0, -0.25],
        "top_logprobs": [None, {"b": -1.0}, {"d": -0.125, "c": -0.25}],
        "text_offset": [0, 1, 2],
    }


def test_echo_with_logprobs_streamed_begins_with_the_prompt():
    wire = wire_of(echo=True, logprobs=1, max_tokens=1, stream=True)
    made = chunks_of(wire, [(0, event) for event in ECHOED], [Echo(text="ab", first_token="a")])
    assert [chunk["choices"][0]["text"] for chunk in made] == ["ab", "c", ""]
    assert made[0]["choices"][0]["logprobs"]["token_logprobs"] == [None, -1.0]
    assert made[1]["choices"][0]["logprobs"]["text_offset"] == [2]
    assert made[2]["choices"][0]["finish_reason"] == "length"


def test_echo_without_generating():
    events = [Finish(reason="length"), Done(usage=Usage(prompt_tokens=2), prompt_logprobs=(None, token("b")))]
    body = to_body(
        wire_of(echo=True, logprobs=0, max_tokens=0), HEAD, [fold(events)], [Echo(text="ab", first_token="a")]
    )
    assert body["choices"][0]["text"] == "ab" and body["choices"][0]["logprobs"]["tokens"] == ["a", "b"]


def test_offsets_count_characters_over_split_ones():
    events = [
        TextDelta(text="é", logprobs=(token("\xc3"), token("\xa9"))),
        TextDelta(text="x", logprobs=(token("x"),)),
        Finish(reason="stop"),
        Done(usage=Usage()),
    ]
    logprobs = to_body(wire_of(logprobs=0), HEAD, [fold(events)], [None])["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "x"] and logprobs["text_offset"] == [0, 0, 1]


def test_of_two_alternatives_with_one_text_the_likelier_counts():
    twins = (token("x", -0.5), token("x", -2.0))
    events = [TextDelta(text="x", logprobs=(token("x", -2.0, twins),)), Finish(reason="stop"), Done(usage=Usage())]
    logprobs = to_body(wire_of(logprobs=2), HEAD, [fold(events)], [None])["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] == [{"x": -0.5}]


def test_usage_and_timings_are_summed_over_prompts():
    wire = wire_of(prompt=["a", "b"], stream=True, stream_options={"include_usage": True})
    done = Done(usage=Usage(prompt_tokens=3, completion_tokens=1))
    events = [
        (1, TextDelta(text="y")),
        (1, Finish(reason="stop")),
        (1, done),
        (0, PrefillProgress(done=1, total=3, cached=0)),
        (0, TextDelta(text="x")),
        (0, Finish(reason="stop")),
        (0, done),
    ]
    made = chunks_of(wire, events, [None, None])
    assert [chunk["choices"][0]["index"] for chunk in made[:-1]] == [1, 0, 1, 0, 0]
    assert made[-1]["usage"]["prompt_tokens"] == 6 and made[-1]["choices"] == []
    body = to_body(wire, HEAD, [fold(event for _, event in events[:3])] * 2, [None, None])
    assert body["usage"]["total_tokens"] == 8 and [choice["index"] for choice in body["choices"]] == [0, 1]


def test_prompt_logprobs_extension_stands_in_the_choice():
    body = to_body(wire_of(prompt_logprobs=0), HEAD, [fold(ECHOED)], [None])
    OfficialCompletion.model_validate(body, strict=True)
    assert body["choices"][0]["prompt_logprobs"][0] is None and body["choices"][0]["text"] == "c"
