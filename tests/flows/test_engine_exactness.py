"""Exactness: a request's tokens and scores are the same bits whatever company and course it had.

Every request of a fixed library runs alone first, without cache, chunks or speculation. Then random
schedules mix them: arrivals in any order, budgets down to a few tokens, caches too small for all, cached
prefixes, proposals right and wrong, cancellations of others. What comes out must be what came out alone.
"""

from __future__ import annotations

import json
import random
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny import ByteTokenizer, tiny_llama
from tests.unit.engine.driving import Heard, check_idle, listen, plain, run

from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.engine.config import EngineConfig, SpeculationConfig
from llamakit.engine.engine import Engine
from llamakit.engine.grammar import Vocabulary, compile_constraint
from llamakit.engine.request import Request
from llamakit.models.llama import Llama

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALWAYS = SpeculationConfig(max_tokens=4, adaptive=False, min_ngram=1)
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "boolean"}}, "required": ["a"]}

WISHES: list[dict] = [
    {"temperature": 0.0},
    {"temperature": 0.0, "logprobs": 3, "max_tokens": 12},
    {"temperature": 0.9, "seed": 1},
    {"temperature": 1.2, "seed": 2, "top_p": 0.9, "logprobs": 0},
    {"temperature": 0.7, "seed": 3, "top_k": 7, "min_p": 0.02, "n": 3},
    {"temperature": 1.0, "seed": 4, "typical_p": 0.8, "repetition_penalty": 1.2},
    {"temperature": 0.0, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    {"temperature": 1.5, "seed": 5, "n": 1, "best_of": 3, "max_tokens": 9},
    {"temperature": 0.0, "prompt_logprobs": 2, "logprobs": 1},
    {"temperature": 0.8, "seed": 6, "logit_bias": {7: 3.0, 9: -100.0}, "min_tokens": 6},
    {"temperature": 1.0, "seed": 7, "stop_ids": tuple(range(0, 320, 5)), "max_tokens": 30},
    {"temperature": 0.3, "seed": 8, "max_tokens": 40},
]


@cache
def model(dtype: str) -> Llama:
    return tiny_llama(dtype=DTYPES[dtype])


@cache
def draft(dtype: str) -> Llama:
    """The model itself, a little out of tune: mostly right, sometimes wrong."""
    other = tiny_llama(dtype=torch.float32)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return other.to(DTYPES[dtype])


@cache
def vocabulary() -> Vocabulary:
    tokenizer = ByteTokenizer()
    return Vocabulary(
        [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)],
        eos_ids=tokenizer.eos_ids,
        special=tokenizer.special,
        encode=tokenizer.encode,
    )


@cache
def library() -> tuple[Request, ...]:
    """Prompts with common beginnings, under every kind of wish, two of them constrained."""
    rng = random.Random(0)
    beginnings = [[rng.randrange(256) for _ in range(length)] for length in (0, 24, 50)]
    requests = []
    for number, wish in enumerate(WISHES * 2):
        prompt = beginnings[number % 3] + [rng.randrange(256) for _ in range(rng.choice((1, 5, 17, 40)))]
        sampling = SamplingParams(**({"max_tokens": 16} | wish))
        requests.append(Request(id=str(number), prompt_ids=prompt, sampling=sampling, priority=number % 2))
    constraint = Constraint(kind="json_schema", source=json.dumps(SCHEMA))
    compiled = compile_constraint(constraint, vocabulary(), deadline_s=20.0)
    for number, temperature in enumerate((0.0, 1.0)):
        sampling = SamplingParams(temperature=temperature, seed=9, max_tokens=40, constraint=constraint)
        requests.append(
            Request(
                id=f"json{number}",
                prompt_ids=beginnings[1] + list(b"json:"),
                sampling=sampling,
                matcher=compiled.matcher,
                stop_ids=frozenset(vocabulary().eos_ids),
            )
        )
    return tuple(requests)


@cache
def alone(number: int, dtype: str) -> Heard:
    return run(Engine(model(dtype), plain()), [library()[number]])[library()[number].id]


def one_block_pool(dtype: str, blocks: int, *, with_draft: bool = False) -> int:
    models = [model(dtype), draft(dtype)] if with_draft else [model(dtype)]
    return blocks * 16 * sum(each.config.kv_bytes_per_token(each.dtype.itemsize) for each in models)


def build(kind: str, dtype: str) -> Engine:
    """An engine with one particular way of making life hard."""
    match kind:
        case "batch":
            return Engine(model(dtype), plain(max_sequences=64))
        case "chunks":
            return Engine(model(dtype), plain(max_batch_tokens=5, max_sequences=4, block_tokens=4))
        case "small pool":
            return Engine(model(dtype), plain(cache_bytes=one_block_pool(dtype, 11), max_sequences=12))
        case "n-gram":
            return Engine(model(dtype), EngineConfig(speculation=ALWAYS))
        case "n-gram, chunks, small pool":
            cache_bytes = one_block_pool(dtype, 11)
            config = EngineConfig(
                speculation=ALWAYS, max_batch_tokens=9, max_sequences=5, cache_bytes=cache_bytes, prefill_chunk=4
            )
            return Engine(model(dtype), config)
        case "draft model":
            return Engine(model(dtype), EngineConfig(speculation=ALWAYS), draft(dtype))
        case "draft model, chunks, small pool":
            cache_bytes = one_block_pool(dtype, 12, with_draft=True)
            config = EngineConfig(speculation=ALWAYS, max_batch_tokens=16, max_sequences=6, cache_bytes=cache_bytes)
            return Engine(model(dtype), config, draft(dtype))
        case "default":
            return Engine(model(dtype))
    raise AssertionError(kind)


KINDS = (
    "batch",
    "chunks",
    "small pool",
    "n-gram",
    "n-gram, chunks, small pool",
    "draft model",
    "draft model, chunks, small pool",
    "default",
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_together_twice_as_alone(kind: str, dtype: str):
    """Everything at once on a cold engine, then again on the warm one."""
    engine = build(kind, dtype)
    for _ in range(2):
        heard = run(engine, library())
        for number, request in enumerate(library()):
            assert heard[request.id].outcome == alone(number, dtype).outcome, (kind, number)
    stats = engine.stats()
    assert stats.prefix_hits > 0
    if "small pool" in kind:
        assert stats.preemptions > 0
    if "n-gram" in kind or "draft" in kind:
        assert 0 < stats.accepted_tokens < stats.drafted_tokens


Schedule = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, len(WISHES) * 2 + 1)),
    min_size=1,
    max_size=10,
    unique_by=lambda x: x[1],
)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_schedule_as_alone(dtype: str, data: st.DataObject):
    """Arrivals at any step, and cancellations at any step, which free every block and touch nobody else."""
    engine = build(data.draw(st.sampled_from(KINDS)), dtype)
    arrivals = sorted(data.draw(Schedule))
    cancelled = data.draw(
        st.dictionaries(st.sampled_from([number for _, number in arrivals]), st.integers(0, 40), max_size=3)
    )
    heard: dict[str, Heard] = {}
    step = 0
    pending = list(arrivals)
    while pending or engine.has_work:
        while pending and pending[0][0] <= step:
            engine.submit(library()[pending.pop(0)[1]])
        for number, when in cancelled.items():
            if when == step:
                listen(engine.cancel(library()[number].id), heard)
        listen(engine.step(), heard)
        step += 1
        assert step < 5000
    check_idle(engine)
    for _, number in arrivals:
        request = library()[number]
        own = heard[request.id]
        expected = alone(number, dtype)
        if any(end.reason == "cancelled" for end in own.ends.values()):
            for choice, tokens in own.tokens.items():
                assert tokens == expected.tokens[choice][: len(tokens)]
        elif number not in cancelled:
            assert own.outcome == expected.outcome


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_in_bytes_as_alone(dtype: str):
    """Keys and values rounded to bytes are other numbers, but the same ones in every batch."""
    expected = [run(Engine(model(dtype), plain(kv="int8")), [request])[request.id].outcome for request in library()]
    assert expected != [alone(number, dtype).outcome for number in range(len(library()))]
    chunks = plain(kv="int8", max_batch_tokens=5, max_sequences=4, block_tokens=4)
    for config in (plain(kv="int8", max_sequences=64), chunks, EngineConfig(kv="int8", speculation=ALWAYS)):
        engine = Engine(model(dtype), config)
        for _ in range(2):
            heard = run(engine, library())
            assert [heard[request.id].outcome for request in library()] == expected


def test_128_at_once_as_alone():
    rng = random.Random(1)
    common = [rng.randrange(256) for _ in range(33)]
    requests = [
        Request(
            id=str(number),
            prompt_ids=(common if number % 3 else []) + [rng.randrange(256) for _ in range(rng.randrange(1, 30))],
            sampling=SamplingParams(
                temperature=rng.choice((0.0, 1.0)), seed=number, max_tokens=rng.randrange(1, 24), top_p=0.95
            ),
        )
        for number in range(128)
    ]
    engine = Engine(model("float32"), EngineConfig(max_sequences=128, max_batch_tokens=256))
    together = run(engine, requests)
    assert engine.stats().steps < 200
    for request in requests:
        solo = Engine(model("float32"), plain(max_context=128))
        assert run(solo, [request])[request.id].outcome == together[request.id].outcome


@pytest.mark.parametrize("seed", range(3))
def test_disconnects_at_random_points_free_everything(seed: int):
    rng = random.Random(seed)
    engine = Engine(model("float32"), EngineConfig(max_batch_tokens=64, speculation=ALWAYS, block_tokens=4))
    heard: dict[str, Heard] = {}
    gone: set[str] = set()
    waiting = list(range(len(library())))
    rng.shuffle(waiting)
    while waiting or engine.has_work:
        if waiting and rng.random() < 0.5:
            engine.submit(library()[waiting.pop()])
        listen(engine.step(), heard)
        live = [request.id for request in library() if request.id in heard and heard[request.id].last is None]
        if live and rng.random() < 0.2:
            gone.add(victim := rng.choice(live))
            before = engine.stats()
            listen(engine.cancel(victim), heard)
            after = engine.stats()
            assert after.blocks_used <= before.blocks_used
            assert after.running + after.waiting < before.running + before.waiting
    check_idle(engine)
    assert gone
    for number, request in enumerate(library()):
        if request.id not in gone:
            assert heard[request.id].outcome == alone(number, "float32").outcome


def test_greedy_tokens_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    ours = model("float32")
    config = ours.config
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    rng = random.Random(2)
    prompts = [[rng.randrange(1, 320) for _ in range(length)] for length in (1, 9, 40, 130)]
    requests = [
        Request(id=str(i), prompt_ids=prompt, sampling=SamplingParams(temperature=0.0, max_tokens=48))
        for i, prompt in enumerate(prompts)
    ]
    heard = run(Engine(ours), requests)
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)
        assert heard[str(i)].tokens[0] == out[0, len(prompt) :].tolist()
