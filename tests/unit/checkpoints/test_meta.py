from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import meta_params, meta_tensors, write_meta

from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.meta_config import config_from_meta, generation_of_meta
from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.core.model_config import RopeScaling

PATH = Path("m/params.json")
OLD = {"multiple_of": 256, "vocab_size": -1}
# params.json of the releases: (fields, rows of the embedding, tied) -> what must follow.
RELEASED: dict[str, tuple[dict[str, Any], int, bool, dict[str, Any]]] = {
    "llama-1-7b": (
        OLD | {"dim": 4096, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-6},
        32000,
        False,
        {"num_parameters": 6_738_415_616, "ffn_dim": 11008, "context_length": 2048, "num_kv_heads": 32},
    ),
    "llama-2-13b": (
        OLD | {"dim": 5120, "n_heads": 40, "n_layers": 40, "norm_eps": 1e-5},
        32000,
        False,
        {"num_parameters": 13_015_864_320, "ffn_dim": 13824, "context_length": 4096},
    ),
    "llama-2-70b": (
        {
            "dim": 8192,
            "n_heads": 64,
            "n_kv_heads": 8,
            "n_layers": 80,
            "norm_eps": 1e-5,
            "multiple_of": 4096,
            "ffn_dim_multiplier": 1.3,
            "vocab_size": -1,
        },
        32000,
        False,
        {"num_parameters": 68_976_648_192, "ffn_dim": 28672},
    ),
    "code-llama-34b": (
        OLD
        | {
            "dim": 8192,
            "n_heads": 64,
            "n_kv_heads": 8,
            "n_layers": 48,
            "norm_eps": 1e-5,
            "ffn_dim_multiplier": 1.0,
            "rope_theta": 1000000,
        },
        32000,
        False,
        {"num_parameters": 33_743_970_304, "ffn_dim": 22016, "context_length": 16384, "rope_theta": 1e6},
    ),
    "llama-3-8b": (
        {
            "dim": 4096,
            "n_layers": 32,
            "n_heads": 32,
            "n_kv_heads": 8,
            "vocab_size": 128256,
            "multiple_of": 1024,
            "ffn_dim_multiplier": 1.3,
            "norm_eps": 1e-05,
            "rope_theta": 500000.0,
        },
        128256,
        False,
        {"num_parameters": 8_030_261_248, "context_length": 8192, "rope_scaling": None},
    ),
    "llama-3.1-405b": (
        {
            "dim": 16384,
            "n_layers": 126,
            "n_heads": 128,
            "n_kv_heads": 8,
            "vocab_size": 128256,
            "multiple_of": 4096,
            "ffn_dim_multiplier": 1.2,
            "norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "use_scaled_rope": True,
        },
        128256,
        False,
        {
            "num_parameters": 405_853_388_800,
            "ffn_dim": 53248,
            "context_length": 131072,
            "rope_scaling": RopeScaling(factor=8.0),
        },
    ),
    "llama-3.2-1b": (
        {
            "dim": 2048,
            "n_layers": 16,
            "n_heads": 32,
            "n_kv_heads": 8,
            "vocab_size": 128256,
            "multiple_of": 256,
            "ffn_dim_multiplier": 1.5,
            "norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "use_scaled_rope": True,
        },
        128256,
        True,
        {"num_parameters": 1_235_814_400, "head_dim": 64, "rope_scaling": RopeScaling(factor=32.0)},
    ),
    "llama-3.2-3b": (
        {
            "dim": 3072,
            "n_layers": 28,
            "n_heads": 24,
            "n_kv_heads": 8,
            "vocab_size": 128256,
            "multiple_of": 256,
            "ffn_dim_multiplier": 1.0,
            "norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "use_scaled_rope": True,
        },
        128256,
        True,
        {"num_parameters": 3_212_749_824, "head_dim": 128, "rope_scaling": RopeScaling(factor=32.0)},
    ),
}


@pytest.mark.parametrize("release", RELEASED)
def test_released_params_give_the_published_shapes(release: str) -> None:
    values, vocab_size, tied, wanted = RELEASED[release]
    config = config_from_meta(values, PATH, vocab_size=vocab_size, tied=tied)
    found = {name: config.num_parameters if name == "num_parameters" else getattr(config, name) for name in wanted}
    assert found == wanted
    ids = generation_of_meta(config)
    assert ids.eos_ids == ((128001, 128008, 128009) if vocab_size == 128256 else (2,))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"vision_chunk_size": 448}, UnsupportedFormat, "no plain Llama has the field 'vision_chunk_size'"),
        ({"vocab_size": 7}, CheckpointError, "vocab_size must be 32000"),
        ({"n_heads": 31}, CheckpointError, "n_heads must be a divisor of dim"),
        ({"multiple_of": 0}, CheckpointError, "multiple_of must be a positive integer"),
        ({"ffn_dim_multiplier": 1e300}, CheckpointError, "ffn_dim_multiplier must be between"),
        ({"norm_eps": "x"}, CheckpointError, "norm_eps must be a finite number"),
        ({"use_scaled_rope": 1}, CheckpointError, "use_scaled_rope must be true or false"),
        ({"dim": None}, CheckpointError, "dim must be .* found nothing"),
    ],
)
def test_bad_params_are_refused_by_name(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    values = RELEASED["llama-1-7b"][0] | changes
    with pytest.raises(error, match=f"m/params.json: {message}"):
        config_from_meta(values, PATH, vocab_size=32000, tied=False)


@pytest.mark.parametrize(("ranks", "embedding_axis"), [(1, 0), (2, 0), (2, 1), (4, 1)])
def test_ranks_are_merged(ranks: int, embedding_axis: int, tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=False, num_kv_heads=4)
    write_meta(tmp_path / "m", model, ranks=ranks, embedding_axis=embedding_axis, vocab_size=-1)
    loaded = load_model(tmp_path / "m")
    assert loaded.kind == "meta" and loaded.config.vocab_size == 320
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_conversion_while_merging(tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=False)
    write_meta(tmp_path / "m", model, ranks=2)
    loaded = load_model(tmp_path / "m", dtype=torch.bfloat16)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor.bfloat16()), name


@pytest.mark.parametrize("told", [2, 4])
def test_repeated_key_heads_are_taken_once(told: int, tmp_path: Path) -> None:
    # Four ranks over two heads: params.json says either the heads or, as for 405B over 16, the ranks.
    model = tiny_llama(tie_embeddings=False, num_heads=4, num_kv_heads=2)
    write_meta(tmp_path / "m", model, ranks=4, kv_copies=2, n_kv_heads=told)
    loaded = load_model(tmp_path / "m")
    assert loaded.config.num_kv_heads == 2
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_repeated_heads_that_differ_are_refused(tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=False, num_heads=4, num_kv_heads=2)
    write_meta(tmp_path / "m", model, ranks=4, kv_copies=2)
    part = torch.load(tmp_path / "m" / "consolidated.01.pth", weights_only=True)
    part["layers.1.attention.wv.weight"][0, 0] += 1
    torch.save(part, tmp_path / "m" / "consolidated.01.pth")
    with pytest.raises(CheckpointError, match=r"v_proj.weight', but the copies differ"):
        load_model(tmp_path / "m")


def test_rotary_frequencies_are_left_out(tmp_path: Path) -> None:
    write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False), extra={"rope.freqs": torch.ones(8)})
    load_model(tmp_path / "m")


@pytest.mark.parametrize("stored", ["twice", "as one storage", "once"])
def test_a_tied_head_is_dropped(stored: str, tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=True)
    (tmp_path / "m").mkdir()
    tensors = meta_tensors(model)
    if stored != "once":
        table = tensors["tok_embeddings.weight"]
        tensors["output.weight"] = table.clone() if stored == "twice" else table
    torch.save(tensors, tmp_path / "m" / "consolidated.00.pth")
    (tmp_path / "m" / "params.json").write_text(json.dumps(meta_params(model.config)))
    loaded = load_model(tmp_path / "m")
    assert loaded.config.tie_embeddings and "lm_head.weight" not in loaded.model.state_dict()


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False), ranks=2)
    (tmp_path / "m" / "consolidated.00.pth").unlink()
    with pytest.raises(
        CheckpointError, match=r"wanted consolidated.00.pth and on without a gap, found consolidated.01"
    ):
        open_checkpoint(tmp_path / "m")


def test_ranks_of_two_models_are_refused(tmp_path: Path) -> None:
    write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False), ranks=2)
    write_meta(tmp_path / "other", tiny_llama(tie_embeddings=False, num_layers=1), ranks=2)
    (tmp_path / "other" / "consolidated.01.pth").rename(tmp_path / "m" / "consolidated.01.pth")
    with pytest.raises(CheckpointError, match=r"ranks 0 and 1 disagree about 9 tensors, first: 'layers.1.attention.wk"):
        open_checkpoint(tmp_path / "m")


def test_unknown_tensors_are_listed(tmp_path: Path) -> None:
    write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False), extra={"layers.0.attention.wq.scales": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"1 unexpected: layers.0.attention.wq.scales"):
        load_model(tmp_path / "m")


def test_a_single_rank_in_the_right_dtype_stays_in_the_file(tmp_path: Path) -> None:
    write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False))
    with open_checkpoint(tmp_path / "m") as reader:
        first, second = reader.tensor("model.norm.weight"), reader.tensor("model.norm.weight")
        assert first.data_ptr() == second.data_ptr()
