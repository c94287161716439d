from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import write_gguf, write_hf, write_meta

from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import CheckpointError


def _kind(path: Path) -> str:
    with open_checkpoint(path) as reader:
        return reader.kind


def test_the_kind_is_told_by_what_lies_there(tmp_path: Path) -> None:
    model = tiny_llama(tie_embeddings=False)
    write_hf(tmp_path / "a", model)
    write_meta(tmp_path / "b", model)
    (tmp_path / "c").mkdir()
    write_gguf(tmp_path / "c" / "any.gguf", model)
    assert [_kind(tmp_path / name) for name in "abc"] == ["hf", "meta", "gguf"]
    assert _kind(tmp_path / "a" / "model.safetensors") == "hf"
    assert _kind(tmp_path / "c" / "any.gguf") == "gguf"


def test_a_gguf_is_told_by_its_magic(tmp_path: Path) -> None:
    blob = tmp_path / "sha256-0123"
    write_gguf(tmp_path / "x.gguf", tiny_llama()).rename(blob)
    assert _kind(blob) == "gguf"


def test_a_hub_directory_with_both_layouts_is_hugging_face(tmp_path: Path) -> None:
    write_hf(tmp_path / "m", tiny_llama())
    write_meta(tmp_path / "m" / "original", tiny_llama())
    assert _kind(tmp_path / "m") == "hf"
    assert _kind(tmp_path / "m" / "original") == "meta"


def test_meta_names_in_safetensors(tmp_path: Path) -> None:
    import safetensors.torch
    from tests.unit.checkpoints.builders import meta_tensors

    model = tiny_llama(tie_embeddings=False)
    write_meta(tmp_path / "m", model)
    (tmp_path / "m" / "consolidated.00.pth").unlink()
    safetensors.torch.save_file(meta_tensors(model), tmp_path / "m" / "consolidated.safetensors")
    assert _kind(tmp_path / "m") == "meta"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found nothing"),
        (["README.md", "config.json"], "found README.md, config.json"),
        (["a.gguf", "b.gguf"], "name one of the GGUF files"),
        (["config.json", "pytorch_model.bin"], "is a pickle of code and is never read"),
        (["params.json"], "found params.json"),
        (["config.json", "a.safetensors", "b.safetensors"], "found a.safetensors, b.safetensors, config.json"),
        ([f"f{i:03}" for i in range(30)], "f019 and 10 more"),
    ],
)
def test_nothing_readable_says_what_was_looked_for_and_found(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "looked for config.json with *.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "no such file or directory; looked for"),
        ("notes.txt", "is neither a GGUF file nor a .safetensors file"),
        ("lonely.safetensors", "needs a config.json beside it"),
        ("consolidated.00.pth", "is one rank of a Meta checkpoint; open its directory"),
    ],
)
def test_a_file_that_is_no_checkpoint_gets_advice(name: str, message: str, tmp_path: Path) -> None:
    if name != "absent":
        (tmp_path / name).write_text("hello")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / name)
