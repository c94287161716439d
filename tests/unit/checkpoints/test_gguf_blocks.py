"""Blocks against the `gguf` package, which is independent of this project."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize as peer_dequantize
from gguf.quants import quantize as peer_quantize

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints.gguf_quantize import quantize
from llamakit.core.errors import CheckpointError

SIMPLE = [types.Q4_0, types.Q4_1, types.Q5_0, types.Q5_1, types.Q8_0]
SUPER = [types.Q4_K, types.Q5_K, types.Q6_K]
# Root-mean-square error over that of the values, for weights of a normal distribution.
WORST_ERROR = {
    types.Q4_0: 0.09, types.Q4_1: 0.08, types.Q5_0: 0.045, types.Q5_1: 0.04, types.Q8_0: 0.006,
    types.Q4_K: 0.072, types.Q5_K: 0.037, types.Q6_K: 0.019,
}  # fmt: skip


def _weights() -> torch.Tensor:
    values = torch.randn(64, 512, generator=torch.Generator().manual_seed(3)) * 0.02
    values[0] = 0
    values[1, :64] = 1e-9
    values[2] = values[2].abs()
    values[3] = -values[3].abs()
    values[4, 5] = 3.0
    values[5, :300] = 0.01
    return values


def _kind(kind: int) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType(kind)


@pytest.mark.parametrize("kind", SIMPLE + SUPER)
def test_any_bytes_decode_as_the_peer_decodes_them(kind: int) -> None:
    encoding = types.ENCODINGS[kind]
    blocks = torch.randint(
        256, (300, encoding.block_bytes), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with np.errstate(all="ignore"):
        theirs = peer_dequantize(blocks.numpy(), _kind(kind))
    assert np.array_equal(encoding.decode(blocks).numpy(), theirs, equal_nan=True)
    assert (encoding.block_values, encoding.block_bytes) == gguf.GGML_QUANT_SIZES[_kind(kind)]


@pytest.mark.parametrize("kind", SIMPLE)
def test_simple_types_encode_to_the_peers_bytes(kind: int) -> None:
    values = _weights()
    ours = quantize(values.view(-1, 32), kind)
    assert np.array_equal(ours.numpy().ravel(), peer_quantize(values.numpy(), _kind(kind)).ravel())


@pytest.mark.parametrize("kind", SIMPLE + SUPER)
def test_the_error_of_normal_weights_is_small(kind: int) -> None:
    values = torch.randn(200, 512, generator=torch.Generator().manual_seed(5)) * 0.02
    encoding = types.ENCODINGS[kind]
    decoded = encoding.decode(quantize(values.view(-1, encoding.block_values), kind)).view(values.shape)
    error = (decoded - values).square().mean().sqrt() / values.square().mean().sqrt()
    assert error < WORST_ERROR[kind]


@pytest.mark.parametrize("kind", SUPER)
def test_fitted_scales_beat_the_plain_ones(kind: int) -> None:
    # The plain scale spreads the codes over the range of each sub-block, as the simple types do.
    simple = {types.Q4_K: types.Q4_1, types.Q5_K: types.Q5_1, types.Q6_K: types.Q5_0}[kind]
    values = torch.randn(100, 512, generator=torch.Generator().manual_seed(6))
    errors = []
    for each in (kind, simple):
        encoding = types.ENCODINGS[each]
        decoded = encoding.decode(quantize(values.view(-1, encoding.block_values), each)).view(values.shape)
        errors.append((decoded - values).square().mean())
    assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", SIMPLE + SUPER)
def test_special_blocks_survive(kind: int) -> None:
    encoding = types.ENCODINGS[kind]
    values = _weights()
    decoded = encoding.decode(quantize(values.view(-1, encoding.block_values), kind)).view(values.shape)
    assert torch.isfinite(decoded).all()
    assert (decoded[0] == 0).all()
    assert (decoded[4, 5] - 3.0).abs() < 0.1
    # A constant run keeps its value to the precision of its scale.
    assert (decoded[5, :256] - 0.01).abs().max() < 0.002


@pytest.mark.parametrize("kind", SIMPLE + SUPER)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_values_that_cannot_be_stored_are_refused(kind: int, bad: float) -> None:
    values = torch.ones(1, 256)
    values[0, 3] = bad
    with pytest.raises(CheckpointError, match=r"finite|half precision"):
        quantize(values.view(-1, types.ENCODINGS[kind].block_values), kind)


@pytest.mark.parametrize("kind", SIMPLE + SUPER)
def test_encoding_what_was_decoded_changes_little(kind: int) -> None:
    encoding = types.ENCODINGS[kind]
    values = torch.randn(40, 256, generator=torch.Generator().manual_seed(8)).view(-1, encoding.block_values)
    once = encoding.decode(quantize(values, kind))
    twice = encoding.decode(quantize(once, kind))
    assert (twice - once).square().mean() <= (once - values).square().mean()
