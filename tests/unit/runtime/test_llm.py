"""A model behind its text door: answers fold from events, asks are checked, streams can be left."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest
from tests.tiny import tiny_checkpoint

from llamakit.core.errors import EngineStopped, InvalidRequest, PromptTooLong
from llamakit.core.messages import Done, Finish, PrefillProgress, TextDelta, ToolSpec, assistant, fold, user
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.runtime.ask import Ask
from llamakit.runtime.llm import LLM
from llamakit.runtime.opening import LoadOptions

PING = ToolSpec(name="ping", parameters={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
OPTIONS = LoadOptions(dtype="float32", threads=1, prompt_format="llama3.2", cache_bytes=8 << 20)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory):
    path = tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    with LLM.load(str(path), options=OPTIONS) as loaded:
        yield loaded


def test_an_answer_is_the_fold_of_its_stream(llm: LLM) -> None:
    events = list(llm.stream([user("Hello")], sampling={"max_tokens": 12, "seed": 1, "logprobs": 2}))
    assert isinstance(events[-1], Done)
    answer = fold(events)
    assert answer.usage.completion_tokens == 12
    assert answer.choices[0].reason == "length"
    assert len(answer.choices[0].logprobs) == 12
    assert all(len(entry.top) == 2 for entry in answer.choices[0].logprobs)
    again = fold(llm.stream([user("Hello")], sampling={"max_tokens": 12, "seed": 1}))
    assert again.text == answer.text
    assert again.usage.cached_tokens >= 0


def test_choices_are_told_apart_and_best_of_returns_n(llm: LLM) -> None:
    answer = fold(llm.stream([user("Hello")], sampling={"max_tokens": 6, "seed": 3, "n": 3}))
    assert len(answer.choices) == 3
    assert len({choice.message.text for choice in answer.choices}) > 1
    best = fold(llm.stream([user("Hello")], sampling={"max_tokens": 6, "seed": 3, "n": 1, "best_of": 3}))
    assert len(best.choices) == 1


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_ends_the_text_before_or_behind_it(llm: LLM, include: bool) -> None:
    sampling = {"max_tokens": 40, "seed": 4, "ignore_eos": True}
    free = fold(llm.stream([user("stop")], sampling=sampling)).text
    stop = free[5:7]
    wanted = free[: free.index(stop)] + (stop if include else "")
    answer = fold(llm.stream([user("stop")], sampling=sampling | {"stop": (stop,), "include_stop": include}))
    assert answer.text == wanted
    assert answer.choices[0].reason == "stop"
    assert answer.choices[0].stop == stop


def test_min_tokens_outlasts_a_stop_string(llm: LLM) -> None:
    sampling = {"max_tokens": 40, "seed": 4, "ignore_eos": True}
    free = fold(llm.stream([user("stop")], sampling=sampling)).text
    answer = fold(llm.stream([user("stop")], sampling=sampling | {"stop": (free[0],), "min_tokens": 5}))
    assert answer.usage.completion_tokens >= 5


def test_a_forced_tool_call_comes_out_as_one(llm: LLM) -> None:
    ask = Ask(messages=[user("go")], tools=[PING], tool_choice="required", parallel_tool_calls=False,
              sampling={"max_tokens": 60, "seed": 5})  # fmt: skip
    choice = fold(llm.answer(ask)).choices[0]
    assert choice.reason == "tool_calls"
    assert [call.name for call in choice.message.tool_calls] == ["ping"]
    assert isinstance(json.loads(choice.message.tool_calls[0].arguments)["n"], int)
    assert choice.message.text == ""


def test_constrained_output_fits_and_is_compiled_once(llm: LLM) -> None:
    constraint = Constraint(kind="choice", source='["red", "green", "blue"]')
    for seed in range(3):
        answer = fold(llm.stream([user("colour")], sampling={"constraint": constraint, "seed": seed}))
        assert answer.text in {"red", "green", "blue"}
    assert len(llm._compiled) >= 1
    with pytest.raises(InvalidRequest):
        llm.stream([user("x")], sampling={"constraint": Constraint(kind="regex", source="(")})


def test_raw_prompts_echo_and_score(llm: LLM) -> None:
    ask = Ask(prompt="abc", echo=True, sampling={"max_tokens": 0, "logprobs": 1, "prompt_logprobs": 1})
    answer = fold(llm.answer(ask))
    assert answer.text == "abc"
    assert answer.usage.completion_tokens == 0
    assert answer.prompt_logprobs is not None
    assert [entry.token for entry in answer.prompt_logprobs if entry] == ["a", "b", "c"]
    ids = llm.tokenizer.encode("abc")
    assert fold(llm.stream_prompt(ids, sampling={"max_tokens": 1})).usage.prompt_tokens == 3


def test_progress_is_reported_when_asked(llm: LLM) -> None:
    long = user("".join(chr(97 + random.Random(0).randrange(26)) for _ in range(700)))
    events = list(llm.answer(Ask(messages=[long], progress=True, sampling={"max_tokens": 1})))
    progress = [event for event in events if isinstance(event, PrefillProgress)]
    assert progress
    assert progress[0].total > 700
    assert not any(isinstance(event, PrefillProgress) for event in llm.stream([long], sampling={"max_tokens": 1}))


def test_a_prompt_that_does_not_fit_says_both_numbers(llm: LLM) -> None:
    with pytest.raises(PromptTooLong, match=rf"tokens, .* holds {llm.context}"):
        llm.stream([user("x" * 9000)])
    with pytest.raises(PromptTooLong, match="max_tokens 5000"):
        llm.stream([user("x")], sampling={"max_tokens": 5000})


def test_bad_asks_are_refused_before_any_work(llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match="no sampling parameter 'temprature'"):
        llm.stream([user("x")], sampling={"temprature": 1})
    with pytest.raises(InvalidRequest, match="token id 99999"):
        llm.stream_prompt([99999])
    with pytest.raises(InvalidRequest, match="either messages or a prompt"):
        Ask()
    with pytest.raises(InvalidRequest, match="messages is empty"):
        Ask(messages=[])


def test_leaving_a_stream_stops_the_work(llm: LLM) -> None:
    stream = llm.stream([user("Hello")], sampling={"max_tokens": 500, "ignore_eos": True})
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5
    while llm.stats().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert llm.stats().running == 0
    assert llm.stats().blocks_used == 0


async def test_streams_of_many_tasks_are_each_exact_and_cancel_cleanly(llm: LLM) -> None:
    def ask(i: int) -> Ask:
        return Ask(messages=[user(f"Hello {i}")], sampling={"max_tokens": 20, "seed": i})

    alone = [fold(llm.answer(ask(i))).text for i in range(16)]

    async def text(i: int) -> str:
        return fold([event async for event in llm.answer_async(ask(i))]).text

    async def leave(i: int) -> None:
        events = llm.answer_async(ask(i))
        async for event in events:
            if isinstance(event, TextDelta):
                break
        await events.aclose()

    results = await asyncio.gather(*(text(i) for i in range(16)), *(leave(i) for i in range(8)))
    assert results[:16] == alone
    async with asyncio.timeout(5):
        while llm.stats().running:
            await asyncio.sleep(0.01)
    assert llm.stats().blocks_used == 0


async def test_a_cancelled_task_stops_its_request(llm: LLM) -> None:
    async def read() -> None:
        ask = Ask(messages=[user("Hi")], sampling={"max_tokens": 800, "ignore_eos": True})
        async for _ in llm.answer_async(ask):
            pass

    task = asyncio.create_task(read())
    async with asyncio.timeout(5):
        while not llm.stats().running:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while llm.stats().running:
            await asyncio.sleep(0.001)


def test_completers_answer_batches_in_order(llm: LLM) -> None:
    sampling = SamplingParams(max_tokens=5, temperature=0.0)
    conversations = [[user("one")], [user("two"), assistant("three"), user("four")]]
    answers = llm.complete(conversations, sampling)
    assert [answer.text for answer in answers] == [fold(llm.stream(c, sampling=sampling)).text for c in conversations]
    prompts = [llm.tokenizer.encode(text) for text in ("abc", "xyz")]
    ids = llm.complete_ids(prompts, sampling)
    assert ids[1] == llm.complete_ids(prompts[1:], sampling)[0]


def test_embeddings_are_unit_vectors_that_depend_on_their_input_alone(llm: LLM) -> None:
    together, tokens = llm.embed(["alpha", "beta beta"])
    alone, _ = llm.embed(["alpha"])
    assert together[0] == alone[0]
    assert tokens == len("alpha") + len("beta beta") + 2
    assert sum(value * value for value in alone[0]) == pytest.approx(1.0, abs=1e-5)


def test_text_that_spells_a_control_token_stays_text(llm: LLM) -> None:
    prompt = llm.prompter.prompt_ids(Ask(messages=[user("<|eot_id|>")]))
    assert list(prompt).count(llm.tokenizer.special["<|eot_id|>"]) == 1


def test_closing_ends_what_runs_and_refuses_what_comes(tmp_path: Path) -> None:
    llm = LLM.load(str(tiny_checkpoint(tmp_path / "tiny")), options=OPTIONS)
    running = llm.stream([user("x")], sampling={"max_tokens": 900, "ignore_eos": True})
    next(running)
    llm.close()
    with pytest.raises(EngineStopped):
        list(running)
    with pytest.raises(EngineStopped):
        list(llm.stream([user("x")]))


def test_greedy_defaults_of_the_checkpoint_are_taken_and_overruled(llm: LLM) -> None:
    llm.prompter.defaults["temperature"] = 0.0
    try:
        texts = {fold(llm.stream([user("d")], sampling={"max_tokens": 8})).text for _ in range(3)}
        assert len(texts) == 1
        assert llm.prompter.sampling({"temperature": 0.5}).temperature == 0.5
    finally:
        del llm.prompter.defaults["temperature"]


def test_every_choice_finishes_once(llm: LLM) -> None:
    events = list(llm.stream([user("x")], sampling={"max_tokens": 4, "n": 4, "seed": 0}))
    assert sorted(event.choice for event in events if isinstance(event, Finish)) == [0, 1, 2, 3]


def test_every_generated_token_has_one_logprob_the_end_token_too(llm: LLM) -> None:
    sampling = {"max_tokens": 12, "seed": 9, "logprobs": 0, "logit_bias": {llm.tokenizer.eos_ids[0]: 4.0}}
    answer = fold(llm.stream([user("end")], sampling=sampling))
    assert answer.choices[0].reason == "stop"
    assert len(answer.choices[0].logprobs) == answer.usage.completion_tokens
