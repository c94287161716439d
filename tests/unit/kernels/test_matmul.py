from __future__ import annotations

import pytest
import torch

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.matmul import linear

# rows, columns, depth: whole tiles, odd edges everywhere, one of each, nothing at all.
SHAPES = [
    (1, 64, 64),
    (1, 150, 96),
    (2, 7, 31),
    (3, 130, 70),
    (5, 1, 1),
    (16, 64, 33),
    (17, 65, 64),
    (40, 200, 160),
    (65, 96, 2),
    (700, 80, 67),
    (0, 8, 8),
    (4, 3, 0),
]
# Relative to the largest output: float32 sums of up to 160 products; bfloat16 rounds once more, to 2^-9.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 4e-3}


def operands(rows: int, columns: int, depth: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(rows * 7919 + columns * 31 + depth)
    return (
        torch.randn(rows, depth, generator=random).to(dtype),
        torch.randn(columns, depth, generator=random).to(dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_linear_matches_float64_and_rows_stand_alone(
    level: Library, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, weight = operands(*shape, dtype)
    out = linear(x, weight)
    expected = x.double() @ weight.double().T
    assert out.dtype == dtype
    assert out.shape == expected.shape
    if out.numel():
        assert (out.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()
    for row in range(0, shape[0], max(1, shape[0] // 5)):
        assert torch.equal(linear(x[row : row + 1], weight)[0], out[row])
    cut = shape[0] // 3
    assert torch.equal(torch.cat([linear(x[:cut], weight), linear(x[cut:], weight)]), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_linear_has_the_same_bits_for_every_thread_count(level: Library, dtype: torch.dtype) -> None:
    x, weight = operands(37, 300, 200, dtype)
    outs = []
    for threads in (1, 2, 3):
        with native.using(level.level, threads=threads):
            outs.append(linear(x, weight))
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@torch.no_grad()
def test_linear_takes_strided_weights_and_leading_dimensions(level: Library) -> None:
    x, weight = operands(12, 40, 48, torch.float32)
    wide = torch.cat([weight, weight], dim=1)
    assert torch.equal(linear(x.view(3, 4, 48), wide[:, :48]), linear(x, weight).view(3, 4, 40))
    # Columns that are not next to each other go to the reference.
    turned = weight.t().contiguous().t()
    torch.testing.assert_close(linear(x, turned), linear(x, weight))


@torch.no_grad()
def test_linear_keeps_infinities_and_nan_in_their_own_outputs(level: Library) -> None:
    x, weight = operands(33, 70, 50, torch.bfloat16)
    clean = linear(x, weight)
    x[5, 3], weight[9, 49] = torch.nan, torch.inf
    out = linear(x, weight)
    assert out[5].isnan().all()
    rest = torch.arange(33) != 5
    assert not out[rest][:, 9].isfinite().any()
    others = torch.arange(70) != 9
    assert torch.equal(out[rest][:, others], clean[rest][:, others])


@torch.no_grad()
def test_reference_and_float16_need_no_library() -> None:
    x, weight = operands(5, 6, 7, torch.float32)
    with native.using("reference"):
        torch.testing.assert_close(linear(x, weight), x @ weight.T)
    torch.testing.assert_close(linear(x.half(), weight.half()), (x @ weight.T).half(), rtol=1e-2, atol=1e-2)


def test_gradients_take_the_plain_road(library: Library) -> None:
    x, weight = operands(3, 4, 5, torch.float32)
    weight.requires_grad_()
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(4, 5))
