from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import split_gguf, write_gguf

from llamakit.checkpoints.gguf_parts import open_parts
from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import CheckpointError


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model-Q8_0.gguf", tiny_llama(), quantization="q8_0")


@pytest.mark.parametrize("sizes", [(7, 8, 5), (0, 20), (19, 1)])
def test_parts_are_the_whole(whole: Path, sizes: tuple[int, ...]) -> None:
    parts = split_gguf(whole, *sizes)
    alone, together = load_model(whole), load_model(parts[0])
    assert together.config == alone.config and together.metadata == alone.metadata
    wanted = alone.model.state_dict()
    found = together.model.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_directory_of_parts_is_one_model(whole: Path) -> None:
    split_gguf(whole, 10, 10)
    whole.unlink()
    with open_checkpoint(whole.parent) as reader:
        assert reader.kind == "gguf" and len(reader.names()) == 20


def test_a_later_part_names_the_first(whole: Path) -> None:
    parts = split_gguf(whole, 10, 10)
    with pytest.raises(CheckpointError, match=r"is part 2 of 2; open the first one, model-Q8_0-00001-of-00002\.gguf"):
        open_checkpoint(parts[1])


def test_a_missing_part_is_named(whole: Path) -> None:
    parts = split_gguf(whole, 7, 7, 6)
    parts[1].unlink()
    whole.unlink()
    with pytest.raises(CheckpointError, match=r"1 of 3 parts are not beside it: model-Q8_0-00002-of-00003\.gguf"):
        open_parts(parts[0])
    with pytest.raises(CheckpointError, match=r"lacks model-Q8_0-00002-of-00003\.gguf"):
        open_checkpoint(whole.parent)


def test_a_part_under_another_name_is_refused(whole: Path) -> None:
    parts = split_gguf(whole, 10, 10)
    other = parts[0].rename(whole.with_name("renamed.gguf"))
    with pytest.raises(CheckpointError, match="its name does not say so; wanted a name like renamed-00001-of-0000N"):
        open_parts(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no": 0}, "split.no must be 1, found 0"),
        ({"count": 3}, "split.count must be 2, found 3"),
        ({"tensors": 19}, "split.tensors.count must be 20, found 19"),
    ],
)
def test_parts_that_contradict_each_other(whole: Path, changes: dict[str, int], message: str) -> None:
    parts = split_gguf(whole, 10, 10, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_parts(parts[0])


def test_a_tensor_in_two_parts(whole: Path) -> None:
    all_of_them = split_gguf(whole, 0, 20)[1].read_bytes()
    parts = split_gguf(whole, 10, 10)
    parts[1].write_bytes(all_of_them)
    with pytest.raises(CheckpointError, match="which an earlier part has, too"):
        open_parts(parts[0])


def test_tensors_are_counted(whole: Path) -> None:
    parts = split_gguf(whole, 10, 9)
    key = b"split.tensors.count\x05\0\0\0"
    for part in parts:
        raw = part.read_bytes()
        assert raw.count(key + b"\x13") == 1
        part.write_bytes(raw.replace(key + b"\x13", key + b"\x14"))
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count is 20, the 2 parts hold 19"):
        open_parts(parts[0])
