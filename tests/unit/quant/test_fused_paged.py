"""Fused layers over a paged cache: one call a layer, and the bits of plain layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.quant.stored import FORMS, store

from llamakit.kernels import native
from llamakit.kernels.attention import AttentionBatch, Pool
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.int8_pool import Int8Pool, make_int8_pool
from llamakit.kernels.paged import PagedAttend
from llamakit.models.llama import Llama
from llamakit.quant.convert import quantize
from llamakit.quant.fused import fuse

BLOCK_TOKENS, NUM_BLOCKS = 16, 12


@pytest.fixture(params=native.LEVELS)
def level(request: pytest.FixtureRequest):
    library = native.library()
    if library is None or request.param not in library.levels:
        pytest.skip(f"no compiled kernels of level {request.param} here")
    with native.using(request.param):
        yield library


class Cache:
    """Pools for every layer, and a step over them: tokens of two sequences, some of them already there."""

    def __init__(self, model: Llama, make: Callable[[int, int], Pool]) -> None:
        config = model.config
        self.keys = [make(config.num_kv_heads, config.head_dim) for _ in range(config.num_layers)]
        self.values = [make(config.num_kv_heads, config.head_dim) for _ in range(config.num_layers)]
        self.tables = torch.randperm(NUM_BLOCKS, generator=torch.Generator().manual_seed(1)).view(2, -1)
        self.lengths = [0, 0]

    def run(self, model: Llama, counts: list[int]) -> torch.Tensor:
        starts, positions, slots = [0], [], []
        for sequence, count in enumerate(counts):
            own = torch.arange(self.lengths[sequence], self.lengths[sequence] + count)
            positions.append(own)
            slots.append(self.tables[sequence][own // BLOCK_TOKENS] * BLOCK_TOKENS + own % BLOCK_TOKENS)
            starts.append(starts[-1] + count)
            self.lengths[sequence] += count
        batch = AttentionBatch(starts, self.lengths, self.tables, BLOCK_TOKENS)
        attend = PagedAttend(self.keys, self.values, torch.cat(slots), batch, model.config.head_dim**-0.5)
        where = torch.cat(positions)
        return model.hidden((where * 7 + 3) % 320, where, attend)


def floats(dtype: torch.dtype) -> Callable[[int, int], Pool]:
    return lambda heads, dim: torch.zeros(NUM_BLOCKS, BLOCK_TOKENS, heads, dim, dtype=dtype)


def integers(heads: int, dim: int) -> Pool:
    return make_int8_pool(NUM_BLOCKS, BLOCK_TOKENS, heads, dim)


def tensors(pool: Pool) -> list[torch.Tensor]:
    return [*pool] if isinstance(pool, Int8Pool) else [pool]


def count_layers(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The layers that run whole from now on."""
    seen: list[object] = []
    run = library.run_layers
    monkeypatch.setattr(library, "run_layers", lambda x, layers, *rest: (seen.extend(layers), run(x, layers, *rest))[1])
    return seen


@pytest.mark.parametrize("scheme", [None, "int8", "int4", "q4_k", "q8_0"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float32 over bfloat16", "int8"])
@torch.no_grad()
def test_whole_layers_have_the_bits_of_plain_ones(
    level: Library, monkeypatch: pytest.MonkeyPatch, kind: str, scheme: str | None
) -> None:
    dtype = torch.bfloat16 if kind in ("bfloat16", "int8") else torch.float32
    make = integers if kind == "int8" else floats(torch.float32 if kind == "float32" else torch.bfloat16)
    plain = tiny_llama(dtype=dtype, sharpness=3.0)
    if scheme in FORMS:
        store(plain, scheme)
    elif scheme:
        quantize(plain, scheme)
    fused = fuse(copy.deepcopy(plain))
    assert isinstance(fused, Llama)
    expected, found = Cache(plain, make), Cache(fused, make)
    seen = count_layers(level, monkeypatch)
    for counts in ([40, 1], [1, 1], [3, 17]):
        assert torch.equal(found.run(fused, counts), expected.run(plain, counts))
    assert len(seen) == 3 * plain.config.num_layers
    for one, other in zip((*found.keys, *found.values), (*expected.keys, *expected.values), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@torch.no_grad()
def test_slots_and_tables_outside_the_pools_are_refused_before_anything_changes() -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here")
    model = fuse(tiny_llama())
    assert isinstance(model, Llama)
    cache = Cache(model, floats(torch.float32))
    cache.tables[1, 0] = NUM_BLOCKS
    with pytest.raises(IndexError, match=f"outside the pool of {NUM_BLOCKS * BLOCK_TOKENS} slots"):
        cache.run(model, [1, 1])
    cache = Cache(model, floats(torch.float32))
    cache.lengths[0] = 97
    cache.tables = torch.cat([cache.tables, torch.zeros(2, 1, dtype=torch.int64)], 1)
    cache.tables[0, 1] = -1
    with pytest.raises(IndexError, match="does not cover its context"):
        cache.run(model, [1, 0])
    assert all(not bool(pool.any()) for pool in cache.keys if not isinstance(pool, Int8Pool))


@torch.no_grad()
def test_pools_of_two_dtypes_run_as_the_plain_layer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.library()
    if library is None:
        pytest.skip("no compiled kernels here")
    plain = tiny_llama()
    fused = fuse(copy.deepcopy(plain))
    assert isinstance(fused, Llama)
    seen = count_layers(library, monkeypatch)
    caches = [Cache(plain, floats(torch.float32)) for _ in range(2)]
    for cache in caches:
        for layer, pool in enumerate(cache.keys):
            cache.values[layer] = torch.zeros_like(tensors(pool)[0], dtype=torch.bfloat16)
    assert torch.equal(caches[0].run(fused, [5, 2]), caches[1].run(plain, [5, 2]))
    assert seen == []
