"""The table of vendors, the settings that fill it, and the bodies made by its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.api.inference import ChatRequest, CompletionRequest, RequestContext, ToolChoice
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError, InvalidRequest, LlamakitError
from llamakit.core.messages import (
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolSpec,
    assistant,
    system,
    tool_result,
    user,
)
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.hub import catalog
from llamakit.outbound.policy import OutboundPolicy
from llamakit.providers.remote.inference.anthropic_wire import MessageReader, messages_body
from llamakit.providers.remote.inference.settings import read_settings
from llamakit.providers.shared.openai_reply import ReplyReader
from llamakit.providers.shared.openai_request import chat_body, completion_body
from llamakit.providers.shared.sse import EventReader
from llamakit.providers.shared.vendors import FEATURES, VENDORS, vendor_of
from llamakit.providers.specs import BUILT_IN, Api
from llamakit.stack.resolve import build_provider, resolve_spec

WANTED = [
    "ollama",
    "vllm",
    "tgi",
    "llama-cpp-server",
    "lm-studio",
    "together",
    "fireworks",
    "groq",
    "databricks",
    "azure",
    "nvidia",
    "openai",
    "vertexai",
    "watsonx",
    "cerebras",
    "sambanova",
    "replicate",
    "snowflake",
    "oci",
    "ray",
    "bedrock",
    "openai-compat",
    "llamakit",
]
PLACES = {"region": "eu-west-1", "project": "p", "location": "us", "account": "org-acct", "resource": "r"}
KINDS = {"json_object", "json_schema", "regex", "choice", "grammar", "add_special_tokens"}


def environ_of(vendor):
    """An environment that fills a row."""
    made = {variable: PLACES.get(place, "x.example.org") for place, variable in vendor.places.items()}
    made |= {vendor.key_env: "sk-12345678"} if vendor.key_env else {}
    return made | ({} if vendor.base_url else {vendor.base_url_env: "https://api.example.org"})


def test_every_vendor_is_a_row_of_the_provider_table():
    assert set(WANTED) == {vendor.name for vendor in VENDORS} and len(VENDORS) == len(WANTED)
    rows = {spec.name: spec for spec in BUILT_IN if spec.api == Api.inference}
    assert {f"remote::{name}" for name in WANTED} | {"remote::anthropic"} <= set(rows)


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_rows_are_sound(vendor):
    sampling = {field.name for field in fields(SamplingParams)}
    assert vendor.takes <= sampling | FEATURES | KINDS
    assert set(vendor.renames) <= sampling
    assert all(catalog.find(name) is not None and catalog.find(name).name == name for name in vendor.names)
    made = read_settings({"vendor": vendor.name}, environ_of(vendor))
    url = made.remote.base_url
    assert "{" not in url and not url.endswith("/")
    assert url.startswith("https://") or "127.0.0.1" in url
    target = OutboundPolicy.to(url).check_url(f"{url}/chat/completions")
    assert str(target.url).startswith(url)
    if vendor.needs_key:
        header = made.remote.headers[vendor.key_header]
        assert header == ("Bearer sk-12345678" if vendor.key_header == "authorization" else "sk-12345678")
        with pytest.raises(ConfigError, match=vendor.key_env):
            read_settings({"vendor": vendor.name}, {**environ_of(vendor), vendor.key_env: ""})


def test_what_the_operator_says_comes_first():
    made = read_settings(
        {"vendor": "ollama", "base_url": "http://box:11434", "api_key": Secret("k" * 9), "models": ["a"], "retries": 0},
        {"OLLAMA_URL": "http://other"},
    )
    assert made.remote.base_url == "http://box:11434/v1" and made.models == ("a",)
    assert "kkk" not in repr(made)
    assert read_settings({"vendor": "ollama"}, {"OLLAMA_URL": "http://other/x/"}).remote.base_url == "http://other/x"


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"vendor": "nobody"}, "There are: openai-compat"),
        ({"vendor": "groq", "base_ulr": "x"}, "nearest: 'base_url'"),
        ({}, "OPENAI_COMPAT_URL"),
        ({"vendor": "bedrock", "api_key": "k"}, "AWS_REGION"),
        ({"vendor": "bedrock", "api_key": "k", "region": "evil.org/x"}, "plain name"),
        ({"vendor": "bedrock", "api_key": "k", "region": "a@b"}, "plain name"),
        ({"vendor": "groq", "api_key": "a\r\nb"}, "characters"),
        ({"vendor": "vllm", "idle_s": 0}, "idle_s"),
        ({"vendor": "vllm", "retries": -1}, "retries"),
        ({"vendor": "vllm", "max_tokens": True}, "max_tokens"),
        ({"vendor": "vllm", "base_url": 7}, "base_url"),
    ],
)
def test_settings_that_cannot_be(config, match):
    with pytest.raises(ConfigError, match=match):
        read_settings(config, {})


def test_the_row_of_a_provider_is_not_the_run_configs_to_change():
    spec = resolve_spec(Api.inference, "remote::groq")
    provider = build_provider(spec, {"vendor": "openai", "api_key": "sk-12345678"}, {})
    assert provider._vendor.name == "groq"
    with pytest.raises(ConfigError, match="remote::groq"):
        resolve_spec(Api.inference, "remote::grok")


CONTEXT = RequestContext(id="r", salt="s", priority=3)
LOOK = ToolSpec(name="look_up", parameters={"type": "object", "properties": {"w": {"type": "string"}}})


def chat(*messages, **more):
    sampling = more.pop("sampling", {})
    return ChatRequest(model="m", messages=messages or (user("hi"),), context=CONTEXT, sampling=sampling, **more)


def test_a_conversation_on_the_wire():
    call = ToolCall(id="c", name="look_up", arguments='{"w": "x"}')
    image = Message(role="user", content=(TextPart(text="see"), ImagePart(data=b"png", mime="image/png")))
    messages = (system("Be brief."), user("hi"), assistant("", call), tool_result(call, "found"), image)
    body = chat_body(chat(*messages, tools=(LOOK,)), vendor_of("openai"), "gpt", stream=True)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert body["messages"][2]["content"] is None
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"w": "x"}'
    assert body["messages"][3]["tool_call_id"] == "c"
    assert body["messages"][4]["content"][1]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert "tool_choice" not in body and "cache_salt" not in body and "priority" not in body
    with pytest.raises(InvalidRequest, match="images"):
        chat_body(chat(image), vendor_of("cerebras"), "m", stream=True)


@pytest.mark.parametrize(
    ("vendor", "sampling", "body"),
    [
        ("openai", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("together", {"max_tokens": 5, "top_k": 3}, {"max_tokens": 5, "top_k": 3}),
        ("llama-cpp-server", {"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ("vllm", {"stop_ids": (7,), "include_stop": True}, {"stop_token_ids": [7], "include_stop_str_in_output": True}),
        ("openai", {"logit_bias": {7: -1.0}}, {"logit_bias": {"7": -1.0}}),
        ("groq", {"top_k": 0, "n": 1, "ignore_eos": False, "temperature": 1.0}, {"temperature": 1.0}),
        ("vllm", {"constraint": Constraint(kind="regex", source="a+")}, {"structured_outputs": {"regex": "a+"}}),
        ("openai", {"constraint": Constraint(kind="json_object")}, {"response_format": {"type": "json_object"}}),
        ("openai", {"logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    ],
)
def test_sampling_by_each_vendors_names(vendor, sampling, body):
    made = chat_body(chat(sampling=sampling), vendor_of(vendor), "m", stream=False)
    assert {name: value for name, value in made.items() if name not in ("model", "messages")} == {
        **body,
        **({"cache_salt": "s", "priority": 3} if vendor == "vllm" else {}),
    }


@pytest.mark.parametrize(
    ("vendor", "more", "param"),
    [
        ("openai", {"sampling": {"top_k": 3}}, "top_k"),
        ("ollama", {"sampling": {"n": 2}}, "n"),
        ("groq", {"sampling": {"logprobs": 0}}, "logprobs"),
        ("openai", {"sampling": {"constraint": Constraint(kind="regex", source="a")}}, "response_format"),
        ("openai", {"continue_final_message": True, "add_generation_prompt": False}, "continue_final_message"),
        ("replicate", {"tools": (LOOK,)}, "tools"),
    ],
)
def test_what_a_vendor_does_not_take_is_refused(vendor, more, param):
    with pytest.raises(InvalidRequest) as raised:
        chat_body(chat(**more), vendor_of(vendor), "m", stream=True)
    assert raised.value.param == param and vendor_of(vendor).title in str(raised.value)


def test_completions_on_the_wire():
    asked = CompletionRequest(model="m", prompt=(1, 2), context=CONTEXT, sampling={"best_of": 2, "prompt_logprobs": 1})
    body = completion_body(asked, vendor_of("vllm"), "m", stream=False, max_tokens=0)
    assert (
        body["prompt"] == [1, 2] and body["max_tokens"] == 0 and body["best_of"] == 2 and body["prompt_logprobs"] == 1
    )
    with pytest.raises(InvalidRequest):
        completion_body(asked, vendor_of("groq"), "m", stream=False, max_tokens=1)


def test_messages_of_anthropic():
    call = ToolCall(id="c", name="look_up", arguments='{"w": "x"}')
    messages = (
        system("a"), system("b"), user("hi"), assistant("t", call), tool_result(call, "found"), user("so?"),
    )  # fmt: skip
    asked = chat(*messages, tools=(LOOK,), tool_choice=ToolChoice(mode="required"), parallel_tool_calls=False)
    body = messages_body(asked, "Anthropic", "claude", max_tokens=99)
    assert body["system"] == "a\n\nb" and body["max_tokens"] == 99
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text"]
    assert body["messages"][1]["content"][1]["input"] == {"w": "x"}
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    for sampling in ({"seed": 1}, {"n": 2}, {"logprobs": 1}, {"constraint": Constraint(kind="json_object")}):
        with pytest.raises(InvalidRequest):
            messages_body(chat(sampling=sampling), "Anthropic", "claude", max_tokens=1)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
NAMES = st.sampled_from(
    [
        "choices",
        "index",
        "delta",
        "message",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "finish_reason",
        "logprobs",
        "token",
        "logprob",
        "bytes",
        "top_logprobs",
        "tokens",
        "token_logprobs",
        "usage",
        "prompt_tokens",
        "timings",
        "prompt_ms",
        "error",
        "type",
        "text",
        "prompt_logprobs",
        "prompt_progress",
        "total",
        "processed",
        "decoded_token",
        "stop_reason",
        "content_block",
        "partial_json",
        "7",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=3), st.booleans())
def test_no_answer_is_a_bug_of_ours(values, is_anthropic):
    reader = MessageReader("x") if is_anthropic else ReplyReader("x", num_choices=2)
    try:
        for value in values:
            events = list(reader.read(value))
            json.dumps([repr(event) for event in events]).encode()
        list(reader.end())
    except LlamakitError:
        pass


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=30))
def test_events_are_the_same_however_they_are_cut(cuts):
    whole = b'event: a\ndata: {"x":\ndata: 1}\n\n: ping\r\n\r\ndata: gr\xc3\xbcn\r\n\r\ndata: left'
    reader, found = EventReader("x"), []
    for cut in [*cuts, len(whole)]:
        found += reader.feed(whole[:cut])
        whole = whole[cut:]
    assert found == [("a", '{"x":\n1}'), ("", "grün")]


def test_a_remote_distribution_needs_no_torch():
    code = (
        "import sys\n"
        "from llamakit.stack.build import build_stack\n"
        "from llamakit.stack.distribution import single\n"
        "from llamakit.server.app import build_app\n"
        "distribution = single('remote::vllm')\n"
        "build_app(build_stack(distribution), distribution.server)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
