from __future__ import annotations

import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library
from llamakit.kernels.grouped import GroupedWeight, group, grouped_linear, unpack_grouped_rows
from llamakit.kernels.matmul import linear
from llamakit.kernels.packed import Bits, rotate

# rows, columns, depth
SHAPES = [
    (1, 64, 64),
    (1, 16, 96),
    (3, 100, 32),
    (7, 17, 3072),
    (33, 33, 160),
    (45, 64, 1024),
    (300, 40, 192),
    (0, 8, 32),
]
KINDS = [(4, False), (4, True), (8, False), (8, True)]


def weight(columns: int, depth: int, bits: Bits, minima: bool, *, rotation: int = 0, seed: int = 0) -> GroupedWeight:
    random = torch.Generator().manual_seed(seed)
    groups = depth // 32
    codes = torch.randint(0, 256, (columns, groups, 4 * bits), generator=random, dtype=torch.uint8)
    scales = (torch.randn(columns, groups, generator=random) * 0.02).half()
    scales[0, 0] = 3e-6  # below the normal halves
    least = (torch.randn(columns, groups, generator=random) * 0.05).half() if minima else None
    return group(codes, scales, least, rotation=rotation)


def float64_product(x: torch.Tensor, packed: GroupedWeight) -> torch.Tensor:
    """The product with activations rounded as the layout says, from the layout's words alone."""
    wide = rotate(x, packed.rotation) / packed.rotation**0.5 if packed.rotation else x.float()
    groups = wide.view(len(x), packed.depth // 32, 32)
    high = groups.abs().amax(-1, keepdim=True)
    codes = torch.where(high > 0, groups * (127 / high), 0).round()
    return (codes.double() * (high.double() / 127)).view(wide.shape) @ packed.values().double().T


@pytest.mark.parametrize(("bits", "minima"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_products_are_those_of_the_rounded_factors_on_every_level(
    level: Library, shape: tuple[int, int, int], bits: Bits, minima: bool
) -> None:
    rows, columns, depth = shape
    x = torch.randn(rows, depth, generator=torch.Generator().manual_seed(rows))
    packed = weight(columns, depth, bits, minima)
    out = grouped_linear(x, packed)
    exact = float64_product(x, packed)
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=2e-4)
    for threads in (1, 3):
        with native.using(level.level, threads=threads):
            assert torch.equal(grouped_linear(x, packed), out)
    for row in range(0, rows, max(1, rows // 7)):
        assert torch.equal(grouped_linear(x[row : row + 1], packed)[0], out[row])
    with native.using("reference"):
        torch.testing.assert_close(grouped_linear(x, packed).double(), exact, rtol=1e-5, atol=2e-4)
    torch.testing.assert_close(grouped_linear(x.bfloat16(), packed).double(), exact, rtol=2e-2, atol=1.0)


@pytest.mark.parametrize(("bits", "minima"), KINDS)
@torch.no_grad()
def test_tiles_find_the_bits_that_vector_units_find(library: Library, bits: Bits, minima: bool) -> None:
    if "amx" not in library.levels:
        pytest.skip("this processor or build has no level amx")
    for rows, columns, depth in ((24, 48, 32), (40, 17, 96), (700, 100, 544), (530, 272, 2080)):
        x, packed = torch.randn(rows, depth), weight(columns, depth, bits, minima, seed=rows)
        for dtype in (torch.float32, torch.bfloat16):
            with native.using("avx512vnni", threads=1):
                expected = grouped_linear(x.to(dtype), packed)
            for threads in (1, 2, 3):
                with native.using("amx", threads=threads):
                    assert torch.equal(grouped_linear(x.to(dtype), packed), expected)


@torch.no_grad()
def test_a_rotation_goes_before_the_rounding(level: Library) -> None:
    x = torch.randn(5, 64)
    x[:, 7] = 100.0
    packed = weight(48, 64, 4, False, rotation=64)
    torch.testing.assert_close(grouped_linear(x, packed).double(), float64_product(x, packed), rtol=1e-5, atol=1e-3)
    with native.using("reference"):
        torch.testing.assert_close(grouped_linear(x, packed).double(), float64_product(x, packed), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("bits", "minima"), KINDS)
@torch.no_grad()
def test_rows_are_the_numbers_they_stand_for(level: Library, bits: Bits, minima: bool) -> None:
    packed, ids = weight(37, 96, bits, minima), torch.tensor([[36, 0], [5, 5]])
    rows = unpack_grouped_rows(packed, ids, torch.float32)
    assert torch.equal(rows, packed.values(ids))
    assert torch.equal(unpack_grouped_rows(packed, ids, torch.bfloat16), rows.bfloat16())
    with native.using("reference"):
        assert torch.equal(unpack_grouped_rows(packed, ids, torch.float32), rows)
    for wrong in (-1, 37):
        with pytest.raises(IndexError, match="outside the 37"):
            unpack_grouped_rows(packed, torch.tensor([wrong]), torch.float32)


def test_values_follow_the_layout_by_hand() -> None:
    codes = torch.zeros(2, 1, 16, dtype=torch.uint8)
    codes[1, 0, 3] = 0xF1  # k = 3 holds 1, k = 19 holds 15
    scales = torch.tensor([[1.0], [0.5]]).half()
    values = group(codes, scales).values()
    assert values[0].tolist() == [-8.0] * 32
    assert (values[1, 3], values[1, 19], values[1, 4]) == (-3.5, 3.5, -4.0)
    assert group(codes, scales, torch.tensor([[0.0], [2.0]]).half()).values()[1, 3] == -1.5
    whole = torch.full((1, 1, 32), 128, dtype=torch.uint8)
    whole[0, 0, 31] = 0
    assert group(whole, scales[:1]).values()[0].tolist() == [0.0] * 31 + [-128.0]


@torch.no_grad()
def test_zeros_tiny_values_and_nan(level: Library) -> None:
    packed = weight(20, 64, 4, False)
    x = torch.randn(5, 64)
    clean = grouped_linear(x, packed)
    x[1], x[2, 7], x[3, 40], x[4] = 0.0, torch.nan, -torch.inf, 1e-38
    out = grouped_linear(x, packed)
    assert torch.equal(out[1], torch.zeros(20))
    assert out[2].isnan().all()
    assert out[3].isnan().all()
    assert (out[4].abs() < 1e-30).all()
    assert torch.equal(out[0], clean[0])


@torch.no_grad()
def test_it_is_a_weight_like_others(library: Library) -> None:
    packed, x = weight(24, 64, 4, True), torch.randn(2, 3, 64)
    assert torch.equal(linear(x, packed), grouped_linear(x, packed))
    again = pickle.loads(pickle.dumps(packed))
    assert torch.equal(grouped_linear(x, again), grouped_linear(x, packed))
    assert packed.num_bytes == 32 * 64 // 2 + 2 * 32 * 2 * 2
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert grouped_linear(mode.from_tensor(x), packed).shape == (2, 3, 24)


def test_wrong_sizes_are_refused() -> None:
    packed = weight(16, 64, 4, False)
    with pytest.raises(ValueError, match="depth 64 cannot take rows of 63"):
        grouped_linear(torch.randn(2, 63), packed)
    with pytest.raises(ValueError, match="wants"):
        GroupedWeight(packed.codes, packed.scales, None, 17, 64, 4)
    with pytest.raises(ValueError, match="whole groups of 32"):
        GroupedWeight(packed.codes, packed.scales, None, 16, 65, 4)
    with pytest.raises(ValueError, match="must be float16"):
        group(torch.zeros(1, 1, 16, dtype=torch.uint8), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="must be uint8"):
        group(torch.zeros(1, 1, 16), torch.zeros(1, 1).half())
