"""LoRA adapters merge into the weights they were trained for, or change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import tiny_llama

from llamakit.checkpoints.adapter import merge_adapter
from llamakit.core.errors import CheckpointError, UnsupportedFormat

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"


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


@pytest.mark.parametrize(("config", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"lora_alpha": 4}, 1.0)])
def test_merging_adds_the_scaled_product(tmp_path: Path, config: dict, scale: float) -> None:
    model = tiny_llama(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    tensors = pair(Q, 64, 64) | pair(DOWN, 64, 96)
    assert merge_adapter(model, write_adapter(tmp_path / "adapter", tensors, **config)) == 2
    for name, weight in model.named_parameters():
        expected = before[name]
        stem = name.removesuffix(".weight")
        if stem in (Q, DOWN):
            a, b = (tensors[f"base_model.model.{stem}.lora_{side}.weight"] for side in "AB")
            expected = expected + scale * (b @ a)
        torch.testing.assert_close(weight.detach(), expected)


def test_an_adapter_for_another_shape_changes_nothing_and_lists_every_fault(tmp_path: Path) -> None:
    model = tiny_llama(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    lonely = {f"base_model.model.{DOWN}.lora_A.weight": torch.zeros(4, 96)}
    tensors = pair(Q, 64, 32) | pair("model.layers.9.mlp.up_proj", 96, 64) | lonely
    with pytest.raises(CheckpointError, match=r"no model\.layers\.9.*|.*lora_A|.*q_proj") as raised:
        merge_adapter(model, write_adapter(tmp_path / "adapter", tensors))
    assert all(name in str(raised.value) for name in (Q, DOWN, "model.layers.9.mlp.up_proj"))
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("config", [{"peft_type": "IA3"}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_other_kinds_are_refused_by_name(tmp_path: Path, config: dict) -> None:
    with pytest.raises(
        UnsupportedFormat, match=next(iter(config.values())) if "peft_type" in config else next(iter(config))
    ):
        merge_adapter(tiny_llama(0), write_adapter(tmp_path / "adapter", pair(Q, 64, 64), **config))


def test_foreign_tensors_are_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", {"something.else": torch.zeros(2, 2)})
    with pytest.raises(UnsupportedFormat, match=r"something\.else"):
        merge_adapter(tiny_llama(0), adapter)
