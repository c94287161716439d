"""What every inference provider must do; a new provider joins `PROVIDERS` and passes unchanged.

The suite asks for nothing that depends on what a model says, only on how it says it.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import pytest
from tests.serving import echo_stack, served
from tests.tiny import tiny_checkpoint

from llamakit.api.inference import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Inference,
    RequestContext,
    TokenizeRequest,
    ToolChoice,
)
from llamakit.core.errors import InvalidRequest, PromptTooLong, UnknownModel
from llamakit.core.messages import (
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    ToolCallDelta,
    ToolSpec,
    assistant,
    fold,
    system,
    user,
)
from llamakit.core.sampling import Constraint
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.providers.inline.inference.local import build as build_local
from llamakit.providers.remote.inference.anthropic import build as build_anthropic
from llamakit.providers.remote.inference.openai_compat import build as build_remote
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single


@dataclass(frozen=True)
class Subject:
    """A provider under test and a model of it."""

    provider: Inference
    model: str
    embeds: bool = True
    """Whether the model gives embeddings."""
    calls_tools: bool = True
    """Whether the model's format has tool calls."""
    lacks: frozenset[str] = frozenset()
    """What the service behind a remote provider has no word for; see `NEEDS`."""


NEEDS = {
    "test_usage_counts": "ignore_eos",
    "test_seeds_repeat": "seed",
    "test_choices_are_told_apart": "n",
    "test_stop_strings_end_the_answer_and_are_not_in_it": "include_stop",
    "test_logprobs_cover_the_text": "ignore_eos",
    "test_prompt_logprobs_cover_the_prompt": "tokens",
    "test_text_and_ids_are_the_same_prompt": "tokens",
    "test_nothing_generated": "prompt_logprobs",
    "test_progress_where_it_is_wanted": "progress",
    "test_salts_keep_cached_prefixes_apart": "salts",
    "test_schema_is_followed": "seed",
    "test_choice_is_followed": "choice",
    "test_forced_tool_calls": "seed",
    "test_a_final_message_can_be_continued": "continue",
    "test_a_prompt_too_long_is_refused_with_both_numbers": "tokenizer",
    "test_ids_outside_the_vocabulary_are_refused": "tokenizer",
    "test_tokens_there_and_back": "tokens",
    "test_spelled_special_tokens_are_text": "tokenizer",
    "test_messages_are_tokenized_as_they_are_asked": "tokens",
    "test_closing_a_stream_stops_the_work": "ignore_eos",
    "test_models_come_and_go": "management",
}
"""What a test asks of a service beyond chats, tools and streams; a provider that computes itself lacks nothing."""


@asynccontextmanager
async def echo_subject() -> AsyncIterator[Subject]:
    provider = EchoInference(EchoConfig(models=("echo", "other")))
    yield Subject(provider=provider, model="echo")
    await provider.aclose()


@asynccontextmanager
async def local_subject() -> AsyncIterator[Subject]:
    with TemporaryDirectory() as directory:
        checkpoint = tiny_checkpoint(Path(directory) / "tiny")
        settings = {"models": (str(checkpoint),), "threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}
        provider = build_local(settings, {})
        yield Subject(provider=provider, model="tiny")
        await provider.aclose()


@asynccontextmanager
async def remote_subject() -> AsyncIterator[Subject]:
    """The adapter of OpenAI's wire, with this project's own server around the echo as the remote."""
    with served(echo_stack(models=("echo", "other"))) as server:
        provider = build_remote({"vendor": "llamakit", "base_url": server.base_url, "retries": 0}, {})
        yield Subject(provider=provider, model="echo")
        await provider.aclose()


@asynccontextmanager
async def remote_local_subject() -> AsyncIterator[Subject]:
    """The same around the engine."""
    with TemporaryDirectory() as directory:
        checkpoint = tiny_checkpoint(Path(directory) / "tiny")
        settings = {"threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}
        distribution = single(models=(str(checkpoint),), config=settings)
        with served(build_stack(distribution), preload=False) as server:
            provider = build_remote({"vendor": "llamakit", "base_url": server.url, "retries": 0}, {})
            yield Subject(provider=provider, model="tiny")
            await provider.aclose()


@asynccontextmanager
async def remote_plain_subject() -> AsyncIterator[Subject]:
    """The adapter as it meets a vendor: nothing beyond what OpenAI published, and a model's name of its own."""
    beyond = {"ignore_eos", "include_stop", "prompt_logprobs", "tokens", "progress", "salts", "choice", "continue"}
    with served(echo_stack(models=("echo",))) as server:
        settings = {
            "vendor": "openai",
            "base_url": server.base_url,
            "api_key": "sk-x",
            "model_names": {"alias": "echo"},
        }
        provider = build_remote(settings, {})
        yield Subject(provider=provider, model="alias", lacks=frozenset(beyond | {"tokenizer", "management"}))
        await provider.aclose()


@asynccontextmanager
async def remote_ollama_subject() -> AsyncIterator[Subject]:
    """The row of Ollama, with this project's own server as the Ollama."""
    beyond = {"n", "ignore_eos", "include_stop", "prompt_logprobs", "tokens", "progress", "salts", "choice", "continue"}
    with served(echo_stack(models=("llama3.2:1b",))) as server:
        provider = build_remote({"vendor": "ollama", "base_url": server.url, "retries": 0}, {})
        # The name of the catalog, which this row turns into Ollama's own.
        yield Subject(
            provider=provider, model="llama3.2:1b-instruct", lacks=frozenset(beyond | {"tokenizer", "management"})
        )
        await provider.aclose()


@asynccontextmanager
async def remote_vllm_subject() -> AsyncIterator[Subject]:
    """The row of vLLM, with this project's own server as the vLLM."""
    with served(echo_stack(models=("echo",))) as server:
        provider = build_remote({"vendor": "vllm", "base_url": server.url, "retries": 0}, {})
        yield Subject(provider=provider, model="echo", lacks=frozenset({"management", "progress", "tokenizer"}))
        await provider.aclose()


@asynccontextmanager
async def anthropic_subject() -> AsyncIterator[Subject]:
    beyond = set(NEEDS.values()) - {"continue"}
    with served(echo_stack(models=("echo",))) as server:
        provider = build_anthropic({"base_url": server.url, "api_key": "sk-x", "retries": 0}, {})
        yield Subject(provider=provider, model="echo", embeds=False, lacks=frozenset(beyond))
        await provider.aclose()


PROVIDERS: dict[str, Callable] = {
    "inline::echo": echo_subject,
    "inline::local": local_subject,
    "remote::llamakit of echo": remote_subject,
    "remote::llamakit of local": remote_local_subject,
    "remote::openai of echo": remote_plain_subject,
    "remote::ollama of echo": remote_ollama_subject,
    "remote::vllm of echo": remote_vllm_subject,
    "remote::anthropic of echo": anthropic_subject,
}
"""Name of the provider to a context manager that gives a `Subject`."""


@pytest.fixture(params=PROVIDERS)
async def subject(request):
    async with PROVIDERS[request.param]() as made:
        if NEEDS.get(request.node.originalname) in made.lacks:
            pytest.skip("the service behind it has no word for this")
        yield made


LOOK = ToolSpec(
    name="look_up",
    description="Look a word up.",
    parameters={"type": "object", "properties": {"word": {"enum": ["llama", "alpaca"]}}, "required": ["word"]},
)
CONVERSATION = (system("Be brief."), user("Say something about llamas."))


def chat(subject: Subject, *messages, request_id: str = "r", **fields) -> ChatRequest:
    own = ("tools", "tool_choice", "parallel_tool_calls", "continue_final_message", "add_generation_prompt", "context")
    given = {name: fields.pop(name) for name in own if name in fields}
    given.setdefault("context", RequestContext(id=request_id))
    sampling = {"max_tokens": 12, "temperature": 0.0, **fields}
    return ChatRequest(model=subject.model, messages=messages or CONVERSATION, sampling=sampling, **given)


def completion(subject: Subject, prompt="The llama is", **fields) -> CompletionRequest:
    own = {name: fields.pop(name) for name in ("suffix", "add_special_tokens") if name in fields}
    sampling = {"max_tokens": 12, "temperature": 0.0, **fields}
    context = RequestContext(id="r")
    return CompletionRequest(model=subject.model, prompt=prompt, context=context, sampling=sampling, **own)


async def events_of(stream):
    async with aclosing(stream) as events:
        return [event async for event in events]


async def answer_of(stream):
    return fold(await events_of(stream))


async def test_events_come_in_order(subject):
    events = await events_of(subject.provider.chat(chat(subject)))
    assert isinstance(events[-1], Done) and sum(isinstance(event, Done) for event in events) == 1
    assert isinstance(events[-2], Finish) and sum(isinstance(event, Finish) for event in events) == 1
    assert not any(isinstance(event, PrefillProgress) for event in events)


async def test_usage_counts(subject):
    answer = await answer_of(subject.provider.chat(chat(subject, max_tokens=5, ignore_eos=True)))
    assert answer.usage.completion_tokens == 5 and answer.choices[0].reason == "length"
    assert 0 <= answer.usage.cached_tokens < answer.usage.prompt_tokens
    assert min(answer.timings.queue_s, answer.timings.prefill_s, answer.timings.decode_s) >= 0


async def test_greedy_answers_repeat(subject):
    first = await answer_of(subject.provider.chat(chat(subject)))
    second = await answer_of(subject.provider.chat(chat(subject, request_id="s")))
    assert first.text == second.text and first.choices[0].reason == second.choices[0].reason


async def test_seeds_repeat(subject):
    fields = {"temperature": 1.0, "seed": 11}
    texts = [(await answer_of(subject.provider.chat(chat(subject, **fields)))).text for _ in range(2)]
    assert texts[0] == texts[1]


async def test_choices_are_told_apart(subject):
    events = await events_of(subject.provider.chat(chat(subject, n=3, temperature=1.0, seed=1)))
    assert sorted(event.choice for event in events if isinstance(event, Finish)) == [0, 1, 2]
    assert len(fold(events).choices) == 3
    ended: set[int] = set()
    for event in events:
        if isinstance(event, Finish):
            ended.add(event.choice)
        elif isinstance(event, TextDelta):
            assert event.choice not in ended


async def test_stop_strings_end_the_answer_and_are_not_in_it(subject):
    whole = (await answer_of(subject.provider.chat(chat(subject, max_tokens=24)))).text
    if len(whole) < 4:
        pytest.skip("the model says too little to stop it")
    stop = whole[2:4]
    cut = await answer_of(subject.provider.chat(chat(subject, max_tokens=24, stop=(stop,))))
    assert cut.text == whole[: whole.index(stop)]
    assert cut.choices[0].reason == "stop" and cut.choices[0].stop == stop
    kept = await answer_of(subject.provider.chat(chat(subject, max_tokens=24, stop=(stop,), include_stop=True)))
    assert kept.text == whole[: whole.index(stop)] + stop


async def test_logprobs_cover_the_text(subject):
    answer = await answer_of(subject.provider.chat(chat(subject, logprobs=2, ignore_eos=True, max_tokens=6)))
    logprobs = answer.choices[0].logprobs
    assert len(logprobs) == 6
    assert all(entry.logprob <= 0 and len(entry.top) == 2 for entry in logprobs)
    assert all(entry.top[0].logprob >= entry.top[1].logprob for entry in logprobs)
    none = await answer_of(subject.provider.chat(chat(subject)))
    assert none.choices[0].logprobs == () and none.prompt_logprobs is None


async def test_prompt_logprobs_cover_the_prompt(subject):
    tokens = await subject.provider.tokenize(TokenizeRequest(model=subject.model, prompt="The llama is"))
    answer = await answer_of(subject.provider.complete(completion(subject, max_tokens=1, prompt_logprobs=1)))
    assert len(answer.prompt_logprobs) == len(tokens.ids) == answer.usage.prompt_tokens
    assert answer.prompt_logprobs[0] is None
    assert [entry.id for entry in answer.prompt_logprobs[1:]] == list(tokens.ids[1:])
    assert all(len(entry.top) >= 1 for entry in answer.prompt_logprobs[1:])


async def test_text_and_ids_are_the_same_prompt(subject):
    tokens = await subject.provider.tokenize(TokenizeRequest(model=subject.model, prompt="The llama is"))
    by_text = await answer_of(subject.provider.complete(completion(subject)))
    by_ids = await answer_of(subject.provider.complete(completion(subject, tokens.ids)))
    assert by_text.usage.prompt_tokens == by_ids.usage.prompt_tokens
    assert by_text.choices[0].reason == by_ids.choices[0].reason


async def test_nothing_generated(subject):
    answer = await answer_of(subject.provider.complete(completion(subject, max_tokens=0, prompt_logprobs=0)))
    assert answer.text == "" and answer.usage.completion_tokens == 0
    assert answer.choices[0].reason == "length" and answer.prompt_logprobs is not None


async def test_progress_where_it_is_wanted(subject):
    request = chat(subject, user("word " * 500), context=RequestContext(id="p", wants_progress=True))
    events = await events_of(subject.provider.chat(request))
    progress = [event for event in events if isinstance(event, PrefillProgress)]
    assert progress and events[: len(progress)] == progress
    assert all(event.total == fold(events).usage.prompt_tokens for event in progress)
    assert [event.done for event in progress] == sorted({event.done for event in progress})
    assert all(event.cached <= event.done <= event.total for event in progress)


async def test_salts_keep_cached_prefixes_apart(subject):
    text = "A long enough question about llamas, " * 20

    async def cached(salt: str) -> int:
        request = chat(subject, user(text), context=RequestContext(id=salt, salt=salt))
        return (await answer_of(subject.provider.chat(request))).usage.cached_tokens

    assert [await cached("a"), await cached("b")] == [0, 0]
    assert await cached("a") > 0 and await cached("b") > 0


async def test_schema_is_followed(subject):
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["llama", "alpaca"]}, "tame": {"type": "boolean"}},
        "required": ["kind", "tame"],
        "additionalProperties": False,
    }
    constraint = Constraint(kind="json_schema", source=json.dumps(schema))
    # A random model wanders in the white space that JSON allows; a draw leaves it sooner or later.
    request = chat(subject, constraint=constraint, max_tokens=2000, temperature=1.0, seed=1)
    answer = await answer_of(subject.provider.chat(request))
    jsonschema.validate(json.loads(answer.text), schema)


async def test_choice_is_followed(subject):
    constraint = Constraint(kind="choice", source='["llama", "alpaca"]')
    answer = await answer_of(subject.provider.chat(chat(subject, constraint=constraint, max_tokens=64)))
    assert answer.text in ("llama", "alpaca")


@pytest.mark.parametrize("mode", ["required", "named"])
async def test_forced_tool_calls(subject, mode):
    if not subject.calls_tools:
        pytest.skip("the model's format has no tools")
    choice = ToolChoice(mode=mode, name="look_up" if mode == "named" else None)
    request = chat(subject, tools=(LOOK,), tool_choice=choice, max_tokens=2000, temperature=1.0, seed=1)
    events = await events_of(subject.provider.chat(request))
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert deltas[0].id and deltas[0].name == "look_up"
    assert all(delta.id is None and delta.name is None for delta in deltas[1:] if delta.index == 0)
    answer = fold(events)
    assert answer.choices[0].reason == "tool_calls"
    jsonschema.validate(json.loads(answer.choices[0].message.tool_calls[0].arguments), LOOK.parameters)


async def test_no_tools_when_none_are_allowed(subject):
    if not subject.calls_tools:
        pytest.skip("the model's format has no tools")
    request = chat(subject, user("look_up llama"), tools=(LOOK,), tool_choice=ToolChoice(mode="none"))
    assert not (await answer_of(subject.provider.chat(request))).choices[0].message.tool_calls


async def test_a_final_message_can_be_continued(subject):
    messages = (user("Tell a story."), assistant("Once upon"))
    request = chat(subject, *messages, continue_final_message=True, add_generation_prompt=False)
    assert isinstance((await events_of(subject.provider.chat(request)))[-1], Done)


async def test_a_prompt_too_long_is_refused_with_both_numbers(subject):
    context = (await subject.provider.tokenizer_info(subject.model)).context_length
    with pytest.raises(PromptTooLong, match=str(context)):
        await events_of(subject.provider.chat(chat(subject, user("word " * context))))


async def test_ids_outside_the_vocabulary_are_refused(subject):
    size = (await subject.provider.tokenizer_info(subject.model)).vocab_size
    with pytest.raises(InvalidRequest):
        await events_of(subject.provider.complete(completion(subject, (size,))))
    with pytest.raises(InvalidRequest):
        await subject.provider.detokenize(subject.model, (size,))


async def test_unknown_models(subject):
    nobody = replace(chat(subject), model="no/such:model")
    with pytest.raises(UnknownModel):
        await events_of(subject.provider.chat(nobody))
    with pytest.raises(UnknownModel):
        await subject.provider.model("no/such:model")


async def test_tokens_there_and_back(subject):
    for text in ("The llama is", "Grüße, 世界 🦙", "  two  spaces\n\ttab"):
        request = TokenizeRequest(model=subject.model, prompt=text, add_special_tokens=False)
        tokens = await subject.provider.tokenize(request)
        assert len(tokens.ids) == len(tokens.texts)
        assert await subject.provider.detokenize(subject.model, tokens.ids) == text


async def test_spelled_special_tokens_are_text(subject):
    info = await subject.provider.tokenizer_info(subject.model)
    for token, name in info.eos:
        request = TokenizeRequest(model=subject.model, prompt=f"a {name} b", add_special_tokens=False)
        tokens = await subject.provider.tokenize(request)
        assert token not in tokens.ids
        assert await subject.provider.detokenize(subject.model, (token,)) == name


async def test_messages_are_tokenized_as_they_are_asked(subject):
    tokens = await subject.provider.tokenize(TokenizeRequest(model=subject.model, messages=CONVERSATION))
    answer = await answer_of(subject.provider.chat(chat(subject)))
    assert len(tokens.ids) == answer.usage.prompt_tokens


async def test_embeddings(subject):
    if not subject.embeds:
        pytest.skip("the model gives no embeddings")
    inputs = ("llama", "alpaca", (1, 2, 3))
    request = EmbeddingRequest(model=subject.model, inputs=inputs, context=RequestContext(id="e"))
    made = await subject.provider.embed(request)
    assert len(made.vectors) == 3 and made.prompt_tokens >= 3
    assert len({len(vector) for vector in made.vectors}) == 1
    assert all(math.isclose(sum(x * x for x in vector), 1.0, rel_tol=1e-3) for vector in made.vectors)
    assert (await subject.provider.embed(request)).vectors == made.vectors


async def test_closing_a_stream_stops_the_work(subject):
    request = chat(subject, max_tokens=200, ignore_eos=True)
    stream = subject.provider.chat(request)
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    await stream.aclose()
    async with asyncio.timeout(5):
        while any(stats.running or stats.waiting for stats in subject.provider.stats()):
            await asyncio.sleep(0.01)


async def test_many_at_once_say_what_each_says_alone(subject):
    requests = [chat(subject, user(f"Number {n}."), request_id=str(n)) for n in range(8)]
    alone = [(await answer_of(subject.provider.chat(request))).text for request in requests]
    together = await asyncio.gather(*(answer_of(subject.provider.chat(request)) for request in requests))
    assert [answer.text for answer in together] == alone


async def test_models_come_and_go(subject):
    assert subject.model in [model.name for model in await subject.provider.models()]
    info = await subject.provider.model(subject.model)
    assert info.name == subject.model
    loaded = await subject.provider.load(subject.model)
    assert loaded.name == subject.model and loaded.context_length > 0
    assert subject.model in [model.name for model in await subject.provider.loaded()]
    assert (await subject.provider.health()).ready
    assert await subject.provider.unload(subject.model)
    assert subject.model not in [model.name for model in await subject.provider.loaded()]
    assert not await subject.provider.unload(subject.model)
    assert isinstance((await events_of(subject.provider.chat(chat(subject))))[-1], Done)
