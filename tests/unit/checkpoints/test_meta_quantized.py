"""Meta's quantized Llama 3.2 layouts, written here as published, against a forward pass of our own in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_config
from tests.unit.checkpoints.builders import QLORA, published, write_published

from llamakit.checkpoints.load import STORED, load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.core.model_config import ModelConfig
from llamakit.quant.grouped import CorrectedLinear, GroupedEmbedding, GroupedLinear
from llamakit.quant.packed_file import load_packed, save_packed

Tensors = dict[str, torch.Tensor]
SCHEME, LORA = QLORA["quantization_args"], QLORA["lora_args"]
CONFIG = tiny_config(dim=64, ffn_dim=128, head_dim=16, vocab_size=96, tie_embeddings=False)


def write(path: Path, tensors: Tensors, **params: Any) -> Path:
    return write_published(path, CONFIG, tensors, **params)


def reference(tensors: Tensors, ids: list[int], config: ModelConfig, *, spinquant: bool, scale: float) -> torch.Tensor:
    """Logits in float64 as Meta's own model computes them, apart from the rounding of activations."""
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def matrix(stem: str) -> torch.Tensor:
        codes, scales = t[f"{stem}.weight"], t[f"{stem}.scales"]
        return (codes.view(len(codes), scales.shape[1], -1) * scales[..., None]).view(codes.shape)

    def linear(stem: str, x: torch.Tensor) -> torch.Tensor:
        turned = x
        if spinquant and stem.endswith("w2"):
            hadamard = torch.ones(1, 1, dtype=torch.float64)
            while len(hadamard) < x.shape[-1]:
                hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), hadamard)
            turned = x @ hadamard / math.sqrt(x.shape[-1])
        out = turned @ matrix(stem).T
        if f"{stem}.adaptor.A.weight" in t:
            out = out + scale * (x @ t[f"{stem}.adaptor.A.weight"].T @ t[f"{stem}.adaptor.B.weight"].T)
        return out

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * gain

    n, d = len(ids), config.head_dim
    angles = torch.outer(torch.arange(n).double(), config.rope_theta ** (-torch.arange(0, d, 2).double() / d))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    def rope(x: torch.Tensor) -> torch.Tensor:  # neighbours are pairs, as Meta stores rows
        pairs = torch.view_as_complex(x.view(n, -1, d // 2, 2).contiguous())
        return torch.view_as_real(pairs * turn).view(n, -1, d)

    x = matrix("tok_embeddings")[ids]
    for layer in range(config.num_layers):
        stem = f"layers.{layer}"
        h = norm(x, t[f"{stem}.attention_norm.weight"])
        q, k, v = (linear(f"{stem}.attention.{name}", h) for name in ("wq", "wk", "wv"))
        q, k, v = rope(q), rope(k), v.view(n, -1, d)
        k, v = (y.repeat_interleave(config.num_heads // config.num_kv_heads, 1) for y in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(d)
        scores = scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", scores, v).reshape(n, -1)
        x = x + linear(f"{stem}.attention.wo", mixed)
        h = norm(x, t[f"{stem}.ffn_norm.weight"])
        gate = torch.nn.functional.silu(linear(f"{stem}.feed_forward.w1", h))
        x = x + linear(f"{stem}.feed_forward.w2", gate * linear(f"{stem}.feed_forward.w3", h))
    return norm(x, t["norm.weight"]) @ matrix("output").T


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "spinquant": ({"quantization_args": SCHEME | {"spinquant": True}}, 0),
    "qlora": ({"quantization_args": SCHEME, "lora_args": LORA}, 16),
    "plain": ({"quantization_args": SCHEME}, 0),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_are_those_of_the_reference(case: str, tmp_path: Path) -> None:
    params, rank = CASES[case]
    tensors = published(CONFIG, rank=rank)
    path, ids = write(tmp_path / "m", tensors, **params), [3, 14, 15, 92, 65, 35, 89, 79]
    expected = reference(tensors, ids, CONFIG, spinquant=case == "spinquant", scale=LORA["scale"])
    # As floats everything agrees; as stored, activations are rounded to 8 bits on the way.
    floats = load_model(path, dtype=torch.float32)
    torch.testing.assert_close(floats.model(torch.tensor([ids]))[0].double(), expected, rtol=1e-4, atol=1e-4)
    stored = load_model(path, dtype=torch.float32, scheme=STORED)
    out = stored.model(torch.tensor([ids]))[0].double()
    assert torch.cosine_similarity(out.flatten(), expected.flatten(), dim=0) > 0.9995
    assert (out - expected).norm() < 0.03 * expected.norm()
    down = stored.model.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(down, CorrectedLinear if rank else GroupedLinear)
    assert isinstance(stored.model.get_submodule("model.embed_tokens"), GroupedEmbedding)
    assert stored.config.context_length == 8192
    assert stored.metadata.quantization == {"spinquant": "INT4-SpinQuant", "qlora": "INT4-QLoRA"}.get(case, "INT4")


@torch.no_grad()
def test_the_numbers_are_exactly_those_of_the_file(tmp_path: Path) -> None:
    tensors = published(CONFIG)
    with open_checkpoint(write(tmp_path / "m", tensors, quantization_args=SCHEME)) as reader:
        assert reader.is_quantized()
        for name, stem in (("mlp.up_proj", "feed_forward.w3"), ("self_attn.v_proj", "attention.wv")):
            full = f"model.layers.1.{name}.weight"
            codes, scales = (tensors[f"layers.1.{stem}.{part}"].float() for part in ("weight", "scales"))
            wanted = codes * scales.repeat_interleave(32, 1)
            found = reader.matrix(full)
            assert found is not None
            assert torch.equal(found.weight.values(), wanted)  # bfloat16 scales are halves, too
            assert torch.equal(reader.tensor(full, torch.float32), wanted)
        q = reader.matrix("model.layers.0.self_attn.q_proj.weight")
        assert q is not None
        assert torch.equal(q.weight.values(), reader.tensor("model.layers.0.self_attn.q_proj.weight"))


@torch.no_grad()
def test_zeros_shift_the_integers(tmp_path: Path) -> None:
    tensors = published(CONFIG)
    scales = tensors["layers.0.feed_forward.w1.scales"]
    tensors["layers.0.feed_forward.w1.zeros"] = torch.randint(-3, 4, scales.shape).to(torch.int8)
    tensors["layers.1.feed_forward.w1.zeros"] = torch.zeros(scales.shape)
    with open_checkpoint(write(tmp_path / "m", tensors, quantization_args=SCHEME)) as reader:
        for layer, shifted in ((0, True), (1, False)):
            name = f"model.layers.{layer}.mlp.gate_proj.weight"
            found, plain = reader.matrix(name), reader.tensor(name)
            assert found is not None
            assert (found.weight.minima is not None) == shifted
            torch.testing.assert_close(found.weight.values(), plain, rtol=1e-3, atol=2e-4)


def test_a_tied_head_is_told_by_integers_and_scales(tmp_path: Path) -> None:
    tensors = published(CONFIG)
    tensors["output.weight"] = tensors["tok_embeddings.weight"].clone()
    with open_checkpoint(write(tmp_path / "a", tensors, quantization_args=SCHEME)) as reader:
        assert not reader.config().tie_embeddings
    tensors["output.scales"] = tensors["tok_embeddings.scales"].clone()
    with open_checkpoint(write(tmp_path / "b", tensors, quantization_args=SCHEME)) as reader:
        assert reader.config().tie_embeddings
        assert "lm_head.weight" not in reader.infos()


@torch.no_grad()
def test_corrections_survive_the_packed_file(tmp_path: Path) -> None:
    params, rank = CASES["qlora"]
    path, ids = write(tmp_path / "m", published(CONFIG, rank=rank), **params), torch.arange(9)[None]
    first = load_model(path, dtype=torch.bfloat16, scheme=STORED).model
    save_packed(first, tmp_path / "x.packed", "here")
    from llamakit.checkpoints.load import load_shape

    second = load_shape(path, dtype=torch.bfloat16).model
    assert load_packed(second, tmp_path / "x.packed", "here")
    assert torch.equal(second(ids), first(ids))


BAD: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
    ({}, {"quantization_args": {"scheme": "fp8"}}, UnsupportedFormat, "quantization_args.scheme must be"),
    ({}, {"quantization_args": 3}, CheckpointError, "must be an object"),
    ({}, {"quantization_args": SCHEME | {"group_size": 20}}, UnsupportedFormat, "a multiple of 32"),
    ({}, {"quantization_args": SCHEME | {"group_size": 96}}, CheckpointError, "whole groups of 96"),
    ({}, {"quantization_args": SCHEME | {"new": 1}}, UnsupportedFormat, "no plain Llama has the field 'new'"),
    ({}, {"quantization_args": SCHEME, "lora_args": LORA}, CheckpointError, "there is no .*adaptor.A.weight"),
    ({}, {"quantization_args": SCHEME, "lora_args": {"rank": 10**6, "scale": 1.0}}, CheckpointError, "at most 1024"),
    ({"layers.0.attention.wq.scales": None}, {"quantization_args": SCHEME}, CheckpointError, "no .*wq.scales"),
    ({"layers.0.attention.wq.scales": (64, 3)}, {"quantization_args": SCHEME}, CheckpointError, "wanted \\(64, 2\\)"),
    (
        {"layers.0.attention.wq.adaptor.A.weight": (4, 64)},
        {"quantization_args": SCHEME},
        CheckpointError,
        "wanted None",
    ),
    ({"tok_embeddings.scales": (95, 1)}, {"quantization_args": SCHEME}, CheckpointError, "tok_embeddings.scales"),
    ({"layers.0.attention.wq.weight": (48, 64)}, {"quantization_args": SCHEME}, CheckpointError, "wq.scales has shape"),
    ({}, {}, CheckpointError, "no quantization_args"),
]


@pytest.mark.parametrize(("changes", "params", "error", "message"), BAD)
def test_files_that_do_not_fit_are_refused(
    changes: dict[str, Any], params: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    tensors = published(CONFIG)
    for name, shape in changes.items():
        kind = torch.int8 if name.endswith("wq.weight") else torch.bfloat16
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = torch.ones(shape, dtype=kind)
    path = write(tmp_path / "m", tensors, **params)
    with pytest.raises(error, match=message):
        load_model(path, scheme=STORED)


def test_integers_beyond_four_bits_are_refused_when_read(tmp_path: Path) -> None:
    tensors = published(CONFIG)
    tensors["layers.0.attention.wq.weight"][5, 5] = 8
    with pytest.raises(CheckpointError, match=r"outside -8 \.\. 7"):
        load_model(write(tmp_path / "m", tensors, quantization_args=SCHEME), scheme=STORED)
