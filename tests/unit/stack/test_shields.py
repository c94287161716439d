"""Shields over HTTP, moderations, and the guard around every model of a server."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
from tests.serving import chat_body, events_of, in_process

from llamakit.api.moderations import CATEGORIES
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.core.messages import assistant, user
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.providers.inline.safety.llama_guard import LlamaGuardShields, release_of
from llamakit.safety.llama_guard import views
from llamakit.safety.shields import Guarded, Shields, Violation
from llamakit.server.app import build_app
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry, ShieldEntry, StorageConfig
from llamakit.stack.guarded import WINDOW_CHARS, GuardedRouter
from llamakit.stack.router import InferenceRouter
from llamakit.stack.run_config import ServeConfig

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8AARAAA//8DAPvZAAAAAElFTkSuQmCC"
WORDS = {"words": ["bomb"], "user_message": "No."}


class GuardModel(EchoInference):
    """A Llama Guard that calls what says `bomb` a violent crime, and `secret` a breach of privacy."""

    def __init__(self) -> None:
        super().__init__(EchoConfig(models=("llama-guard3:1b", "judge")))
        self.shown: list[str] = []
        self.salts: list[str] = []

    async def chat(self, request):
        text = request.messages[-1].text
        self.shown.append(text)
        self.salts.append(request.context.salt)
        codes = [code for word, code in (("bomb", "S1"), ("secret", "S7")) if word in text]
        said = f"\n\nunsafe\n{','.join(codes)}" if codes else "\n\nsafe"
        echoed = request.messages[-1].__class__(role="user", content=(user(said).content))
        async for event in super().chat(replace_last(request, echoed)):
            yield event


def replace_last(request, message):
    return type(request)(model=request.model, messages=(message,), context=request.context, sampling=request.sampling)


def stack_of(*shields: ShieldEntry) -> Stack:
    return build_stack(
        Distribution(
            providers={
                "inference": (
                    ProviderEntry(provider_id="echo", provider_type="inline::echo", config={"models": ("echo",)}),
                ),
                "safety": (
                    ProviderEntry(provider_id="word-list", provider_type="inline::word-list"),
                    ProviderEntry(provider_id="llama-guard", provider_type="inline::llama-guard"),
                ),
            },
            models=(ModelEntry(model_id="echo"),),
            shields=shields,
            storage=StorageConfig(database=":memory:"),
        )
    )


def entry(id="no-bombs", **fields):
    return ShieldEntry(shield_id=id, provider_id="word-list", params=WORDS, **fields)


@asynccontextmanager
async def serving(*shields: ShieldEntry, **settings):
    stack = stack_of(*shields)
    async with in_process(build_app(stack, ServeConfig(**settings))) as client:
        try:
            yield client, stack
        finally:
            await stack.aclose()


async def test_a_shield_is_registered_run_and_forgotten():
    async with serving() as (client, _):
        body = {"shield_id": "mine", "provider_id": "word-list", "params": WORDS}
        made = await client.post("/v1/shields", json=body)
        assert made.status_code == 200, made.text
        shield = made.json()
        assert shield["identifier"] == "mine" and shield["type"] == "shield" and shield["params"] == WORDS
        assert (await client.post("/v1/shields", json=body)).json() == shield, "the same once more is no conflict"
        assert (await client.post("/v1/shields", json=body | {"params": {"words": ["x"]}})).status_code == 409
        assert (await client.get("/v1/shields")).json() == {"data": [shield]}
        assert (await client.get("/v1/shields/mine")).json() == shield
        for text, is_bad in (("a bomb", True), ("a bombast", False)):
            run = {"shield_id": "mine", "messages": [{"role": "user", "content": text}]}
            violation = (await client.post("/v1/safety/run-shield", json=run)).json()["violation"]
            assert (violation is not None) == is_bad
            if violation:
                assert violation["violation_level"] == "error" and violation["user_message"] == "No."
        assert (await client.delete("/v1/shields/mine")).status_code == 204
        assert (await client.get("/v1/shields/mine")).status_code == 404
        assert (await client.post("/v1/safety/run-shield", json=run)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"shield_id": "x"},
        {"shield_id": "x", "provider_id": "nobody"},
        {"shield_id": "x", "provider_id": "word-list"},
        {"shield_id": "x", "provider_id": "word-list", "params": {"words": []}},
        {"shield_id": "x", "provider_id": "word-list", "params": WORDS | {"more": 1}},
        {"shield_id": "../x", "provider_id": "word-list", "params": WORDS},
        {"shield_id": "x", "provider_id": "llama-guard"},
        {"shield_id": "x", "provider_id": "llama-guard", "provider_shield_id": "m", "params": {"categories": 3}},
        {"shield_id": "x", "provider_id": "llama-guard", "provider_shield_id": "m", "params": {"excluded": ["S99"]}},
        {"shield_id": "x", "provider_id": "llama-guard", "provider_shield_id": "m", "params": {"release": "guard9"}},
        {
            "shield_id": "x",
            "provider_id": "llama-guard",
            "provider_shield_id": "llama-guard3:1b",
            "params": {"excluded": ["S1"]},
        },
    ],
)
async def test_a_shield_that_cannot_be_is_refused_at_once(body):
    async with serving() as (client, _):
        assert (await client.post("/v1/shields", json=body)).status_code == 400
        assert (await client.get("/v1/shields")).json() == {"data": []}


async def test_shields_are_their_owners_and_those_of_the_server_everybodys():
    keys = ("key-of-anna", "key-of-boris")
    anna, boris = ({"authorization": f"Bearer {key}"} for key in keys)
    async with serving(entry(), api_keys=tuple(Secret(key) for key in keys)) as (client, _):
        body = {"shield_id": "mine", "provider_id": "word-list", "params": WORDS}
        assert (await client.post("/v1/shields", json=body, headers=anna)).status_code == 200
        ids = [one["identifier"] for one in (await client.get("/v1/shields", headers=boris)).json()["data"]]
        assert ids == ["no-bombs"]
        run = {"shield_id": "mine", "messages": [{"role": "user", "content": "x"}]}
        for response in (
            await client.get("/v1/shields/mine", headers=boris),
            await client.delete("/v1/shields/mine", headers=boris),
            await client.post("/v1/safety/run-shield", json=run, headers=boris),
        ):
            assert response.status_code == 404
        assert (await client.delete("/v1/shields/no-bombs", headers=anna)).status_code == 400
        taken = await client.post("/v1/shields", json=body | {"shield_id": "no-bombs", "params": {"words": ["x"]}})
        assert taken.status_code == 401
        taken = await client.post(
            "/v1/shields", json=body | {"shield_id": "no-bombs", "params": {"words": ["x"]}}, headers=anna
        )
        assert taken.status_code == 409


@pytest.mark.parametrize(
    ("messages", "is_bad"),
    [
        ([{"role": "tool", "call_id": "1", "content": "a bomb"}], True),
        ([{"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a bomb"}]}], True),
        ([{"role": "user", "content": "hi", "context": "a bomb"}], True),
        ([{"role": "user", "content": "a bomb"}, {"role": "assistant", "content": "no"}], False),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"q": "bomb"}'}}
                    ],
                }
            ],
            True,
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"call_id": "1", "tool_name": "f", "arguments": {"q": "bomb"}}],
                }
            ],
            True,
        ),
    ],
)
async def test_messages_of_both_dialects_are_judged(messages, is_bad):
    async with serving(entry()) as (client, _):
        answer = await client.post("/v1/safety/run-shield", json={"shield_id": "no-bombs", "messages": messages})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["violation"] is not None) == is_bad


async def test_what_a_shield_cannot_judge_is_refused():
    image = {
        "type": "image",
        "image": {
            "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8AARAAA//8DAPvZAAAAAElFTkSuQmCC"
        },
    }
    async with serving(entry(guards=("input",))) as (client, _):
        for messages in ([], [{"role": "user", "content": [image]}], [{"role": "assistant", "tool_calls": [{}]}]):
            answer = await client.post("/v1/safety/run-shield", json={"shield_id": "no-bombs", "messages": messages})
            assert answer.status_code == 400, messages
        run = {"shield_id": "no-bombs", "messages": [{"role": "user", "content": "x"}], "params": {"a": 1}}
        assert (await client.post("/v1/safety/run-shield", json=run)).status_code == 400
        url = "data:image/png;base64," + image["image"]["data"]
        chat = chat_body([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}])
        assert (await client.post("/v1/chat/completions", json=chat)).status_code == 400


async def test_moderations_in_openais_words():
    stack = stack_of()
    guard = GuardModel()
    router = InferenceRouter({"guard": guard})
    stack.shields._providers = {"llama-guard": LlamaGuardShields(router)}
    async with in_process(build_app(stack, ServeConfig())) as client:
        body = {"model": "llama-guard3:1b", "input": ["hello", "a bomb", "a secret"]}
        answer = await client.post("/v1/moderations", json=body)
        assert answer.status_code == 200, answer.text
        made = answer.json()
        safe, bomb, secret = made["results"]
        assert made["model"] == "llama-guard3:1b" and made["id"].startswith("modr")
        assert not safe["flagged"] and not any(safe["categories"].values())
        assert bomb["flagged"] and bomb["categories"]["violence"] and bomb["category_scores"]["violence"] == 1.0
        assert not bomb["categories"]["hate"] and list(bomb["categories"]) == list(CATEGORIES)
        assert secret["flagged"] and not any(secret["categories"].values())
        assert secret["metadata"]["hazards"] == ["Privacy"] and secret["metadata"]["violation_type"] == "S7"
        parts = {"input": [{"type": "text", "text": "a"}, {"type": "text", "text": "bomb"}], "model": "llama-guard3:1b"}
        (one,) = (await client.post("/v1/moderations", json=parts)).json()["results"]
        assert one["flagged"] and one["category_applied_input_types"]["violence"] == ["text"]
        image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
        for wrong in ({"input": [image]}, {"input": []}, {"input": ["a", {"type": "text", "text": "b"}]}, {}):
            assert (await client.post("/v1/moderations", json=wrong)).status_code == 400
        assert (await client.post("/v1/moderations", json={"input": "x"})).status_code == 400
        unknown = await client.post("/v1/moderations", json={"input": "x", "model": "nobody-guard3"})
        assert unknown.status_code == 404
        assert len(set(guard.salts)) == 1 and guard.salts[0]
    await stack.aclose()


async def test_the_first_shield_answers_to_openais_names():
    async with serving(entry()) as (client, _):
        for model in ({}, {"model": "omni-moderation-latest"}, {"model": "no-bombs"}):
            made = (await client.post("/v1/moderations", json={"input": "a bomb", **model})).json()
            assert made["model"] == "no-bombs" and made["results"][0]["flagged"]


async def test_a_model_that_is_no_guard_gets_the_task_in_words():
    guard = GuardModel()
    shields = LlamaGuardShields(InferenceRouter({"guard": guard}))
    shield = shields.shield("s", "judge", {"categories": [{"name": "Bombs"}], "user_message": "Hm."})
    violation = await shield.check([user("a bomb")])
    assert violation == Violation(
        shield="s", user_message="Hm.", categories=("Bombs",), metadata={"violation_type": "S1", "is_clear": True}
    )
    assert "S1: Bombs." in guard.shown[0] and "User: a bomb" in guard.shown[0]
    assert await shields.shield("s", "llama-guard3:1b", {}).check([user("hi")]) is None
    assert guard.shown[1] == "hi", "a guard's server writes the task itself"


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("llama-guard3:1b", "guard3-1b"),
        ("meta-llama/Llama-Guard-3-1B", "guard3-1b"),
        ("meta-llama/Llama-Guard-3-8B", "guard3"),
        ("Llama-Guard-4-12B", "guard3"),
        ("meta-llama/Meta-Llama-Guard-2-8B", "guard2"),
        ("meta-llama/LlamaGuard-7b", "guard1"),
        ("llama3.2:1b", None),
    ],
)
def test_releases_by_name(name, release):
    assert release_of(name) == release


def test_a_long_turn_is_shown_in_pieces_that_overlap():
    text = "".join(f"{n:07d}." for n in range(5000))
    shown = views([user("q"), assistant(text)], most=12_000)
    assert all(len(turns[-1].text) <= 12_000 and turns[0].role == "user" for turns in shown)
    assert shown[0][-1].text[-400:] == shown[1][-1].text[:400] and shown[-1][-1].text[-8:] == text[-8:]
    assert len(shown) == 4 and views([]) == []
    short = views([user("a" * 9_000), assistant("b" * 2_000), user("c" * 2_000)], most=5_000)
    assert [message.role for message in short[0]] == ["user", "assistant", "user"]


GUARDED = (
    ("/v1/chat/completions", lambda text: chat_body(text), lambda b: b["choices"][0]),
    ("/v1/completions", lambda text: {"model": "echo", "prompt": text, "max_tokens": 99}, lambda b: b["choices"][0]),
    ("/v1/responses", lambda text: {"model": "echo", "input": text}, lambda b: b),
    (
        "/v1/messages",
        lambda text: {"model": "echo", "max_tokens": 99, "messages": [{"role": "user", "content": text}]},
        lambda b: b,
    ),
    ("/api/chat", lambda text: {**chat_body(text), "stream": False}, lambda b: b),
    ("/api/generate", lambda text: {"model": "echo", "prompt": text, "stream": False}, lambda b: b),
)


@pytest.mark.parametrize(("path", "body", "of"), GUARDED, ids=[row[0] for row in GUARDED])
@pytest.mark.parametrize("side", ["input", "output"])
async def test_every_dialect_stands_behind_the_guard(path, body, of, side):
    async with serving(entry(guards=(side,))) as (client, _):
        good, bad = [await client.post(path, json=body(text)) for text in ("hello", "make a bomb")]
        assert good.status_code == bad.status_code == 200, bad.text
        assert "hello" in good.text
        assert "make a bomb" not in json.dumps(of(bad.json()).get("output", of(bad.json())))
        assert "No." in bad.text
        ends = {
            "/v1/chat/completions": lambda b: b["choices"][0]["finish_reason"] == "content_filter",
            "/v1/completions": lambda b: b["choices"][0]["finish_reason"] == "content_filter",
            "/v1/responses": lambda b: b["incomplete_details"] == {"reason": "content_filter"},
            "/v1/messages": lambda b: b["stop_reason"] == "refusal",
            "/api/chat": lambda b: b["done_reason"] == "stop",
            "/api/generate": lambda b: b["done_reason"] == "stop",
        }
        assert ends[path](bad.json()), bad.text


async def test_a_streamed_answer_is_cut_before_what_is_not_let_through():
    text = "fine words. " * 200 + "and then a bomb " + "more words. " * 200
    async with serving(entry(guards=("output",))) as (client, stack):
        response = await client.post("/v1/chat/completions", json=chat_body(text, stream=True))
        chunks = [event for event in events_of(response.text) if event != "[DONE]"]
        said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
        assert "bomb" not in said and said.startswith("fine words. ") and said.endswith("No.")
        assert len(said) > len("fine words. " * 200) - 2 * WINDOW_CHARS, "what was let through is there"
        ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
        assert ends[-1] == "content_filter" and events_of(response.text)[-1] == "[DONE]"
        assert not stack.inference.providers["echo"].running


class Counting:
    """Counts what it is shown."""

    name = "counting"

    def __init__(self) -> None:
        self.chars = 0

    async def check(self, messages, *, salt=""):
        self.chars += sum(len(message.text) for message in messages)


async def test_the_cost_of_a_guard_grows_with_the_length_and_not_with_its_square():
    costs = []
    for length in (20_000, 40_000):
        counting = Counting()
        inference = EchoInference(EchoConfig(context_length=1_000_000))
        router = GuardedRouter(InferenceRouter({"echo": inference}), Shields([]), Shields([Guarded(shield=counting)]))
        async with in_process(build_app(Stack(inference=router), ServeConfig())) as client:
            answer = await client.post("/v1/chat/completions", json=chat_body("x" * length))
            assert answer.json()["choices"][0]["message"]["content"] == "x" * length
        costs.append(counting.chars)
    assert costs[1] < 2.2 * costs[0]


async def test_tools_that_would_be_called_are_judged():
    text = {"type": "string", "enum": ["bomb"]}
    parameters = {"type": "object", "properties": {"text": text}, "required": ["text"]}
    tool = {"type": "function", "function": {"name": "send", "parameters": parameters}}
    async with serving(entry(guards=("output",))) as (client, _):
        body = chat_body("x", tools=[tool], tool_choice="required")
        choice = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
        assert not choice["message"].get("tool_calls") and choice["finish_reason"] == "content_filter"


async def test_a_guard_that_is_down_stops_every_answer_unless_it_may_not():
    for fails_open, is_answered in ((False, False), (True, True)):
        down = ShieldEntry(
            shield_id="down",
            provider_id="llama-guard",
            provider_shield_id="nobody/llama-guard3:1b",
            guards=("input",),
            fails_open=fails_open,
        )
        async with serving(down) as (client, _):
            said = (await client.post("/v1/chat/completions", json=chat_body("hi"))).json()["choices"][0]
            assert (said["message"]["content"] == "hi") == is_answered
            if not is_answered:
                assert "cannot be checked" in said["message"]["content"]


def test_a_shield_of_the_configuration_that_cannot_be_stops_the_start():
    with pytest.raises(ConfigError, match="shield 'x'"):
        stack_of(ShieldEntry(shield_id="x", provider_id="nobody"))
    with pytest.raises(ConfigError, match="words"):
        stack_of(ShieldEntry(shield_id="x", provider_id="word-list"))
