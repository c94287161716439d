from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_config, tiny_llama

from llamakit.checkpoints.load import Loaded
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.save import save_hf
from llamakit.kernels import native
from llamakit.quant.linear import QuantizedLinear
from llamakit.runtime import packing
from llamakit.runtime.packing import load_quantized, packed_path

BF16 = torch.bfloat16


def load(checkpoint: Path, scheme: str, dtype: torch.dtype) -> Loaded:
    with open_checkpoint(checkpoint) as reader:
        return load_quantized(reader, scheme, dtype)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if native.library() is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    path = tmp_path / "model"
    save_hf(tiny_llama(dtype=BF16), tiny_config(), path)
    return path


@torch.no_grad()
def test_the_second_start_maps_what_the_first_packed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.arange(9)[None]
    first = load(checkpoint, "int4", BF16)
    kept = packed_path(checkpoint, "int4", str(BF16))
    assert kept.is_file()
    monkeypatch.setattr(packing, "load_model", lambda *_, **__: pytest.fail("read the weights again"))
    second = load(checkpoint, "int4", BF16)
    assert isinstance(second.model.get_submodule("model.layers.0.mlp.up_proj"), QuantizedLinear)
    assert torch.equal(second.model(ids), first.model(ids))
    assert second.config == first.config


def test_a_changed_checkpoint_or_a_damaged_file_is_packed_again(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(checkpoint, "int8", BF16)
    kept = packed_path(checkpoint, "int8", str(BF16))
    first = kept.stat().st_mtime_ns
    save_hf(tiny_llama(seed=1, dtype=BF16), tiny_config(), checkpoint, force=True)
    load(checkpoint, "int8", BF16)
    assert kept.stat().st_mtime_ns > first
    kept.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        load(checkpoint, "int8", BF16)
    assert "packing again" in caplog.text
    assert kept.stat().st_size > 1000


def test_a_full_disk_costs_only_the_next_start(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "save_packed", full)
    assert load(checkpoint, "int8", BF16).model is not None
    assert "not kept for the next start" in caplog.text
