from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_llama
from torch import nn

from llamakit.core.errors import ConfigError
from llamakit.kernels import native
from llamakit.kernels.table import TableWeight
from llamakit.quant import convert
from llamakit.quant.convert import quantize
from llamakit.quant.linear import QuantizedEmbedding, QuantizedLinear, TableHead


@pytest.fixture(autouse=True)
def kernels() -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("scheme", "close"), [("int8", 0.999), ("int4", 0.97)])
@torch.no_grad()
def test_a_quantized_llama_answers_nearly_the_same(scheme: str, close: float, tied: bool) -> None:
    ids = torch.arange(30)[None] * 7 % 320
    plain = tiny_llama(tie_embeddings=tied, sharpness=2.0)
    expected = plain(ids)
    seen: list[tuple[int, int]] = []
    model = quantize(plain, scheme, progress=lambda done, total: seen.append((done, total)))
    out = model(ids)
    assert torch.cosine_similarity(out.flatten(), expected.flatten(), dim=0) > close
    assert seen[-1] == (len(seen), len(seen))
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    table = model.get_submodule("model.embed_tokens")
    assert isinstance(layer, QuantizedLinear)
    assert isinstance(table, QuantizedEmbedding)
    assert (layer.weight.bits, table.weight.bits) == (int(scheme.removeprefix("int")), 8)
    assert all(parameter.ndim == 1 for parameter in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_large_vocabulary_is_scored_in_two_passes_at_four_bits(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    monkeypatch.setattr(convert, "_LARGE", 320)
    ids = torch.arange(30)[None] * 7 % 320
    plain = tiny_llama(tie_embeddings=tied, sharpness=2.0)
    expected = plain(ids)
    assert plain.config.vocab_size == 320
    model = quantize(plain, "int4")
    assert torch.cosine_similarity(model(ids).flatten(), expected.flatten(), dim=0) > 0.96
    embedding, head = model.get_submodule("model.embed_tokens"), model._modules.get("lm_head")
    assert isinstance(embedding, QuantizedEmbedding)
    assert isinstance(embedding.weight, TableWeight) is tied
    assert isinstance(head, TableHead) is not tied
    assert not any(isinstance(module, TableHead) for module in quantize(tiny_llama(), "int8").modules())


@torch.no_grad()
def test_any_module_and_its_biases() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Embedding(40, 64), nn.Linear(64, 24), nn.LayerNorm(24))
    ids = torch.tensor([[1, 39], [0, 7]])
    expected = plain(ids)
    out = quantize(plain, "int8")(ids)
    assert torch.cosine_similarity(out.flatten(), expected.flatten(), dim=0) > 0.9995
    assert isinstance(plain[1], QuantizedLinear)
    assert plain[1].bias is not None
    assert isinstance(plain[2], nn.LayerNorm)


def test_unknown_schemes_and_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match="wants one of int8, int4, got 'int44'; nearest: 'int4'"):
        quantize(nn.Linear(2, 2), "int44")
    with pytest.raises(ConfigError, match="on the CPU"):
        quantize(nn.Sequential(nn.Linear(2, 2, device="meta")), "int8")
