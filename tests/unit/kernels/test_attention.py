from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.unit.kernels.paged import Paged, exact, paged

from llamakit.kernels import native
from llamakit.kernels.attention import paged_attention, write_kv
from llamakit.kernels.cpu.library import Library

SHAPES = {
    "one token": {"sequences": [(1, 1)], "heads": 4, "kv_heads": 2, "dim": 16, "block_tokens": 16},
    "decode and prompts": {
        "sequences": [(1, 5), (7, 7), (1, 200), (130, 300), (3, 129)],
        "heads": 8,
        "kv_heads": 2,
        "dim": 64,
        "block_tokens": 16,
    },
    "an empty sequence": {
        "sequences": [(33, 33), (0, 0), (1, 650)],
        "heads": 6,
        "kv_heads": 6,
        "dim": 32,
        "block_tokens": 8,
    },
    "long pasts, shared out": {
        "sequences": [(1, 2300), (20, 1100), (1, 1024), (3, 2049)],
        "heads": 8,
        "kv_heads": 2,
        "dim": 64,
        "block_tokens": 64,
    },
    "one key head": {"sequences": [(1, 900), (2, 130)], "heads": 20, "kv_heads": 1, "dim": 128, "block_tokens": 128},
    "odd dim, single slots": {"sequences": [(20, 150)], "heads": 4, "kv_heads": 4, "dim": 10, "block_tokens": 1},
}
DTYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]


@cache
def prepared(shape: str, q_dtype: torch.dtype, pool_dtype: torch.dtype) -> tuple[Paged, torch.Tensor]:
    """A case and its exact answer, the same for all levels."""
    case = paged(**SHAPES[shape], q_dtype=q_dtype, pool_dtype=pool_dtype)  # type: ignore[arg-type]
    return case, exact(case)


def run(case: Paged) -> torch.Tensor:
    return paged_attention(case.q_NHD, case.k_pool, case.v_pool, case.batch, case.scale)


@pytest.mark.parametrize(("q_dtype", "pool_dtype"), DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_attention_matches_float64_and_queries_stand_alone(
    level: Library, shape: str, q_dtype: torch.dtype, pool_dtype: torch.dtype
) -> None:
    case, expected = prepared(shape, q_dtype, pool_dtype)
    out = run(case)
    # bfloat16 weights of the values and a bfloat16 answer: 2^-8 of values of up to about 4.
    tolerance = 2e-6 if q_dtype == torch.float32 else 2e-2
    assert (out.double() - expected).abs().max() < tolerance
    for threads in (1, 3):
        with native.using(level.level, threads=threads):
            assert torch.equal(run(case), out)
    starts = case.batch.query_starts
    for sequence in range(len(case.batch.context_lens)):
        tokens = starts[sequence + 1] - starts[sequence]
        for token in {0, tokens // 2, tokens - 1} if tokens else ():
            assert torch.equal(run(case.one(sequence, token))[0], out[starts[sequence] + token])


@torch.no_grad()
def test_reference_matches_float64() -> None:
    case, expected = prepared("decode and prompts", torch.float32, torch.float32)
    with native.using("reference"):
        assert (run(case).double() - expected).abs().max() < 2e-6


@pytest.mark.parametrize(("row_dtype", "pool_dtype"), DTYPES)
@torch.no_grad()
def test_write_kv_rounds_like_torch_and_touches_only_its_slots(
    level: Library, row_dtype: torch.dtype, pool_dtype: torch.dtype
) -> None:
    k_pool, v_pool = torch.zeros(5, 4, 3, 10, dtype=pool_dtype), torch.ones(5, 4, 3, 10, dtype=pool_dtype)
    slots = torch.tensor([19, 0, 7])
    k, v = torch.randn(3, 3, 10).to(row_dtype), torch.randn(3, 3, 10).to(row_dtype)
    expected = k_pool.clone(), v_pool.clone()
    with native.using("reference"):
        write_kv(*expected, slots, k, v)
    write_kv(k_pool, v_pool, slots, k, v)
    assert torch.equal(k_pool, expected[0])
    assert torch.equal(v_pool, expected[1])


@torch.no_grad()
def test_slots_and_blocks_outside_the_pool_are_refused(library: Library) -> None:
    pool = torch.zeros(2, 4, 1, 8)
    rows = torch.zeros(1, 1, 8)
    for slot in (-1, 8):
        with pytest.raises(IndexError, match="outside the pool of 8 slots"):
            write_kv(pool, pool.clone(), torch.tensor([slot]), rows, rows)
    for table in ([[2]], [[-1]]):
        case = paged([(1, 3)], heads=1, kv_heads=1, dim=8, block_tokens=4)
        case.batch.block_tables.copy_(torch.tensor(table))
        with pytest.raises(IndexError, match="inside 2 blocks"):
            run(case._replace(k_pool=pool, v_pool=pool))
