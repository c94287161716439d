from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_config, tiny_llama

from llamakit.core.errors import CheckpointError
from llamakit.kernels import native
from llamakit.kernels.table import TableWeight
from llamakit.models.llama import Llama, build
from llamakit.quant import convert
from llamakit.quant.convert import quantize
from llamakit.quant.fused import fuse
from llamakit.quant.packed_file import MAGIC, PackedFile, load_packed, save_packed, source_of


@pytest.fixture(autouse=True)
def kernels() -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")


def saved(tmp_path: Path, scheme: str = "int4", **changes: object) -> tuple[Llama, Path]:
    model = tiny_llama(dtype=torch.bfloat16, **changes)  # type: ignore[arg-type]
    quantize(model, scheme)
    path = tmp_path / "deep" / "model.packed"
    save_packed(model, path, "here")
    return model, path


def empty(**changes: object) -> Llama:
    return build(tiny_config(**changes), device="meta", dtype=torch.bfloat16).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", ["int8", "int4"])
@torch.no_grad()
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, scheme: str, tied: bool) -> None:
    model, path = saved(tmp_path, scheme, tie_embeddings=tied)
    again = empty(tie_embeddings=tied)
    assert load_packed(again, path, "here")
    ids = torch.arange(20)[None]
    assert torch.equal(again(ids), model(ids))
    assert torch.equal(fuse(copy.deepcopy(again))(ids), model(ids))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_two_pass_table_comes_back_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    monkeypatch.setattr(convert, "_LARGE", 320)
    model, path = saved(tmp_path, "int4", tie_embeddings=tied)
    again = empty(tie_embeddings=tied)
    assert load_packed(again, path, "here")
    ids = torch.arange(20)[None]
    assert torch.equal(again(ids), model(ids))
    name = "model.embed_tokens" if tied else "lm_head"
    file = PackedFile(path)
    assert (file.bits(name), file.shape(name)) == (8, (320, 64))
    assert file.num_bytes(name) == model.get_submodule(name).weight.num_bytes
    assert isinstance(file.matrix(name), TableWeight)


def test_other_sources_and_absent_files_are_not_used(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    assert not load_packed(empty(), path, "elsewhere")
    assert not load_packed(empty(), tmp_path / "nothing", "here")


def test_another_model_is_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not hold this model .*wanted"):
        load_packed(empty(ffn_dim=128), path, "here")
    with pytest.raises(CheckpointError, match="lacks lm_head"):
        load_packed(empty(tie_embeddings=False), path, "here")


def test_damage_is_named(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[len(MAGIC) : len(MAGIC) + 8], "little")
    header = json.loads(whole[len(MAGIC) + 8 : len(MAGIC) + 8 + length])

    def changed(**fields: object) -> bytes:
        text = json.dumps(header | {"tensors": [header["tensors"][0] | fields, *header["tensors"][1:]]}).encode()
        start = MAGIC + len(text).to_bytes(8, "little") + text
        return start + bytes(-len(start) % 64) + whole[-(-(len(MAGIC) + 8 + length) // 64) * 64 :]

    damaged = {
        "is not a packed model": b"something else entirely, and long enough",
        "damaged header": whole[: len(MAGIC) + 8] + b"x" * length,
        "ends after": whole[:-100],
        "leaves the file": changed(codes=1 << 40),
        "leaves the file ": changed(codes=-64),
        "wants": changed(codes_shape=[64]),
        "does not divide": changed(rotation=48),
        "a tensor of shape": changed(scales_shape=[-1]),
        "does not hold": changed(name="model.nothing"),
    }
    for message, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message.strip()):
            load_packed(empty(), path, "here")


def test_the_source_changes_with_files_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"1")
    first = source_of(tmp_path, "int4")
    assert source_of(tmp_path, "int4") == first
    assert source_of(tmp_path, "int8") != first
    assert source_of(file, "int4") != first
    os.utime(file, ns=(1, 1))
    assert source_of(tmp_path, "int4") != first
