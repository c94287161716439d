"""Unknown keys are named, bad values name their path, and nothing is guessed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from llamakit.api import openai_sampling
from llamakit.api.openai_chat import ChatCompletionRequest, set_aside, to_request
from llamakit.api.openai_completions import WireCompletionRequest
from llamakit.api.openai_embeddings import WireEmbeddingRequest
from llamakit.api.tokenize import WireDetokenizeRequest, WireTokenizeRequest
from llamakit.api.wire import Wire, found, read
from llamakit.core.errors import InvalidRequest

HELLO = [{"role": "user", "content": "hello"}]


def test_unknown_keys_are_named_with_their_path():
    _, unknown = read(
        ChatCompletionRequest,
        {
            "model": "m",
            "made_up": 1,
            "messages": [
                {"role": "system", "content": "a"},
                {"role": "user", "content": [{"type": "text", "text": "b", "odd": 1}], "x": 2},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"free": "form"}, "y": 1}}],
            "stream_options": {"z": True},
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"any": 1}, "q": 1}},
        },
    )
    assert set(unknown) == {
        "made_up",
        "messages[1].x",
        "messages[1].content[0].odd",
        "tools[0].function.y",
        "stream_options.z",
        "response_format.json_schema.q",
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "two words"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 2}, "tools"),
        ({"response_format": {"type": "poem"}}, "response_format.type"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"audio": {"voice": "x", "format": "mp3"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": 1e300}, "keep_alive"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"echo": True}, "echo"),
        ({"model": ""}, "model"),
        ({"function_call": "auto"}, "function_call"),
    ],
    ids=str,
)
def test_a_bad_value_names_its_field(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        to_request(read(ChatCompletionRequest, {"model": "m", "messages": HELLO, **fields})[0], request_id="r")
    assert caught.value.param == param


def test_null_is_absent():
    names = [name for name in ChatCompletionRequest.model_fields if name not in ("model", "messages")]
    body = {"model": "m", "messages": HELLO, **dict.fromkeys(names)}
    wire, unknown = read(ChatCompletionRequest, body)
    request = to_request(wire, request_id="r")
    assert unknown == () and set_aside(wire) == ()
    assert request.sampling == {}


def test_hints_are_set_aside_and_their_defaults_are_not():
    odd = {"return_progress": True, "stream_options": {"include_obfuscation": True}}
    wire, _ = read(WireCompletionRequest, {"model": "m", "prompt": "x", **odd})
    assert openai_sampling.set_aside(wire) == ("stream_options.include_obfuscation", "return_progress")
    hints = {"reasoning_effort": "low", "verbosity": "low", "service_tier": "flex", "prompt_cache_retention": "24h"}
    wire, _ = read(ChatCompletionRequest, {"model": "m", "messages": HELLO, **hints})
    assert set(set_aside(wire)) == set(hints)
    plain = {"reasoning_effort": "none", "verbosity": "medium", "service_tier": "auto", "store": False}
    wire, _ = read(ChatCompletionRequest, {"model": "m", "messages": HELLO, **plain})
    assert set_aside(wire) == ()


def test_found_is_short_whatever_it_shows():
    for value in ("x" * 10_000, 10**5000, [1] * 1000, {"a": 1}, None, True, 1.5, []):
        assert len(found(value)) < 120


@pytest.mark.parametrize("body", [[], "x", 5, None])
def test_a_body_that_is_no_object(body):
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        read(ChatCompletionRequest, body)


LISTS = [
    (ChatCompletionRequest, name)
    for name in ("messages", "tools", "functions", "stop", "stop_token_ids", "guided_choice", "modalities")
] + [
    (WireCompletionRequest, "prompt"),
    (WireEmbeddingRequest, "input"),
    (WireTokenizeRequest, "messages"),
    (WireTokenizeRequest, "tools"),
    (WireDetokenizeRequest, "tokens"),
]
BAD_ITEMS = [{}, [None], 1.5, {"type": "text"}, {"role": "user", "content": [{}] * 50}]


@pytest.mark.parametrize("item", BAD_ITEMS, ids=str)
@pytest.mark.parametrize(("kind", "name"), LISTS, ids=[f"{kind.__name__}.{name}" for kind, name in LISTS])
def test_a_list_of_bad_items_makes_one_report(kind, name, item):
    """Reports of a million faults would take seconds; the first is enough."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "m", "messages": HELLO, name: [item] * 1000})
    assert caught.value.error_count() < 10


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": "text"}] * 1000}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}] * 1000}]},
        {"logit_bias": {str(number): "x" for number in range(5000)}},
        {"metadata": {str(number): 1 for number in range(1000)}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [1] * 1000}}},
        {"response_format": {"type": "choice", "choice": [1] * 1000}},
        {"structured_outputs": {"choice": [1] * 1000}},
        {"prompt": [["x"] * 1000] * 1000},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_nested_lists_of_bad_items_make_one_report(fields):
    kind = WireCompletionRequest if "prompt" in fields else ChatCompletionRequest
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "m", "messages": HELLO, **fields})
    assert caught.value.error_count() < 10


def test_lists_that_hold_texts_beside_objects_are_looked_through():
    class Part(Wire):
        text: str

    class Mixed(Wire):
        items: list[str | Part]

    wire, unknown = read(Mixed, {"items": [{"text": "a", "x": 1}, "b", {"text": "c", "y": 1}]})
    assert unknown == ("items[0].x", "items[2].y") and wire.items[1] == "b"
    assert read(Mixed, {"items": ["b", {"text": "c", "y": 1}]})[1] == ("items[1].y",)
