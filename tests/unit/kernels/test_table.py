from __future__ import annotations

import copy

import pytest
import torch

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.matmul import linear
from llamakit.kernels.packed import activations, pack, packed_linear, unpack_rows
from llamakit.kernels.table import TableWeight, pack_table, table_rows, table_scores

# states, rows of the vocabulary, depth
SHAPES = [(1, 1, 64), (1, 4000, 96), (3, 777, 100), (5, 5003, 128), (12, 2000, 33), (20, 3100, 64), (40, 1500, 256)]


def operands(states: int, columns: int, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(states * 7919 + columns * 31 + depth)
    x = torch.randn(states, depth, generator=random)
    weight = torch.randn(columns, depth, generator=random) * torch.rand(columns, 1, generator=random)
    return x, weight


def fine(x: torch.Tensor, table: TableWeight) -> torch.Tensor:
    """The score of every row by its bytes, in float64."""
    codes, scales = activations(x, table.rotation)
    whole = table.rows[:, : table.depth].double() - 128
    return codes.double() @ whole.T * table.row_scales.double() * scales.double()


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_scores_are_the_reference_on_every_level_whatever_stands_beside(
    level: Library, shape: tuple[int, int, int]
) -> None:
    x, weight = operands(*shape)
    table = pack_table(weight)
    scores = table_scores(x, table)
    with native.using("reference"):
        assert torch.equal(table_scores(x, table), scores)
    for threads in (1, 2, 3):
        with native.using(level.level, threads=threads):
            assert torch.equal(table_scores(x, table), scores)
    for row in range(0, shape[0], max(1, shape[0] // 5)):
        assert torch.equal(table_scores(x[row : row + 1], table)[0], scores[row])
    assert torch.equal(linear(x[None], table), scores[None])


@torch.no_grad()
def test_what_stands_out_is_scored_by_bytes_and_the_rest_by_nibbles(library: Library) -> None:
    x, weight = operands(6, 20_000, 128)
    table = pack_table(weight)
    scores, coarse, exact = table_scores(x, table), packed_linear(x, table.coarse), fine(x, table)
    limits = coarse.double().mean(1, keepdim=True) + 2.25 * coarse.double().std(1, keepdim=True, unbiased=False)
    above, below = coarse > limits + 1e-4, coarse < limits - 1e-4
    assert above.any(1).all()
    torch.testing.assert_close(scores[above].double(), exact[above], rtol=1e-6, atol=1e-9)
    assert torch.equal(scores[below], coarse[below])
    # The same integers as a matrix of bytes has, so the same bits.
    assert torch.equal(scores[above], packed_linear(x, pack(weight, 8))[above])


@torch.no_grad()
def test_the_most_likely_rows_are_those_of_the_bytes(library: Library) -> None:
    x, weight = operands(32, 30_000, 256)
    table = pack_table(weight)
    best = fine(x, table).topk(10).indices
    assert torch.equal(table_scores(x, table).topk(10).indices, best)


@pytest.mark.parametrize("spread", [0.0, 1e-3])
@torch.no_grad()
def test_scores_that_are_nearly_alike_do_not_all_come_twice(level: Library, spread: float) -> None:
    # Two values: most rows equal, and more than there is room for at the other, equal too.
    weight = torch.ones(8192, 64)
    weight[:1000] += 0.5
    weight += spread * torch.randn(8192, 64, generator=torch.Generator().manual_seed(1))
    table = pack_table(weight)
    x = torch.ones(2, 64)
    scores = table_scores(x, table)
    with native.using("reference"):
        assert torch.equal(table_scores(x, table), scores)
    assert (scores[:, :1000] > scores[:, 1000:].max()).all()


@torch.no_grad()
def test_states_that_are_no_numbers_stay_so(level: Library) -> None:
    x, weight = operands(3, 2000, 64)
    x[1, 5] = torch.nan
    scores = table_scores(x, pack_table(weight))
    assert scores[1].isnan().all()
    assert torch.equal(scores[0], table_scores(x[:1], pack_table(weight))[0])
    assert (table_scores(torch.zeros(1, 64), pack_table(weight)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_rows_by_id_are_those_of_a_matrix_of_bytes(level: Library, dtype: torch.dtype) -> None:
    _, weight = operands(1, 300, 100)
    table, ids = pack_table(weight.to(dtype)), torch.tensor([[0, 299], [7, 7]])
    rows = table_rows(table, ids, dtype)
    assert torch.equal(rows, unpack_rows(pack(weight.to(dtype), 8), ids, dtype))
    with native.using("reference"):
        assert torch.equal(table_rows(table, ids, dtype), rows)
    with pytest.raises(IndexError, match="300"):
        table_rows(table, torch.tensor([300]), dtype)


@torch.no_grad()
def test_copies_compilation_and_wrong_shapes(library: Library) -> None:
    x, weight = operands(2, 500, 64)
    table = pack_table(weight)
    assert torch.equal(table_scores(x, copy.deepcopy(table)), table_scores(x, table))
    assert table.num_bytes == 500 * 64 + 500 * 4 + table.coarse.num_bytes
    compiled = torch.compile(lambda rows: table_scores(rows, table), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), table_scores(x, table))
    with pytest.raises(ValueError, match="depth 64"):
        table_scores(torch.zeros(1, 32), table)
    with pytest.raises(ValueError, match="as many scales"):
        TableWeight(table.coarse, table.rows[:-1], table.row_scales)
    with pytest.raises(ValueError, match="nibbles"):
        TableWeight(pack(weight, 8), table.rows, table.row_scales)
