"""LoRA adapters merge into the weights they were trained for, or change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import tiny_checkpoint, tiny_llama

from llamakit.checkpoints.adapter import add_adapter
from llamakit.checkpoints.convert import convert
from llamakit.checkpoints.load import STORED, load_model
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.kernels import native
from llamakit.models.llama import Llama, build
from llamakit.quant import convert as convert_module
from llamakit.quant.convert import quantize
from llamakit.quant.fused import fuse
from llamakit.quant.grouped import CorrectedLinear
from llamakit.quant.packed_file import load_packed, save_packed

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"
UP = "model.layers.1.mlp.up_proj"


def write_adapter(path: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    path.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "use_rslora": False}
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    save_file(tensors, path / "adapter_model.safetensors")
    return path


def pair(name: str, out_features: int, in_features: int, rank: int = 4) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(len(name))
    return {
        f"base_model.model.{name}.lora_A.weight": torch.randn(rank, in_features, generator=chance),
        f"base_model.model.{name}.lora_B.weight": torch.randn(out_features, rank, generator=chance),
    }


def packed_llama(folder: Path, scheme: str) -> Llama:
    if scheme == "q4_0":
        file = convert(tiny_checkpoint(folder / "source"), folder / "x.gguf", quantization=scheme).path
        return load_model(file, dtype=torch.bfloat16, scheme=STORED).model
    model = tiny_llama(0, dtype=torch.bfloat16)
    quantize(model, scheme)
    return model


@pytest.mark.parametrize(("config", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"lora_alpha": 4}, 1.0)])
def test_merging_adds_the_scaled_product(tmp_path: Path, config: dict, scale: float) -> None:
    model = tiny_llama(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    tensors = pair(Q, 64, 64) | pair(DOWN, 64, 96)
    assert add_adapter(model, write_adapter(tmp_path / "adapter", tensors, **config)) == 2
    for name, weight in model.named_parameters():
        expected = before[name]
        stem = name.removesuffix(".weight")
        if stem in (Q, DOWN):
            a, b = (tensors[f"base_model.model.{stem}.lora_{side}.weight"] for side in "AB")
            expected = expected + scale * (b @ a)
        torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("scheme", ["int4", "int8", "q4_0"])
@torch.no_grad()
def test_beside_integers_it_adds_to_what_they_give(tmp_path: Path, scheme: str) -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here")
    model = packed_llama(tmp_path, scheme)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1)).to(model.dtype)
    before = {name: model.get_submodule(name) for name in (Q, UP)}
    plain = {name: module(x) for name, module in before.items()}
    ids = torch.arange(9)[None]
    untouched = model(ids)
    tensors = pair(Q, 64, 64) | pair(UP, 96, 64)
    once, twice = (write_adapter(tmp_path / name, tensors) for name in ("once", "twice"))
    assert add_adapter(model, once) == 2
    for name, module in before.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"].to(model.dtype) for side in "AB")
        changed = model.get_submodule(name)
        assert isinstance(changed, CorrectedLinear)
        assert changed.base is module
        torch.testing.assert_close(changed(x), plain[name] + 2.0 * (x @ a.T @ b.T), rtol=2e-2, atol=0.1)
    assert not torch.equal(model(ids), untouched)
    assert torch.equal(fuse(model)(ids)[:, :4], model(ids[:, :4]))
    add_adapter(model, twice)
    a, b = (tensors[f"base_model.model.{Q}.lora_{side}.weight"].to(model.dtype) for side in "AB")
    expected = plain[Q] + 4.0 * (x @ a.T @ b.T)
    torch.testing.assert_close(model.get_submodule(Q)(x), expected, rtol=2e-2, atol=0.2)


@pytest.mark.parametrize(("scheme", "large"), [("int8", 1 << 16), ("int4", 320), ("none", 1 << 16)])
@torch.no_grad()
def test_a_head_takes_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, large: int) -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here")
    monkeypatch.setattr(convert_module, "_LARGE", large)
    model = tiny_llama(0, dtype=torch.bfloat16, tie_embeddings=False)
    if scheme != "none":
        quantize(model, scheme)
    ids = torch.arange(9)[None]
    states, plain = model.states(ids), model(ids)
    tensors = pair("lm_head", 320, 64)
    assert add_adapter(model, write_adapter(tmp_path / "adapter", tensors)) == 1
    a, b = (tensors[f"base_model.model.lm_head.lora_{side}.weight"].to(model.dtype) for side in "AB")
    torch.testing.assert_close(model(ids), plain + (2.0 * (states @ a.T @ b.T)).float(), rtol=2e-2, atol=0.5)
    if scheme == "none":
        return
    save_packed(model, tmp_path / "model.packed", "here")
    again = build(model.config, device="meta", dtype=torch.bfloat16).eval()
    assert load_packed(again, tmp_path / "model.packed", "here")
    assert torch.equal(again(ids), model(ids))


def test_an_adapter_for_another_shape_of_packed_weights_changes_nothing(tmp_path: Path) -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here")
    model = packed_llama(tmp_path, "int8")
    tensors = pair(Q, 64, 32) | pair("model.embed_tokens", 320, 64)
    with pytest.raises(CheckpointError, match="embed_tokens that takes one"):
        add_adapter(model, write_adapter(tmp_path / "adapter", tensors))
    assert not any(isinstance(module, CorrectedLinear) for module in model.modules())


def test_an_adapter_for_another_shape_changes_nothing_and_lists_every_fault(tmp_path: Path) -> None:
    model = tiny_llama(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    lonely = {f"base_model.model.{DOWN}.lora_A.weight": torch.zeros(4, 96)}
    tensors = pair(Q, 64, 32) | pair("model.layers.9.mlp.up_proj", 96, 64) | lonely
    with pytest.raises(CheckpointError, match=r"no model\.layers\.9.*|.*lora_A|.*q_proj") as raised:
        add_adapter(model, write_adapter(tmp_path / "adapter", tensors))
    assert all(name in str(raised.value) for name in (Q, DOWN, "model.layers.9.mlp.up_proj"))
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("config", [{"peft_type": "IA3"}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_other_kinds_are_refused_by_name(tmp_path: Path, config: dict) -> None:
    with pytest.raises(
        UnsupportedFormat, match=next(iter(config.values())) if "peft_type" in config else next(iter(config))
    ):
        add_adapter(tiny_llama(0), write_adapter(tmp_path / "adapter", pair(Q, 64, 64), **config))


def test_foreign_tensors_are_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", {"something.else": torch.zeros(2, 2)})
    with pytest.raises(UnsupportedFormat, match=r"something\.else"):
        add_adapter(tiny_llama(0), adapter)
