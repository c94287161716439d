"""Attention over keys and values of a byte each, on every level."""

from __future__ import annotations

import pytest
import torch
from tests.unit.kernels.paged import Paged, exact, paged
from tests.unit.kernels.test_attention import SHAPES, run

from llamakit.kernels import native
from llamakit.kernels.attention import paged_attention, write_kv
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.int8_pool import Int8Pool, make_int8_pool, pool_block_bytes, round_heads


def rounded(pool: torch.Tensor) -> Int8Pool:
    """Slots of NaN, which no sequence owns, get scales of NaN."""
    codes, scales = round_heads(pool.flatten(0, 1))
    return Int8Pool(codes.view(pool.shape), scales.view(pool.shape[:3]))


def in_bytes(shape: str, dtype: torch.dtype) -> tuple[Paged, torch.Tensor]:
    """A case over rounded pools, and the exact answer for what they hold."""
    case = paged(**SHAPES[shape], q_dtype=dtype)  # type: ignore[arg-type]
    pools = rounded(case.k_pool), rounded(case.v_pool)
    every = torch.arange(case.k_pool.shape[0])
    expected = exact(case._replace(k_pool=pools[0].floats(every), v_pool=pools[1].floats(every)))
    return case._replace(k_pool=pools[0], v_pool=pools[1]), expected  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_attention_matches_float64_and_queries_stand_alone(level: Library, shape: str, dtype: torch.dtype) -> None:
    case, expected = in_bytes(shape, dtype)
    out = run(case)
    # Rounding is in the pools, and so in what is expected: the tolerances are those of float pools.
    assert (out.double() - expected).abs().max() < (4e-6 if dtype == torch.float32 else 2e-2)
    with native.using(level.level, threads=3):
        assert torch.equal(run(case), out)
    starts = case.batch.query_starts
    for sequence in range(len(case.batch.context_lens)):
        tokens = starts[sequence + 1] - starts[sequence]
        for token in {0, tokens // 2, tokens - 1} if tokens else ():
            assert torch.equal(run(case.one(sequence, token))[0], out[starts[sequence] + token])


@torch.no_grad()
def test_reference_matches_float64() -> None:
    case, expected = in_bytes("decode and prompts", torch.float32)
    with native.using("reference"):
        assert (run(case).double() - expected).abs().max() < 4e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [10, 64, 128])
@torch.no_grad()
def test_rows_are_rounded_like_the_reference(level: Library, dtype: torch.dtype, dim: int) -> None:
    keys, values, wanted_keys, wanted_values = (make_int8_pool(5, 4, 3, dim) for _ in range(4))
    k, v = torch.randn(3, 3, dim).to(dtype), torch.randn(3, 3, dim).to(dtype)
    k[1, 2], v[0, 0, 1], v[2, 1, 0] = 0.0, torch.nan, torch.inf
    slots = torch.tensor([19, 0, 7])
    with native.using("reference"):
        write_kv(wanted_keys, wanted_values, slots, k, v)
    write_kv(keys, values, slots, k, v)
    for pool, wanted in ((keys, wanted_keys), (values, wanted_values)):
        assert torch.equal(pool.codes, wanted.codes)
        torch.testing.assert_close(pool.scales, wanted.scales, rtol=0.0, atol=0.0, equal_nan=True)


@torch.no_grad()
def test_a_block_is_copied_with_its_scales_and_counted_with_them() -> None:
    pool = make_int8_pool(3, 4, 2, 8)
    write_kv(pool, make_int8_pool(3, 4, 2, 8), torch.tensor([1]), torch.randn(1, 2, 8), torch.randn(1, 2, 8))
    pool.copy_block(0, 2)
    assert torch.equal(pool.floats(torch.tensor(2)), pool.floats(torch.tensor(0)))
    assert pool_block_bytes(4, 2, 8, torch.int8) == (pool.codes.nbytes + pool.scales.nbytes) // 3
    assert pool_block_bytes(16, 8, 64, torch.bfloat16) == 16 * 8 * 64 * 2


@torch.no_grad()
def test_what_does_not_fit_is_refused(library: Library) -> None:
    pool = make_int8_pool(2, 4, 1, 8)
    rows = torch.zeros(1, 1, 8)
    with pytest.raises(IndexError, match="outside the pool of 8 slots"):
        write_kv(pool, pool, torch.tensor([8]), rows, rows)
    with pytest.raises(TypeError, match="pools of one kind"):
        write_kv(pool, torch.zeros(2, 4, 1, 8), torch.tensor([0]), rows, rows)
    case, _ = in_bytes("one token", torch.float32)
    case.batch.block_tables.fill_(99)
    with pytest.raises(IndexError, match="does not cover its context"):
        paged_attention(case.q_NHD, case.k_pool, case.v_pool, case.batch, case.scale)


@torch.no_grad()
def test_operations_keep_their_schema_and_shapes() -> None:
    case, _ = in_bytes("one token", torch.float32)
    pools = [tensor.nan_to_num() for pool in (case.k_pool, case.v_pool) for tensor in pool]
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.llamakit.paged_attention_int8, (case.q_NHD, *pools, *case.batch.tables, case.scale), test_utils=checks
    )
    rows = torch.randn(1, 2, 16)
    arguments = (*make_int8_pool(2, 4, 2, 16), *make_int8_pool(2, 4, 2, 16), torch.tensor([6]), rows, rows + 1)
    torch.library.opcheck(torch.ops.llamakit.write_kv_int8, arguments, test_utils=checks)
