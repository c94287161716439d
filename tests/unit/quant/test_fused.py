from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.quant.stored import FORMS, store
from torch import Tensor, nn

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library
from llamakit.quant.convert import quantize
from llamakit.quant.fused import FusedLayer, fuse

SHAPES: list[dict[str, object]] = [{}, {"dim": 128, "ffn_dim": 320, "head_dim": 32, "num_kv_heads": 1}]


@pytest.fixture(params=native.LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[Library]:
    library = native.library()
    if library is None or request.param not in library.levels:
        pytest.skip(f"no compiled kernels of level {request.param} here")
    with native.using(request.param):
        yield library


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the fused halves that run from now on."""
    seen: list[int] = []
    library = native.library()
    assert library is not None
    run = library.feed_forward
    monkeypatch.setattr(library, "feed_forward", lambda *args: (seen.append(1), run(*args))[1])
    return seen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", [None, "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_fused_layers_have_the_bits_of_plain_ones(
    level: Library, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, scheme: str | None, shape: dict[str, object]
) -> None:
    plain = tiny_llama(dtype=dtype, sharpness=3.0, **shape)  # type: ignore[arg-type]
    if scheme:
        quantize(plain, scheme)
    fused = fuse(copy.deepcopy(plain))
    ids = torch.arange(66)[None] * 7 % 320
    seen = calls(monkeypatch)
    for count in (1, 3, 17, 33, 66):
        assert torch.equal(fused(ids[:, :count]), plain(ids[:, :count]))
    assert len(seen) == 2 * 5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_layers_over_stored_weights_are_fused_with_the_same_bits(
    level: Library, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, form: str
) -> None:
    plain = store(tiny_llama(dtype=dtype), form)
    fused = fuse(copy.deepcopy(plain))
    ids = torch.arange(66)[None] * 7 % 320
    seen = calls(monkeypatch)
    for count in (1, 3, 17, 33, 66):
        assert torch.equal(fused(ids[:, :count]), plain(ids[:, :count]))
    assert len(seen) == 2 * 5


@torch.no_grad()
def test_weights_of_two_kinds_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here")
    plain = tiny_llama()
    store(plain.get_submodule("model.layers.1.mlp"), "q8_0")
    q, ids = plain.get_submodule("model.layers.0.self_attn"), torch.arange(5)[None]
    quantize(q, "int8")
    q.k_proj = store(tiny_llama(), "q4_0").get_submodule("model.layers.0.self_attn.k_proj")  # type: ignore[assignment]
    fused = fuse(copy.deepcopy(plain))
    seen = calls(monkeypatch)
    assert torch.equal(fused(ids), plain(ids))
    assert len(seen) == 1  # the layer whose feed-forward matrices are of one kind, beside float projections


@torch.no_grad()
def test_names_and_parameters_stay() -> None:
    plain = tiny_llama()
    names = {name: parameter.data_ptr() for name, parameter in plain.named_parameters()}
    fused = fuse(plain)
    assert {name: parameter.data_ptr() for name, parameter in fused.named_parameters()} == names
    assert all(isinstance(layer, FusedLayer) for layer in fused.get_submodule("model.layers").children())
    assert fuse(fused) is fused
    assert all(not isinstance(layer._plain, FusedLayer) for layer in fused.model.layers)  # type: ignore[union-attr]


class Adapted(nn.Module):
    """A projection with something beside it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * 2


@torch.no_grad()
def test_an_adapter_put_in_later_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here")
    plain, ids = tiny_llama(), torch.arange(5)[None]
    fused = fuse(copy.deepcopy(plain))
    assert torch.equal(fused(ids), plain(ids))
    for model in (plain, fused):
        attention = model.get_submodule("model.layers.1.self_attn")
        attention.q_proj = Adapted(attention.q_proj)  # type: ignore[arg-type]
    seen = calls(monkeypatch)
    assert torch.equal(fused(ids), plain(ids))
    assert len(seen) == 1


@torch.no_grad()
def test_casts_and_copies_bring_their_own_weights() -> None:
    plain, ids = tiny_llama(), torch.arange(5)[None]
    fused = fuse(copy.deepcopy(plain))
    fused(ids)
    copied = copy.deepcopy(fused)
    assert torch.equal(fused.bfloat16()(ids), plain.bfloat16()(ids))
    assert torch.equal(copied.bfloat16()(ids), plain.bfloat16()(ids))


def test_gradients_take_the_plain_road() -> None:
    plain, ids = tiny_llama(), torch.arange(5)[None]
    fused = fuse(copy.deepcopy(plain))
    for model in (plain, fused):
        model(ids).sum().backward()
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)
