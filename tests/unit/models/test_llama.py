"""The Llama module: shapes, invariance of bits, and the frequencies of the model cards."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_config, tiny_llama

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig, RopeScaling
from llamakit.kernels.attention import AttentionBatch, paged_attention, write_kv
from llamakit.kernels.rope import RopeTable, inverse_frequencies
from llamakit.models.llama import Llama, build, initialize

BLOCK = 16


def paged_logits(model: Llama, prompts: list[list[int]], cut) -> list[torch.Tensor]:
    """Logits of every position of every prompt, computed through pools full of NaN in chunks chosen by `cut`."""
    config = model.config
    num_blocks = sum(-(-len(prompt) // BLOCK) for prompt in prompts) + 1
    shape = (num_blocks, BLOCK, config.num_kv_heads, config.head_dim)
    pools = [
        tuple(torch.full(shape, float("nan"), dtype=model.dtype) for _ in range(2)) for _ in range(config.num_layers)
    ]
    width = max(-(-len(prompt) // BLOCK) for prompt in prompts)
    tables = torch.zeros(len(prompts), width, dtype=torch.int64)
    free = torch.randperm(num_blocks - 1, generator=torch.Generator().manual_seed(1)) + 1
    for row, prompt in enumerate(prompts):
        used = -(-len(prompt) // BLOCK)
        tables[row, :used], free = free[:used], free[used:]
    done = [0] * len(prompts)
    out: list[list[torch.Tensor]] = [[] for _ in prompts]
    while active := [s for s, prompt in enumerate(prompts) if done[s] < len(prompt)]:
        ids, positions, slots, starts, contexts = [], [], [], [0], []
        for s in active:
            count = min(cut(), len(prompts[s]) - done[s])
            span = range(done[s], done[s] + count)
            ids += prompts[s][span.start : span.stop]
            positions += span
            slots += [int(tables[s, p // BLOCK]) * BLOCK + p % BLOCK for p in span]
            starts.append(len(ids))
            contexts.append(span.stop)
            done[s] = span.stop
        batch = AttentionBatch(starts, contexts, tables[active], BLOCK)
        slot_tensor = torch.tensor(slots)

        def attend(layer, q, k, v, slot_tensor=slot_tensor, batch=batch):
            write_kv(*pools[layer], slot_tensor, k, v)
            return paged_attention(q, *pools[layer], batch, config.head_dim**-0.5)

        with torch.inference_mode():
            rows = model.logits(model.hidden(torch.tensor(ids), torch.tensor(positions), attend))
        for i, s in enumerate(active):
            out[s].append(rows[starts[i] : starts[i + 1]])
    return [torch.cat(rows) for rows in out]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_bits_do_not_depend_on_batch_or_chunking(dtype: torch.dtype, seed: int) -> None:
    chance = random.Random(seed)
    model = tiny_llama(3, dtype=dtype)
    prompts = [[chance.randrange(320) for _ in range(chance.choice([1, 2, 15, 16, 17, 130, 200]))] for _ in range(5)]
    alone = [paged_logits(model, [prompt], lambda: 10**6)[0] for prompt in prompts]
    together = paged_logits(model, prompts, lambda: chance.choice([1, 2, 7, 16, 33, 150]))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_paged_equals_plain_attention() -> None:
    model = tiny_llama(1, num_heads=6, num_kv_heads=2)
    prompt = torch.randint(0, 320, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.inference_mode():
        plain = model(torch.tensor([prompt]))[0]
    torch.testing.assert_close(paged_logits(model, [prompt], lambda: 64)[0], plain, atol=1e-4, rtol=1e-4)


def test_documents_do_not_see_each_other() -> None:
    model = tiny_llama(2)
    first, second = torch.randint(0, 320, (2, 20), generator=torch.Generator().manual_seed(0))
    packed = model(
        torch.cat([first, second])[None],
        positions_BT=torch.cat([torch.arange(20), torch.arange(20)])[None],
        documents_BT=torch.tensor([[0] * 20 + [1] * 20]),
    )[0]
    torch.testing.assert_close(packed[:20], model(first[None])[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed[20:], model(second[None])[0], atol=1e-4, rtol=1e-4)


def test_meta_build_takes_no_memory_and_counts_parameters() -> None:
    config = ModelConfig(
        vocab_size=128256,
        dim=2048,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        ffn_dim=8192,
        rope_theta=5e5,
        rope_scaling=RopeScaling(factor=32),
        tie_embeddings=True,
        context_length=131072,
    )
    model = build(config)
    assert model.device.type == "meta"
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters == 1_235_814_400
    assert "lm_head.weight" not in model.state_dict()


def test_gradients_reach_every_parameter() -> None:
    model = Llama(tiny_config(tie_embeddings=False))
    initialize(model, 0)
    model(torch.randint(0, 320, (2, 12))).logsumexp(-1).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("head_dim", "factor", "samples", "divisors"),
    [
        (
            128,
            8,
            {29: 2.166570764e-3, 35: 9.556212354e-5, 63: 3.068925989e-7},
            {29: 1.207484, 30: 1.553415, 31: 2.026313, 32: 2.694530, 33: 3.684253, 34: 5.257327},
        ),
        (128, 32, {35: 2.389053088e-5, 63: 7.672314972e-8}, {29: 1.234937, 33: 5.171596, 34: 9.666729}),
        (
            64,
            32,
            {1: 0.6636012377, 18: 1.946163818e-5, 31: 9.418306725e-8},
            {15: 1.651329, 16: 3.292262, 17: 9.666729},
        ),
    ],
)
def test_scaled_frequencies_match_the_released_models(head_dim, factor, samples, divisors) -> None:
    plain = inverse_frequencies(head_dim, 5e5)
    scaled = inverse_frequencies(head_dim, 5e5, factor=factor)
    for index, value in samples.items():
        assert scaled[index].item() == pytest.approx(value, rel=1e-5)
    for index, value in divisors.items():
        assert (plain[index] / scaled[index]).item() == pytest.approx(value, rel=1e-4)
    assert torch.equal(plain[: min(divisors)], scaled[: min(divisors)])
    by_divisor = inverse_frequencies(head_dim, 5e5, divisors=(plain / scaled).tolist())
    torch.testing.assert_close(by_divisor, scaled, rtol=1e-6, atol=0)


def test_rope_rows_do_not_depend_on_who_asked() -> None:
    early, late = (RopeTable(inverse_frequencies(16, 1e4)) for _ in range(2))
    late(torch.tensor([9000]))
    assert torch.equal(early(torch.tensor([5]))[0], late(torch.tensor([5]))[0])


@pytest.mark.parametrize(
    "changes",
    [{"num_kv_heads": 3}, {"head_dim": 15}, {"vocab_size": 0}, {"dim": True}, {"rope_theta": float("nan")}],
)
def test_impossible_shapes_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError):
        tiny_config(**changes)


def test_autocast_without_gradients_runs() -> None:
    model = tiny_llama(0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()
