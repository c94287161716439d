"""What the engine promises a request, on a small random model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import torch
from tests.tiny import ByteTokenizer, FakeClock, tiny_llama
from tests.unit.engine.driving import Heard, check_idle, listen, plain, request, run

from llamakit.core.errors import ConfigError, EngineStopped, InvalidRequest, Overloaded, PromptTooLong
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.engine.engine import Engine
from llamakit.engine.grammar import Vocabulary, compile_constraint
from llamakit.engine.request import EndEvent, ErrorEvent, PrefillEvent, Request, RequestEnd, TokenEvent
from llamakit.models.llama import Llama

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny_llama()


@pytest.fixture
def engine(model: Llama) -> Engine:
    return Engine(model, plain())


def answer(engine: Engine, *, prompt: Sequence[int] = PROMPT, **sampling: object) -> Heard:
    return run(engine, [request(prompt, **sampling)])["r"]


@torch.inference_mode()
def continue_greedily(model: Llama, prompt: Sequence[int], count: int) -> list[int]:
    """Greedy decoding by whole forward passes, without cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_tokens_are_those_of_the_plain_forward_pass(model: Llama, engine: Engine):
    assert answer(engine, max_tokens=24).tokens[0] == continue_greedily(model, PROMPT, 24)


def test_a_prompt_of_one_token_works(model: Llama, engine: Engine):
    assert answer(engine, prompt=[7], max_tokens=5).tokens[0] == continue_greedily(model, [7], 5)


def test_events_tell_the_whole_story(model: Llama):
    clock = FakeClock()
    engine = Engine(model, plain(max_batch_tokens=4, max_sequences=4), clock=clock)
    engine.submit(request(PROMPT, max_tokens=2))
    clock.advance(1.0)
    seen = []
    while engine.has_work:
        seen += engine.step()
        clock.advance(0.5)
    kinds = [type(event) for event in seen]
    assert kinds == [PrefillEvent, PrefillEvent, TokenEvent, TokenEvent, EndEvent, RequestEnd]
    assert [(event.done, event.total) for event in seen[:2]] == [(4, 11), (8, 11)]
    assert (seen[4].reason, seen[4].stop) == ("length", None)
    end = seen[-1]
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.cached_tokens) == (11, 2, 0)
    assert (end.timings.queue_s, end.timings.prefill_s, end.timings.decode_s) == (1.0, 1.0, 0.5)
    assert [event.is_last for event in seen] == [False] * 5 + [True]


def test_nothing_to_do_is_an_empty_step(engine: Engine):
    assert not engine.has_work and engine.step() == []


# -- ends ------------------------------------------------------------------------------------------


def test_the_models_end_token_ends_without_a_token_event(engine: Engine):
    wish = request(PROMPT, max_tokens=24, temperature=1.0, seed=4)
    free = run(engine, [wish])["r"].tokens[0]
    stop = next(token for token in reversed(free) if free.count(token) == 1)
    place = free.index(stop)
    assert place > 0
    ended = run(engine, [replace(wish, stop_ids=frozenset({stop, 299}) - set(free[:place]))])["r"]
    assert ended.tokens[0] == free[:place]
    assert (ended.ends[0].reason, ended.ends[0].stop) == ("stop", stop)
    assert isinstance(ended.last, RequestEnd) and ended.last.usage.completion_tokens == place + 1


def test_ends_can_be_ignored_and_delayed(model: Llama, engine: Engine):
    free = answer(engine, max_tokens=24).tokens[0]
    stop = frozenset({free[0]})
    ignored = run(engine, [replace(request(PROMPT, max_tokens=24, ignore_eos=True), stop_ids=stop)])["r"]
    assert ignored.tokens[0] == free
    own = answer(engine, max_tokens=24, ignore_eos=True, stop_ids=(free[0],))
    assert own.ends[0].stop == free[0] and own.tokens == {}
    delayed = run(engine, [replace(request(PROMPT, max_tokens=24, min_tokens=5), stop_ids=stop)])["r"]
    assert len(delayed.tokens[0]) >= 5 and free[0] not in delayed.tokens[0][:5]


def test_a_wanted_stop_token_is_part_of_the_answer(engine: Engine):
    first = answer(engine, max_tokens=1).tokens[0][0]
    shown = answer(engine, stop_ids=(first,), include_stop=True)
    assert shown.tokens[0] == [first] and shown.ends[0].stop == first


def test_without_a_limit_the_context_is_filled(model: Llama):
    engine = Engine(model, plain(max_context=32))
    heard = answer(engine, max_tokens=None)
    assert len(heard.tokens[0]) == 32 - len(PROMPT) and heard.ends[0].reason == "length"


def test_no_tokens_wanted_means_none(engine: Engine):
    heard = answer(engine, max_tokens=0, n=2)
    assert heard.tokens == {} and [heard.ends[i].reason for i in (0, 1)] == ["length", "length"]


def test_the_caller_ends_a_choice_by_its_text(engine: Engine):
    engine.submit(request(PROMPT, n=2, max_tokens=50, temperature=1.0, seed=1))
    heard: dict[str, Heard] = {}
    for _ in range(3):
        listen(engine.step(), heard)
    events = engine.finish("r", 0, "stop!", num_tokens=2)
    assert [(type(event), event.reason, event.stop) for event in events] == [(EndEvent, "stop", "stop!")]
    assert engine.finish("r", 0, "stop!") == [] == engine.finish("nobody", 0, "x") == engine.finish("r", 9, "x")
    events = engine.finish("r", 1, "stop!")
    assert isinstance(events[-1], RequestEnd) and events[-1].usage.completion_tokens == 2 + 3
    check_idle(engine)


def test_a_stop_watcher_ends_a_choice_in_the_same_step(engine: Engine):
    free = answer(engine, max_tokens=10).tokens[0]

    def watcher():
        seen: list[int] = []

        def watch(token: int) -> str | None:
            seen.append(token)
            return "third" if len(seen) >= 3 else None

        return watch

    heard = run(engine, [replace(request(PROMPT, max_tokens=10), stopper=watcher)])["r"]
    assert heard.tokens[0] == free[:3] and heard.ends[0].stop == "third"
    late = run(engine, [replace(request(PROMPT, max_tokens=10, min_tokens=5), stopper=watcher)])["r"]
    assert late.tokens[0] == free[:6]


# -- choices ---------------------------------------------------------------------------------------


def test_choices_share_the_prompt_and_differ(model: Llama):
    engine = Engine(model, plain(block_tokens=4))
    engine.submit(request(PROMPT, n=4, max_tokens=6, temperature=1.0, seed=3))
    engine.step()
    # Two full blocks shared, and a partial one for each.
    assert engine.stats().blocks_used == 2 + 4
    heard: dict[str, Heard] = {}
    while engine.has_work:
        listen(engine.step(), heard)
    assert len({tuple(tokens) for tokens in heard["r"].tokens.values()}) == 4


def test_a_choice_is_what_it_would_be_without_the_others(engine: Engine):
    together = answer(engine, n=5, max_tokens=8, temperature=1.0, seed=3)
    fewer = answer(engine, n=2, max_tokens=8, temperature=1.0, seed=3)
    assert [fewer.tokens[i] for i in (0, 1)] == [together.tokens[i] for i in (0, 1)]


def test_more_choices_than_places_all_come(model: Llama):
    wide = Engine(model, plain())
    narrow = Engine(model, plain(max_sequences=2, max_batch_tokens=16))
    wish = {"n": 6, "max_tokens": 9, "temperature": 1.0, "seed": 5}
    assert answer(narrow, **wish).tokens == answer(wide, **wish).tokens


def test_the_best_choices_come_best_first_and_the_others_never(engine: Engine):
    wish = {"max_tokens": 6, "temperature": 1.3, "seed": 2}
    every = answer(engine, n=6, logprobs=0, **wish)
    ranked = sorted(every.tokens, key=lambda i: -sum(every.logprobs[i]) / len(every.logprobs[i]))
    best = answer(engine, n=2, best_of=6, **wish)
    assert [best.tokens[i] for i in (0, 1)] == [every.tokens[i] for i in ranked[:2]]
    assert set(best.tokens) == set(best.ends) == {0, 1}
    assert best.logprobs[0] == [None] * len(best.tokens[0])
    assert isinstance(best.last, RequestEnd) and best.last.usage.completion_tokens == 36


def test_an_unseeded_request_gets_a_seed_of_its_own(model: Llama):
    seeds = iter([11, 12, 11])
    engine = Engine(model, plain(), new_seed=lambda: next(seeds))
    tokens = [answer(engine, temperature=1.0).tokens[0] for _ in range(3)]
    assert tokens[0] == tokens[2] != tokens[1]


# -- scores ----------------------------------------------------------------------------------------


@torch.inference_mode()
def own_logprobs(model: Llama, ids: Sequence[int]) -> torch.Tensor:
    return torch.log_softmax(model(torch.tensor([list(ids)]))[0].double(), -1)


def test_logprobs_are_the_models(model: Llama, engine: Engine):
    heard = answer(engine, temperature=0.7, seed=4, logprobs=3, logit_bias={5: 2.0})
    tokens = heard.tokens[0]
    reference = own_logprobs(model, PROMPT + tokens)
    for place, token in enumerate(tokens):
        line = reference[len(PROMPT) - 1 + place]
        assert heard.logprobs[0][place] == pytest.approx(line[token].item(), abs=1e-4)
        assert [i for i, _ in heard.tops[0][place]] == line.argsort(descending=True)[:3].tolist()


@pytest.mark.parametrize("budget", [512, 5])
def test_prompts_are_scored_whatever_is_cached(model: Llama, budget: int):
    engine = Engine(model, plain(max_batch_tokens=budget, max_sequences=4, block_tokens=4))
    long = [i * 7 % 300 for i in range(90)]
    answer(engine, prompt=long)
    heard = answer(engine, prompt=long, prompt_logprobs=2, max_tokens=1)
    assert heard.prompt is not None and heard.prompt.logprobs[0] is None
    reference = own_logprobs(model, long)
    for place, entry in enumerate(heard.prompt.logprobs[1:], start=1):
        assert entry is not None and entry[0] == long[place]
        assert entry[1] == pytest.approx(reference[place - 1, long[place]].item(), abs=1e-4)
        assert [i for i, _ in entry[2]] == reference[place - 1].argsort(descending=True)[:2].tolist()
    assert isinstance(heard.last, RequestEnd) and heard.last.usage.cached_tokens == 0


def test_scoring_alone_generates_nothing(engine: Engine):
    heard = answer(engine, prompt_logprobs=0, max_tokens=0)
    assert heard.prompt is not None and len(heard.prompt.logprobs) == len(PROMPT)
    assert heard.tokens == {} and heard.ends[0].reason == "length"
    single = answer(engine, prompt=[3], prompt_logprobs=0, max_tokens=0)
    assert single.prompt is not None and single.prompt.logprobs == (None,)


def test_a_whole_context_can_be_scored(model: Llama):
    engine = Engine(model, plain(max_context=16))
    heard = answer(engine, prompt=range(16), prompt_logprobs=0, max_tokens=0)
    assert heard.prompt is not None and len(heard.prompt.logprobs) == 16


# -- the cache -------------------------------------------------------------------------------------


def test_a_repeated_prompt_comes_from_the_cache(model: Llama):
    engine = Engine(model, plain(block_tokens=4))
    first = answer(engine)
    second = answer(engine)
    assert isinstance(first.last, RequestEnd) and isinstance(second.last, RequestEnd)
    assert (first.last.usage.cached_tokens, second.last.usage.cached_tokens) == (0, 8)
    assert first.outcome == second.outcome
    stats = engine.stats()
    assert (stats.prefix_queries, stats.prefix_hits) == (22, 8)
    engine.reset_prefix_cache()
    assert engine.stats().blocks_cached == 0
    third = answer(engine)
    assert isinstance(third.last, RequestEnd) and third.last.usage.cached_tokens == 0


def test_an_answer_is_cached_for_the_next_turn(model: Llama):
    engine = Engine(model, plain(block_tokens=4))
    tokens = answer(engine, max_tokens=10).tokens[0]
    turn = answer(engine, prompt=[*PROMPT, *tokens, 8, 8])
    assert isinstance(turn.last, RequestEnd) and turn.last.usage.cached_tokens == 20


def test_other_tenants_do_not_share(model: Llama):
    engine = Engine(model, plain(block_tokens=4))
    answer(engine)
    other = run(engine, [replace(request(PROMPT), salt=b"other")])["r"]
    assert isinstance(other.last, RequestEnd) and other.last.usage.cached_tokens == 0


# -- refusals --------------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_with_both_numbers(model: Llama):
    engine = Engine(model, plain(max_context=16))
    with pytest.raises(PromptTooLong, match=r"16 tokens.*16"):
        engine.submit(request(range(16), max_tokens=None))
    with pytest.raises(PromptTooLong, match=r"10 tokens.*7 more.*16"):
        engine.submit(request(range(10), max_tokens=7))
    engine.submit(request(range(10), max_tokens=6))


def test_the_cache_bounds_the_context(model: Llama):
    per_token = model.config.kv_bytes_per_token(4)
    engine = Engine(model, plain(cache_bytes=per_token * 64))
    assert engine.max_context == 64
    with pytest.raises(PromptTooLong):
        engine.submit(request([1] * 64))
    with pytest.raises(ConfigError, match="64 tokens"):
        Engine(model, plain(cache_bytes=per_token * 64, max_context=65))
    with pytest.raises(ConfigError, match="1024"):
        Engine(model, plain(max_context=1025))
    with pytest.raises(ConfigError, match="no block"):
        Engine(model, plain(cache_bytes=100))


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        ({"prompt": [1, 320]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1, 2**70]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"logit_bias": {320: 1.0}}, "logit_bias"),
        ({"stop_ids": (400,)}, "stop_token_ids"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(engine: Engine, bad: dict, param: str):
    prompt = bad.pop("prompt", PROMPT)
    with pytest.raises(InvalidRequest) as caught:
        engine.submit(request(prompt, **bad))
    assert caught.value.param == param
    check_idle(engine)


def test_requests_that_make_no_sense_are_refused():
    with pytest.raises(InvalidRequest, match="empty"):
        Request(id="r", prompt_ids=[])
    with pytest.raises(InvalidRequest) as caught:
        Request(id="r", prompt_ids=[1], sampling=SamplingParams(constraint=Constraint(kind="json_object")))
    assert caught.value.param == "response_format"


def test_ids_of_running_requests_are_unique(engine: Engine):
    engine.submit(request(PROMPT))
    with pytest.raises(InvalidRequest, match="unique"):
        engine.submit(request(PROMPT))
    engine.cancel("r")
    engine.submit(request(PROMPT))


def test_a_full_queue_refuses(model: Llama):
    engine = Engine(model, plain(max_waiting=2))
    engine.submit(request(PROMPT, "a"))
    engine.submit(request(PROMPT, "b"))
    with pytest.raises(Overloaded, match="2"):
        engine.submit(request(PROMPT, "c"))


# -- cancellation and failure ----------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_cancelling_returns_every_block_at_once(model: Llama, steps: int):
    engine = Engine(model, plain(max_batch_tokens=8, max_sequences=4))
    engine.submit(request(PROMPT, n=3, max_tokens=50, temperature=1.0))
    for _ in range(steps):
        engine.step()
    events = engine.cancel("r")
    assert [event.reason for event in events if isinstance(event, EndEvent)] == ["cancelled"] * 3
    assert isinstance(events[-1], RequestEnd)
    check_idle(engine)
    assert engine.step() == [] and engine.cancel("r") == [] and engine.cancel("nobody") == []


def test_cancelling_a_ranked_request_shows_none_of_it(engine: Engine):
    engine.submit(request(PROMPT, n=1, best_of=3, max_tokens=50, temperature=1.0))
    for _ in range(3):
        assert engine.step() == []
    events = engine.cancel("r")
    assert not any(isinstance(event, TokenEvent) for event in events)
    assert isinstance(events[-1], RequestEnd) and events[-1].usage.completion_tokens == 9


class Broken:
    """A matcher that fails at the third mask."""

    is_complete = False

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._masks = 0

    def mask(self) -> np.ndarray:
        self._masks += 1
        if self._masks == 3:
            raise self._error
        return np.ones(320, dtype=bool)

    def advance(self, token: int) -> None:
        pass

    def rollback(self, num_tokens: int) -> None:
        pass

    def count_valid(self, ids: Sequence[int]) -> int:
        return len(ids)


@pytest.mark.parametrize("error", [InvalidRequest("too complex"), ValueError("broken")])
def test_a_failing_request_fails_alone(model: Llama, error: Exception):
    engine = Engine(model, plain())
    healthy = answer(engine)
    requests = [
        request(PROMPT, "healthy"),
        replace(request(PROMPT, "broken", n=2, temperature=1.0), matcher=lambda: Broken(error)),
        replace(request([7], "late", max_tokens=1), matcher=lambda: Broken(error)),
    ]
    heard = run(engine, requests)
    assert heard["healthy"].tokens == healthy.tokens
    assert len(heard["late"].tokens[0]) == 1
    last = heard["broken"].last
    assert isinstance(last, ErrorEvent)
    assert last.error is error or (isinstance(last.error, EngineStopped) and last.error.__cause__ is error)
    assert heard["broken"].ends == {}


def test_a_matcher_that_cannot_be_made_fails_its_request_alone(engine: Engine):
    def fail():
        raise RuntimeError("no matcher")

    heard = run(engine, [request(PROMPT, "a"), replace(request(PROMPT, "b", n=2), matcher=fail)])
    assert isinstance(heard["b"].last, ErrorEvent) and isinstance(heard["a"].last, RequestEnd)


def test_a_request_without_any_possible_token_is_an_error(engine: Engine):
    banned = dict.fromkeys(range(320), -100.0)
    heard = run(engine, [request(PROMPT, "a", logit_bias=banned), request(PROMPT, "b")])
    last = heard["a"].last
    assert isinstance(last, ErrorEvent) and isinstance(last.error, InvalidRequest) and last.error.param == "logit_bias"
    assert isinstance(heard["b"].last, RequestEnd)


def test_a_model_that_gives_no_numbers_is_an_error_and_not_garbage():
    broken = tiny_llama()
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    for temperature in (0.0, 1.0):
        heard = run(Engine(broken, plain()), [request(PROMPT, temperature=temperature)])["r"]
        assert isinstance(heard.last, ErrorEvent) and heard.tokens == {}


# -- constraints -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = ByteTokenizer()
    made = Vocabulary(
        [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)],
        eos_ids=tokenizer.eos_ids,
        special=tokenizer.special,
        encode=tokenizer.encode,
    )
    yield made
    made.checker.close()


def constrained(vocabulary: Vocabulary, kind: str, source: str, name: str = "r", **sampling: object) -> Request:
    constraint = Constraint(kind=kind, source=source)  # type: ignore[arg-type]
    compiled = compile_constraint(constraint, vocabulary, deadline_s=20.0)
    fields = {"temperature": 0.0, "max_tokens": 300, "constraint": constraint} | sampling
    return Request(
        id=name,
        prompt_ids=PROMPT,
        sampling=SamplingParams(**fields),  # type: ignore[arg-type]
        stop_ids=frozenset(vocabulary.eos_ids),
        matcher=compiled.matcher,
    )


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 3},
    },
    "required": ["kind", "age", "tags"],
    "additionalProperties": False,
}


def test_constrained_answers_are_valid(model: Llama, engine: Engine, vocabulary: Vocabulary):
    source = json.dumps(SCHEMA)
    requests = [
        constrained(vocabulary, "json_schema", source, str(seed), temperature=1.0, seed=seed) for seed in range(6)
    ]
    requests.append(constrained(vocabulary, "json_schema", source, "greedy"))
    requests.append(constrained(vocabulary, "json_schema", source, "held", temperature=1.0, seed=9, min_tokens=200))
    for heard in run(engine, requests).values():
        assert heard.ends[0].reason == "stop"
        jsonschema.validate(json.loads(bytes(heard.tokens[0])), SCHEMA)


def test_a_finished_constraint_ends_the_choice_without_another_step(engine: Engine, vocabulary: Vocabulary):
    heard = run(engine, [constrained(vocabulary, "choice", '["yes"]')])["r"]
    assert bytes(heard.tokens[0]) == b"yes" and (heard.ends[0].reason, heard.ends[0].stop) == ("stop", None)
    assert isinstance(heard.last, RequestEnd) and heard.last.usage.completion_tokens == 3


def test_every_choice_walks_its_constraint_alone(engine: Engine, vocabulary: Vocabulary):
    heard = run(engine, [constrained(vocabulary, "regex", "[ab]{6}", n=5, temperature=1.0, seed=1)])["r"]
    texts = {bytes(tokens) for tokens in heard.tokens.values()}
    assert len(texts) > 1 and all(len(text) == 6 and set(text) <= set(b"ab") for text in texts)
