from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import write_hf

from llamakit.checkpoints.hf import INDEX_NAME
from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import CheckpointError


def _rewrite(path: Path, change) -> None:
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    model = tiny_llama()
    write_hf(tmp_path / "m", model, max_shard_bytes=40_000)
    shards = sorted(path.name for path in (tmp_path / "m").glob("*.safetensors"))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    loaded = load_model(tmp_path / "m")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_one_file_with_its_config_beside_it(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama())
    assert load_model(tmp_path / "m" / "model.safetensors").kind == "hf"


def test_a_link_into_a_cache_is_followed(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama())
    (tmp_path / "blobs").mkdir()
    for file in list((tmp_path / "m").iterdir()):
        blob = tmp_path / "blobs" / f"sha-{file.name}"
        file.rename(blob)
        file.symlink_to(blob)
    assert load_model(tmp_path / "m").config.dim == 64


def test_old_rotary_buffers_are_left_out(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama())
    _rewrite(
        tmp_path / "m" / "model.safetensors",
        lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}),
    )
    with open_checkpoint(tmp_path / "m") as reader:
        assert not any("rotary" in name for name in reader.names())
    load_model(tmp_path / "m")


def test_a_second_copy_of_a_tied_head_must_be_equal(tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=True)
    write_hf(tmp_path / "m", model)
    path = tmp_path / "m" / "model.safetensors"
    _rewrite(path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    assert "lm_head.weight" not in load_model(tmp_path / "m").model.state_dict()
    _rewrite(path, lambda tensors: tensors["lm_head.weight"][319, 63].add_(1))
    with pytest.raises(CheckpointError, match=r"ties head and embedding, but lm_head.weight differs"):
        load_model(tmp_path / "m")


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama(num_layers=4))

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        for layer in (0, 1, 3):
            del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
        tensors["model.layers.7.mlp.up_proj.weight"] = torch.ones(2, 2)
        tensors["model.norm.weight"] = torch.ones(65)
        tensors["surprise"] = torch.ones(1)

    _rewrite(tmp_path / "m" / "model.safetensors", damage)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "m")
    message = str(caught.value)
    assert "3 missing: model.layers.{0-1,3}.mlp.up_proj.weight" in message
    assert "2 unexpected: " in message and "surprise" in message and "model.layers.{7}.mlp.up_proj.weight" in message
    assert "1 of the wrong shape: model.norm.weight wanted [64] found [65]" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "shard",
    ["../m.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "x.bin", "a\\b.safetensors", 3, None, ""],
)
def test_an_index_names_plain_files_only(shard: object, tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama(), max_shard_bytes=40_000)
    index = tmp_path / "m" / INDEX_NAME
    values = json.loads(index.read_text())
    values["weight_map"]["model.norm.weight"] = shard
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"weight_map must give plain \.safetensors names"):
        open_checkpoint(tmp_path / "m")


def test_an_index_and_its_shards_must_agree(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama(), max_shard_bytes=40_000)
    index = tmp_path / "m" / INDEX_NAME
    values = json.loads(index.read_text())
    values["weight_map"]["ghost"] = values["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="1 tensors are in no shard, first: ghost"):
        open_checkpoint(tmp_path / "m")
    (tmp_path / "m" / values["weight_map"]["model.norm.weight"]).unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        open_checkpoint(tmp_path / "m")


def test_two_shards_may_not_have_one_tensor(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama(), max_shard_bytes=40_000)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    _rewrite(shards[1], lambda tensors: tensors.update(safetensors.torch.load_file(shards[0])))
    with pytest.raises(CheckpointError, match="is in another shard too"):
        open_checkpoint(tmp_path / "m")


def test_the_chat_template_is_told_and_not_run(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama())
    with open_checkpoint(tmp_path / "m") as reader:
        assert reader.metadata().chat_template is None
    settings = tmp_path / "m" / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": "{{ ''.__class__ }}"}))
    with open_checkpoint(tmp_path / "m") as reader:
        assert reader.metadata().chat_template == "{{ ''.__class__ }}"
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ own }}")
    with open_checkpoint(tmp_path / "m") as reader:
        assert reader.metadata().chat_template == "{{ own }}"
        assert reader.tokenizer_source() is None


def test_the_tokenizer_lies_in_the_directory(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama())
    (tmp_path / "m" / "tokenizer.model").write_bytes(b"x")
    with open_checkpoint(tmp_path / "m") as reader:
        assert reader.tokenizer_source() == tmp_path / "m"
