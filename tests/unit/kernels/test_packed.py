from __future__ import annotations

import pytest
import torch

from llamakit.core.errors import ConfigError
from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.matmul import linear
from llamakit.kernels.packed import Bits, PackedWeight, activations, pack, packed_linear, rotate, unpack_rows

# rows, columns, depth
SHAPES = [
    (1, 64, 64),
    (1, 16, 100),
    (3, 100, 96),
    (5, 16, 3072),
    (12, 7, 128),
    (20, 130, 70),
    (33, 33, 33),
    (45, 64, 1024),
    (700, 48, 192),
    (0, 8, 32),
]


def operands(rows: int, columns: int, depth: int, *, spread: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(rows * 7919 + columns * 31 + depth)
    x = torch.randn(rows, depth, generator=random)
    weight = torch.randn(columns, depth, generator=random)
    return x, weight * (spread * torch.randn(depth, generator=random)).exp()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_products_have_the_bits_of_the_reference_on_every_level(
    level: Library, shape: tuple[int, int, int], bits: Bits
) -> None:
    x, weight = operands(*shape)
    packed = pack(weight, bits)
    out = packed_linear(x, packed)
    with native.using("reference"):
        assert torch.equal(packed_linear(x, packed), out)
    for threads in (1, 3):
        with native.using(level.level, threads=threads):
            assert torch.equal(packed_linear(x, packed), out)
    for row in range(0, shape[0], max(1, shape[0] // 5)):
        assert torch.equal(packed_linear(x[row : row + 1], packed)[0], out[row])


@pytest.mark.parametrize("bits", [8, 4])
@torch.no_grad()
def test_products_are_those_of_the_rounded_factors_in_float64(library: Library, bits: Bits) -> None:
    x, weight = operands(19, 50, 320)
    packed = pack(weight, bits)
    codes, scales = activations(x, packed.rotation)
    exact = (codes.double() @ packed.whole_numbers.double().T) * packed.scales[:50].double() * scales.double()
    torch.testing.assert_close(packed_linear(x, packed).double(), exact, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(packed_linear(x.bfloat16(), packed).double(), exact, rtol=2e-2, atol=0.5)
    assert torch.equal(linear(x.view(1, 19, 320), packed), packed_linear(x, packed)[None])


@pytest.mark.parametrize(("bits", "most"), [(8, 1e-4), (4, 7.4e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_rounding_error_of_normal_weights(level: Library, bits: Bits, most: float, dtype: torch.dtype) -> None:
    # 7.4e-3 is what plain rounding to 4 bits with one float scale for 32 values reaches.
    _, weight = operands(1, 64, 1024)
    weight = weight.to(dtype)
    back = unpack_rows(pack(weight, bits), torch.arange(64), torch.float32)
    assert (back - weight.float()).square().sum() < most * weight.float().square().sum()


@torch.no_grad()
def test_rotation_keeps_outliers_from_spoiling_their_row(library: Library) -> None:
    _, weight = operands(1, 64, 1024, spread=1.0)
    every = torch.arange(64)

    def error(rotation: int | None) -> float:
        back = unpack_rows(pack(weight, 4, rotation=rotation), every, torch.float32)
        return float((back - weight).square().sum() / weight.square().sum())

    assert error(None) < 0.6 * error(0)


@pytest.mark.parametrize("bits", [8, 4])
@torch.no_grad()
def test_rows_come_back_the_same_from_kernel_and_reference(level: Library, bits: Bits) -> None:
    _, weight = operands(1, 37, 80)
    packed, ids = pack(weight, bits), torch.tensor([[36, 0], [5, 5]])
    rows = unpack_rows(packed, ids, torch.float32)
    assert rows.shape == (2, 2, 80)
    with native.using("reference"):
        torch.testing.assert_close(unpack_rows(packed, ids, torch.float32), rows)
    assert torch.equal(unpack_rows(packed, ids, torch.bfloat16), rows.bfloat16())
    for wrong in (-1, 37):
        with pytest.raises(IndexError, match="outside the 37"):
            unpack_rows(packed, torch.tensor([wrong]), torch.float32)


@pytest.mark.parametrize("bits", [8, 4])
@torch.no_grad()
def test_zeros_tiny_values_and_nan(level: Library, bits: Bits) -> None:
    x, weight = operands(6, 20, 64)
    weight[3] = 0.0
    weight[4] = 1e-38
    packed = pack(weight, bits)
    clean = packed_linear(x, packed)
    assert torch.equal(clean[:, 3], torch.zeros(6))
    x[1], x[2, 7], x[3, 9], x[4] = 0.0, torch.nan, -torch.inf, 1e-38
    out = packed_linear(x, packed)
    assert torch.equal(out[1], torch.zeros(20))
    assert out[2].isnan().all()
    assert out[3].isnan().all()
    assert (out[4].abs() < 1e-30).all()
    assert torch.equal(out[[0, 5]], clean[[0, 5]])


def test_rotation_is_hadamard(library: Library) -> None:
    x = torch.randn(3, 64)
    matrix = torch.ones(1, 1)
    for _ in range(4):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    torch.testing.assert_close(rotate(x, 16), (x.view(3, 4, 16) @ matrix).view(3, 64))


@torch.no_grad()
def test_wrong_sizes_are_refused(library: Library) -> None:
    packed = pack(torch.randn(16, 64), 8)
    with pytest.raises(ValueError, match="depth 64 cannot take rows of 63"):
        packed_linear(torch.randn(2, 63), packed)
    with pytest.raises(ValueError, match=r"a packed \[17, 64\] wants"):
        PackedWeight(packed.codes, None, packed.scales, 17, 64, 0)


def test_packing_without_kernels_says_what_to_do() -> None:
    with native.using("reference"), pytest.raises(ConfigError, match=r"llamakit\.kernels\.cpu\.build"):
        pack(torch.randn(4, 4), 8)
