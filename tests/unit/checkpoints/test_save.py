from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_llama

from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.save import save_hf
from llamakit.checkpoints.staging import staged_directory, staged_file
from llamakit.core.errors import CheckpointError, ConfigError
from llamakit.core.faults import injected


def test_what_is_saved_says_everything(tmp_path: Path) -> None:
    model = tiny_llama(dtype=torch.bfloat16)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "unrelated.txt"):
        (source / name).write_text("{}")
    habits = Generation(bos_id=3, eos_ids=(1, 2), temperature=0.6, top_p=0.9)
    save_hf(model, model.config, tmp_path / "m", generation=habits, tokenizer=source)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    loaded = load_model(tmp_path / "m")
    assert (loaded.config, loaded.generation) == (model.config, habits)
    assert loaded.tokenizer_source == tmp_path / "m"
    assert json.loads((tmp_path / "m" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_tensors_may_be_converted_on_the_way(tmp_path: Path) -> None:
    model = tiny_llama()
    save_hf(model.state_dict(), model.config, tmp_path / "m", dtype=torch.float16)
    assert load_model(tmp_path / "m").model.dtype == torch.float16
    with pytest.raises(ConfigError, match=r"not torch.int8"):
        save_hf(model, model.config, tmp_path / "n", dtype=torch.int8)


def test_incomplete_weights_are_not_saved(tmp_path: Path) -> None:
    model = tiny_llama()
    tensors = model.state_dict()
    del tensors["model.norm.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: model.norm.weight"):
        save_hf(tensors, model.config, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_only_a_checkpoint_is_ever_replaced(tmp_path: Path) -> None:
    model = tiny_llama()
    save_hf(model, model.config, tmp_path / "m")
    with pytest.raises(ConfigError, match="exists; choose another name or force"):
        save_hf(model, model.config, tmp_path / "m")
    save_hf(tiny_llama(seed=1), model.config, tmp_path / "m", force=True)
    assert torch.equal(load_model(tmp_path / "m").model.model.norm.weight, tiny_llama(seed=1).model.norm.weight)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="exists; choose another name"):
        save_hf(model, model.config, tmp_path / "home", force=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_everything_as_it_was(force: bool, tmp_path: Path) -> None:
    target = tmp_path / "m"
    if force:
        target.mkdir()
        (target / "config.json").write_text("old")
    with pytest.raises(RuntimeError), staged_directory(target, force=force) as directory:
        (directory / "config.json").write_text("new")
        raise RuntimeError("the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == (["m"] if force else [])
    assert not force or (target / "config.json").read_text() == "old"


@pytest.mark.parametrize("moment", ["staging.before_rename", "staging.between_renames"])
def test_a_failure_at_the_last_moment_keeps_the_old_one(moment: str, tmp_path: Path) -> None:
    model = tiny_llama()
    save_hf(model, model.config, tmp_path / "m")

    def fail() -> None:
        raise OSError("no space left")

    with injected(moment, fail), pytest.raises(OSError, match="no space left"):
        save_hf(tiny_llama(seed=1), model.config, tmp_path / "m", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert torch.equal(load_model(tmp_path / "m").model.model.norm.weight, model.model.norm.weight)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    with pytest.raises(RuntimeError), staged_file(target) as out:
        out.write(b"half")
        raise RuntimeError("stopped")
    assert list(tmp_path.iterdir()) == []
    with staged_file(target) as out:
        out.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    with pytest.raises(ConfigError, match="exists"), staged_file(target):
        pass
    with staged_file(target, force=True) as out:
        out.write(b"again")
    assert target.read_bytes() == b"again"
    with pytest.raises(ConfigError, match=r"exists; choose another name$"), staged_file(tmp_path, force=True):
        pass
