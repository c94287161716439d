"""Llama Stack's messages, tools, sampling and answers, to the house's words and back."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.api.inference import ToolChoice
from llamakit.api.limits import LIMITS
from llamakit.api.llama_stack_answer import ChatEvents, LlamaStackChatChunk, to_chat_body
from llamakit.api.llama_stack_content import from_parts
from llamakit.api.llama_stack_inference import (
    LlamaStackChatBatchRequest,
    LlamaStackChatRequest,
    LlamaStackCompletionRequest,
    LlamaStackEmbeddingsRequest,
    set_aside,
    to_chat,
    to_chats,
    to_completion,
    to_embedding,
)
from llamakit.api.llama_stack_lists import Stretch, read_stretch, stretch_body
from llamakit.api.llama_stack_messages import from_message, from_tool_call
from llamakit.api.llama_stack_tools import LlamaStackToolDef, from_spec, to_spec
from llamakit.api.wire import read
from llamakit.core.errors import EngineStopped, InvalidRequest
from llamakit.core.messages import (
    Done,
    Finish,
    ImagePart,
    TextDelta,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    assistant,
    fold,
    tool_result,
    user,
)
from llamakit.core.sampling import Constraint

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
USER = {"role": "user", "content": "hi"}
LOOK = {"tool_name": "look", "parameters": {"city": {"param_type": "str", "description": "Where."}}}


def chat(**fields):
    wire, unknown = read(LlamaStackChatRequest, {"model_id": "m", "messages": [USER], **fields})
    assert unknown == ()
    return to_chat(wire, request_id="r", salt="s")


def test_content_in_all_its_forms():
    image = {"type": "image", "image": {"data": PIXEL}}
    data_url = {"type": "image", "image": {"url": {"uri": f"data:image/png;base64,{PIXEL}"}}}
    text = {"type": "text", "text": "see"}
    for content, wanted in (
        ("see", ("see",)),
        (text, ("see",)),
        (image, ("image/png",)),
        ([text, image, data_url], ("see", "image/png", "image/png")),
    ):
        parts = chat(messages=[{"role": "user", "content": content}]).messages[0].content
        assert tuple(part.text if isinstance(part, TextPart) else part.mime for part in parts) == wanted
    mixed = (TextPart(text="see"), ImagePart(data=base64.b64decode(PIXEL), mime="image/png"))
    assert from_parts(mixed) == [text, image] and from_parts(mixed[:1]) == "see"


def test_a_conversation_with_a_tool():
    call = {"call_id": "c1", "tool_name": "look", "arguments": {"city": "Lima"}}
    request = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?", "context": "It is May."},
            {"role": "assistant", "content": "", "stop_reason": "end_of_message", "tool_calls": [call]},
            {"role": "tool", "call_id": "c1", "content": "dry"},
        ],
        tools=[LOOK],
    )
    asked = ToolCall(id="c1", name="look", arguments='{"city": "Lima"}')
    assert [message.text for message in request.messages] == ["Be brief.", "Weather?\nIt is May.", "", "dry"]
    assert request.messages[2].tool_calls == (asked,)
    assert request.messages[3] == tool_result(asked, "dry")
    assert request.tools[0].parameters == {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where."}},
        "required": ["city"],
    }


@given(
    st.lists(
        st.one_of(
            st.builds(user, st.text(min_size=1)),
            st.builds(
                assistant,
                st.text(min_size=1),
                st.builds(
                    ToolCall,
                    id=st.text(min_size=1),
                    name=st.text(min_size=1),
                    arguments=st.dictionaries(st.text(), st.integers()).map(json.dumps),
                ),
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_messages_there_and_back(messages):
    assert chat(messages=[from_message(message) for message in messages]).messages == tuple(messages)


def test_arguments_that_are_no_object_stay_text():
    body = from_tool_call(ToolCall(id="c", name="n", arguments='{"cut": "of'))
    assert body["arguments"] == body["arguments_json"] == '{"cut": "of'
    whole = from_tool_call(ToolCall(id="c", name="n", arguments='{"a": 1}'))
    assert whole["arguments"] == {"a": 1} and whole["arguments_json"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (None, {"temperature": 0.0}),
        ({}, {"temperature": 0.0}),
        ({"strategy": {"type": "greedy"}, "max_tokens": 0}, {"temperature": 0.0}),
        ({"strategy": {"type": "top_p", "temperature": 0.7}}, {"temperature": 0.7, "top_p": 0.95}),
        ({"strategy": {"type": "top_p", "top_p": 0.5}}, {"top_p": 0.5}),
        ({"strategy": {"type": "top_k", "top_k": 4}}, {"top_k": 4}),
        (
            {"max_tokens": 9, "repetition_penalty": 1.1, "stop": ["x"]},
            {"temperature": 0.0, "max_tokens": 9, "repetition_penalty": 1.1, "stop": ("x",)},
        ),
    ],
)
def test_sampling(sampling, wanted):
    assert chat(sampling_params=sampling).sampling == wanted


def test_formats_and_logprobs():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    made = chat(response_format={"type": "json_schema", "json_schema": schema}, logprobs={"top_k": 3}).sampling
    assert made["constraint"] == Constraint(kind="json_schema", source=json.dumps(schema)) and made["logprobs"] == 3
    assert chat(logprobs={}).sampling["logprobs"] == 0
    rules = {"root": '<Greeting> " " name', "Greeting": '"hi" | "hello"', "name": "/[a-z]+/"}
    made = chat(response_format={"type": "grammar", "bnf": rules}).sampling["constraint"]
    assert made.kind == "grammar" and made.source.splitlines() == [
        "start: r_root",
        'r_root: r_greeting " " r_name',
        'r_greeting: "hi" | "hello"',
        "r_name: /[a-z]+/",
    ]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, ToolChoice()),
        ({"tool_choice": "none"}, ToolChoice(mode="none")),
        ({"tool_choice": "required"}, ToolChoice(mode="required")),
        ({"tool_config": {"tool_choice": "auto"}}, ToolChoice()),
        ({"tool_config": {"tool_choice": "look"}}, ToolChoice(mode="named", name="look")),
        ({"tool_config": {"system_message_behavior": "append"}}, ToolChoice()),
    ],
)
def test_tool_choice(fields, choice):
    assert chat(tools=[LOOK], **fields).tool_choice == choice


def test_tools_that_need_no_words_and_types_of_python():
    request = chat(
        tools=[
            {"tool_name": "brave_search"},
            {
                "tool_name": "f",
                "parameters": {
                    "a": {"param_type": "int", "required": False, "default": 3},
                    "b": {"param_type": "List[str]"},
                },
            },
        ]
    )
    assert request.tools[0].parameters["required"] == ["query"]
    assert request.tools[1].parameters == {
        "type": "object",
        "properties": {"a": {"type": "integer", "default": 3}, "b": {"type": "array"}},
        "required": ["b"],
    }


def test_tool_definitions_of_both_generations():
    classic = {
        "name": "look",
        "description": "See.",
        "parameters": [{"name": "city", "parameter_type": "string", "description": "Where.", "required": True}],
    }
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where."}},
        "required": ["city"],
    }
    newer = {"name": "look", "description": "See.", "input_schema": schema}
    specs = [to_spec(read(LlamaStackToolDef, one)[0], "tool") for one in (classic, newer)]
    assert specs[0] == specs[1] and specs[0].parameters == schema
    back = from_spec(specs[0], group="g")
    assert back["parameters"] == [{**classic["parameters"][0], "default": None}]
    assert back["input_schema"] == schema and back["toolgroup_id"] == "g"
    LlamaStackToolDef.model_validate(back)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [USER] * (LIMITS.messages + 1)}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"type": "image", "image": {}}}]}, "messages[0].content.image"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image", "image": {"url": {"uri": "http://169.254.169.254"}}}],
                    }
                ]
            },
            "messages[0].content[0].image.url.uri",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [{"call_id": "c", "tool_name": "n", "arguments": "[1]"}],
                    }
                ]
            },
            "messages[0].tool_calls[0].arguments",
        ),
        ({"sampling_params": {"strategy": {"type": "beam"}}}, "sampling_params.strategy.type"),
        ({"sampling_params": {"stop": ["x"] * 99}}, "sampling_params.stop"),
        ({"tools": [LOOK, LOOK]}, "tools[1].tool_name"),
        ({"tools": [{"tool_name": "f", "parameters": {"a": {"param_type": "cat"}}}]}, "tools[0].parameters.a"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_config": {"tool_choice": "hear"}, "tools": [LOOK]}, "tool_config.tool_choice"),
        ({"tool_choice": "none", "tool_config": {"tool_choice": "auto"}}, "tool_choice"),
        (
            {"tools": [LOOK], "tool_config": {"system_message_behavior": "replace"}},
            "tool_config.system_message_behavior",
        ),
        ({"response_format": {"type": "grammar", "bnf": {"a": "b"}}}, "response_format.bnf"),
        ({"response_format": {"type": "grammar", "bnf": {"root": "b"}}}, "response_format.bnf"),
        ({"response_format": {"type": "grammar", "bnf": {"root": 5}}}, "response_format.bnf"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_chats(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_hints_are_named():
    body = {"model_id": "m", "messages": [USER], "tool_prompt_format": "json"}
    wire, _ = read(LlamaStackChatRequest, {**body, "tool_config": {"tool_prompt_format": "json"}})
    assert set_aside(wire) == ("tool_prompt_format", "tool_config.tool_prompt_format")


def test_batches_completions_and_embeddings():
    wire, _ = read(LlamaStackChatBatchRequest, {"model_id": "m", "messages_batch": [[USER], [USER]]})
    assert [request.context.id for request in to_chats(wire, request_id="r")] == ["r-0", "r-1"]
    wire, _ = read(LlamaStackChatBatchRequest, {"model_id": "m", "messages_batch": [[USER], []]})
    with pytest.raises(InvalidRequest, match=r"messages_batch\[1\]"):
        to_chats(wire, request_id="r")
    wire, _ = read(LlamaStackChatBatchRequest, {"model_id": "m", "messages_batch": []})
    with pytest.raises(InvalidRequest, match="messages_batch"):
        to_chats(wire, request_id="r")
    items = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    wire, _ = read(LlamaStackCompletionRequest, {"model_id": "m", "content": items})
    assert to_completion(wire, request_id="r").prompt == "a\nb"
    wire, _ = read(LlamaStackEmbeddingsRequest, {"model_id": "m", "contents": items, "output_dimension": 8})
    assert (to_embedding(wire, request_id="r").inputs, to_embedding(wire, request_id="r").dimensions) == (("a", "b"), 8)
    for contents in ([], [""], [{"type": "image", "image": {"data": PIXEL}}]):
        wire, _ = read(LlamaStackEmbeddingsRequest, {"model_id": "m", "contents": contents})
        with pytest.raises(InvalidRequest, match="contents"):
            to_embedding(wire, request_id="r")


def pieces_of(*events, with_logprobs=False):
    writer = ChatEvents(with_logprobs=with_logprobs)
    made = [json.loads(piece) for event in events for piece in writer.push(event)]
    for piece in made:
        assert not LlamaStackChatChunk.model_validate(piece).model_extra
    return made


def test_the_pieces_of_a_text():
    token = TokenLogprob(id=1, token="a", bytes=b"a", logprob=-0.5)
    events = (TextDelta(text="a", logprobs=(token,)), Finish(reason="length"), Done(usage=Usage(prompt_tokens=2)))
    first, middle, last = pieces_of(*events, with_logprobs=True)
    assert first["event"]["event_type"] == "start" and first["event"]["delta"] == {"type": "text", "text": ""}
    assert middle["event"]["delta"]["text"] == "a"
    assert middle["event"]["logprobs"] == [{"logprobs_by_token": {"a": -0.5}}]
    assert (last["event"]["event_type"], last["event"]["stop_reason"]) == ("complete", "out_of_tokens")
    assert {"metric": "total_tokens", "value": 2, "unit": "tokens"} in last["metrics"]


def test_the_pieces_of_two_calls_one_cut_off():
    events = (
        ToolCallDelta(index=0, id="c0", name="look", arguments="{}"),
        ToolCallDelta(index=1, id="c1", name="look", arguments='{"ci'),
        Finish(reason="length"),
        Done(usage=Usage()),
    )
    pieces = pieces_of(*events)
    deltas = [piece["event"]["delta"] for piece in pieces if piece["event"]["event_type"] == "progress"]
    assert [delta["parse_status"] for delta in deltas] == [
        *("started", "in_progress", "succeeded"),
        *("started", "in_progress", "failed"),
    ]
    assert deltas[2]["tool_call"]["tool_name"] == "look" and deltas[5]["tool_call"] == '{"ci'
    assert pieces[-1]["event"]["stop_reason"] == "out_of_tokens"
    body = to_chat_body(fold(events), with_logprobs=False)
    assert body["completion_message"]["tool_calls"][1]["arguments"] == '{"ci'


def test_an_end_that_is_no_answer_is_an_error():
    events = (TextDelta(text="a"), Finish(reason="error"), Done(usage=Usage()))
    with pytest.raises(EngineStopped):
        pieces_of(*events)
    with pytest.raises(EngineStopped):
        to_chat_body(fold(events), with_logprobs=False)


def test_stretches_of_a_list():
    rows = [{"n": n} for n in range(5)]
    assert read_stretch({"start_index": "1", "limit": "2"}) == Stretch(start=1, limit=2)
    body = stretch_body(rows, Stretch(start=1, limit=2), "/v1/x")
    assert body == {"data": rows[1:3], "has_more": True, "url": "/v1/x"}
    assert stretch_body(rows, read_stretch({}))["data"] == rows
    assert stretch_body(rows, Stretch(start=3, limit=2))["has_more"] is False
    with pytest.raises(InvalidRequest, match="limit"):
        read_stretch({"limit": "0"})
