"""Norm, rotary positions and the gate: one row at a time, on every level."""

from __future__ import annotations

import pytest
import torch

from llamakit.kernels import native
from llamakit.kernels.activation import swiglu
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.norm import rms_norm
from llamakit.kernels.rope import RopeTable, inverse_frequencies, rotate

ROWS = [(1, 64), (3, 100), (40, 2048), (5, 7), (0, 16), (2, 9000)]
# One rounding of the answer, and one of the normalised value or the gate before it.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ROWS)
@torch.no_grad()
def test_rms_norm(level: Library, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = (torch.randn(shape) * 3).to(dtype), (torch.rand(shape[1]) + 0.5).to(dtype)
    wide = x.double()
    expected = wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    out = rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(out.double(), expected, rtol=TOLERANCE[dtype], atol=1e-6)
    for row in range(shape[0]):
        assert torch.equal(rms_norm(x[row], weight, 1e-5), out[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ROWS)
@torch.no_grad()
def test_swiglu(level: Library, shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate, up = (torch.randn(shape) * 8).to(dtype), torch.randn(shape).to(dtype)
    out = swiglu(gate, up)
    expected = gate.double() * torch.sigmoid(gate.double()) * up.double()
    torch.testing.assert_close(out.double(), expected, rtol=TOLERANCE[dtype] * 2, atol=1e-6)
    for threads in (1, 3):
        with native.using(level.level, threads=threads):
            assert torch.equal(swiglu(gate, up), out)


@torch.no_grad()
def test_swiglu_at_the_ends_of_the_exponential(level: Library) -> None:
    gate = torch.tensor([-1e4, -200.0, -88.5, 0.0, 88.5, 1e4, torch.inf, torch.nan])
    out = swiglu(gate, torch.ones(8))
    torch.testing.assert_close(out[3:7], torch.tensor([0.0, 88.5, 1e4, torch.inf]), rtol=1e-6, atol=0.0)
    assert (out[:3].abs() < 1e-33).all()
    assert out[7].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 4, 16), (9, 3, 20), (5, 2, 64), (0, 2, 8)])
@torch.no_grad()
def test_rotate_has_the_bits_of_the_reference(level: Library, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    angles = RopeTable(inverse_frequencies(shape[2], 10_000.0))(torch.arange(shape[0]) * 37)
    out = rotate(x, *angles)
    with native.using("reference"):
        assert torch.equal(rotate(x, *angles), out)
