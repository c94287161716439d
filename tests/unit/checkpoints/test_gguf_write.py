from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import write_gguf

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints.gguf_file import GgufFile
from llamakit.checkpoints.gguf_recipes import QUANTIZATIONS, Quantization, tensor_type
from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.names import expected_shapes
from llamakit.core.errors import CheckpointError, ConfigError
from llamakit.core.model_config import ModelConfig

EIGHT_B = ModelConfig(
    vocab_size=128256, dim=4096, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, ffn_dim=14336
)
SEVENTY_B = ModelConfig(
    vocab_size=128256, dim=8192, num_layers=80, num_heads=64, num_kv_heads=8, head_dim=128, ffn_dim=28672
)


def _types(quantization: Quantization, config: ModelConfig) -> dict[str, str]:
    return {
        name: types.type_name(tensor_type(name, shape, quantization, config))
        for name, shape in expected_shapes(config).items()
    }


def _bits(quantization: Quantization, config: ModelConfig) -> float:
    total = 0
    for name, shape in expected_shapes(config).items():
        encoding = types.ENCODINGS[tensor_type(name, shape, quantization, config)]
        total += torch.Size(shape).numel() // encoding.block_values * encoding.block_bytes * 8
    return total / config.num_parameters


def test_the_mixed_recipe_gives_more_bits_where_they_count() -> None:
    found = _types("q4_k_m", EIGHT_B)
    assert found["lm_head.weight"] == "Q6_K" and found["model.embed_tokens.weight"] == "Q4_K"
    assert found["model.norm.weight"] == "F32"
    more = [i for i in range(32) if found[f"model.layers.{i}.self_attn.v_proj.weight"] == "Q6_K"]
    # The first and last eighth, and every third between.
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert more == [i for i in range(32) if found[f"model.layers.{i}.mlp.down_proj.weight"] == "Q6_K"]
    assert {found[f"model.layers.4.{name}.weight"] for name in ("self_attn.q_proj", "mlp.up_proj")} == {"Q4_K"}


def test_values_of_the_70b_are_raised() -> None:
    found = _types("q4_k_m", SEVENTY_B)
    assert {found[f"model.layers.{i}.self_attn.v_proj.weight"] for i in range(80)} == {"Q5_K", "Q6_K"}
    assert "Q5_K" not in _types("q4_k_m", EIGHT_B).values()


@pytest.mark.parametrize(("quantization", "bits"), [("q4_k_m", 4.89), ("q6_k", 6.56), ("q8_0", 8.5), ("bf16", 16)])
def test_sizes_are_the_published_ones(quantization: Quantization, bits: float) -> None:
    assert _bits(quantization, EIGHT_B) == pytest.approx(bits, abs=0.02)


def test_a_tied_table_is_stored_as_the_head_would_be() -> None:
    tied = replace(EIGHT_B, tie_embeddings=True)
    assert _types("q4_0", tied)["model.embed_tokens.weight"] == "Q6_K"
    assert _types("q8_0", tied)["model.embed_tokens.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("quantization", "columns", "wanted"),
    [
        ("q4_k_m", 96, "Q5_0"),
        ("q5_k_m", 96, "Q5_1"),
        ("q6_k", 96, "Q8_0"),
        ("q4_0", 96, "Q4_0"),
        ("q4_k_m", 40, "F16"),
        ("q8_0", 40, "F16"),
        ("q6_k", 512, "Q6_K"),
    ],
)
def test_rows_that_are_not_whole_blocks_fall_back(quantization: Quantization, columns: int, wanted: str) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    assert types.type_name(tensor_type(name, (64, columns), quantization, EIGHT_B)) == wanted


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_recipe_loads_here(quantization: Quantization, tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=False, dim=256, ffn_dim=288, head_dim=64)
    loaded = load_model(write_gguf(tmp_path / "x.gguf", model, quantization=quantization), dtype=torch.float32)
    assert loaded.metadata.quantization == quantization.upper()
    worst = {"f32": 0.0, "f16": 1e-3, "bf16": 1e-2, "q8_0": 0.02, "q6_k": 0.04, "q5_k_m": 0.08}.get(quantization, 0.15)
    for name, tensor in model.state_dict().items():
        error = (loaded.model.state_dict()[name] - tensor).norm() / tensor.norm()
        assert error <= worst, name


def test_a_quantized_source_may_be_written_again(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "a.gguf", tiny_llama(), quantization="q8_0")
    loaded = load_model(first, dtype=torch.float32)
    second = write_gguf(tmp_path / "b.gguf", loaded.model, quantization="q8_0")
    again = load_model(second, dtype=torch.float32)
    for name, tensor in loaded.model.state_dict().items():
        assert (again.model.state_dict()[name] - tensor).abs().max() <= 1e-3 * tensor.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_a_recipe_the_precision_stays(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_llama(dtype=dtype)
    loaded = load_model(write_gguf(tmp_path / "x.gguf", model))
    assert loaded.model.dtype == dtype
    assert torch.equal(loaded.model.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.up_proj.weight)


def test_data_lies_on_the_alignment(tmp_path: Path) -> None:
    with GgufFile(write_gguf(tmp_path / "x.gguf", tiny_llama(vocab_size=321), name="odd")) as file:
        assert all(tensor.offset % 32 == 0 for tensor in file.tensors.values())


@pytest.mark.parametrize(("quantization", "value"), [("f16", 1e6), ("q8_0", float("nan")), ("q4_k_m", float("inf"))])
def test_values_that_do_not_fit_name_their_tensor(quantization: Quantization, value: float, tmp_path: Path) -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = value
    with pytest.raises(CheckpointError, match=r"model.layers.1.mlp.up_proj.weight: values"):
        write_gguf(tmp_path / "x.gguf", model, quantization=quantization)
    assert not list(tmp_path.iterdir()), "nothing half-written stays"


def test_unknown_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no quantization 'q3_k'; known are f32, f16"):
        write_gguf(tmp_path / "x.gguf", tiny_llama(), quantization="q3_k")
