from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_config, tiny_llama
from tests.unit.checkpoints.builders import write_gguf, write_hf, write_meta

from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.stored import TensorInfo
from llamakit.checkpoints.weights import check_weights, natural_dtype
from llamakit.core.errors import CheckpointError

WRITERS = {"hf": write_hf, "meta": write_meta, "gguf": lambda path, model: write_gguf(path / "x.gguf", model)}


def _write(kind: str, path: Path, dtype: torch.dtype) -> Path:
    path.mkdir(exist_ok=True)
    target = path / "m"
    target.mkdir(exist_ok=kind != "hf") if kind != "hf" else None
    return WRITERS[kind](target, tiny_llama(tie_embeddings=False, dtype=dtype))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", [None, torch.float32, torch.bfloat16])
def test_every_format_gives_the_same_model(
    kind: str, stored: torch.dtype, wanted: torch.dtype | None, tmp_path: Path
) -> None:
    model = tiny_llama(tie_embeddings=False, dtype=stored)
    loaded = load_model(_write(kind, tmp_path, stored), dtype=wanted)
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {wanted or stored}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor.to(wanted or stored)), name
    assert not loaded.model.training
    assert loaded.kind == kind


def test_a_loaded_model_may_be_trained_without_touching_its_file(tmp_path: Path) -> None:
    path = write_hf(tmp_path / "m", tiny_llama())
    before = (path / "model.safetensors").read_bytes()
    model = load_model(path).model
    model(torch.arange(8)[None]).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (path / "model.safetensors").read_bytes() == before
    assert not torch.equal(model.model.norm.weight, load_model(path).model.model.norm.weight)


def test_weights_outlive_the_reader_and_the_file(tmp_path: Path) -> None:
    path = write_hf(tmp_path / "m", tiny_llama())
    model = load_model(path).model
    wanted = tiny_llama()(torch.arange(8)[None])
    for file in path.iterdir():
        file.unlink()
    assert torch.equal(model(torch.arange(8)[None]), wanted)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    path = write_hf(tmp_path / "m", tiny_llama())
    seen: list[tuple[int, int]] = []
    load_model(path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(tensor.nbytes for tensor in tiny_llama().state_dict().values())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def _info(dtype: torch.dtype, encoding: str, nbytes: int) -> TensorInfo:
    return TensorInfo(shape=(2, 2), dtype=dtype, encoding=encoding, nbytes=nbytes)


def test_the_natural_dtype_is_that_of_most_weights() -> None:
    half, quantized = _info(torch.float16, "F16", 10), _info(torch.float32, "Q8_0", 10)
    assert natural_dtype({"a": half, "b": _info(torch.float32, "F32", 9)}) == torch.float16
    assert natural_dtype({"a": quantized, "b": _info(torch.float32, "F32", 9)}) == torch.bfloat16
    assert natural_dtype({"a": _info(torch.float64, "F64", 10)}) == torch.float32


def test_an_absurd_number_of_layers_is_refused_before_it_is_tried() -> None:
    with pytest.raises(CheckpointError, match="has 2147483647 layers of 9 tensors, but only 0 tensors are stored"):
        check_weights({}, tiny_config(num_layers=2**31 - 1), "x")


def test_a_long_list_of_strangers_is_counted() -> None:
    infos = {f"stranger{i}": _info(torch.float32, "F32", 16) for i in range(5000)}
    with pytest.raises(CheckpointError, match=r"5000 unexpected: stranger0, .* and 4800 more") as caught:
        check_weights(infos, tiny_config(), "x")
    assert len(str(caught.value)) < 20_000


_MEASURE = """
import resource, sys
import torch
from llamakit.checkpoints.load import load_model
torch.set_num_threads(1)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_model(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hf", "meta", "gguf", "q8_0"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_peak_memory_is_the_weights_and_a_little(kind: str, dtype: str, tmp_path: Path) -> None:
    model = tiny_llama(
        dtype=torch.bfloat16, tie_embeddings=False, dim=1024, ffn_dim=4096, head_dim=256, num_layers=6, vocab_size=32000
    )
    weights = model.config.num_parameters * getattr(torch, dtype).itemsize
    if kind == "hf":
        path = write_hf(tmp_path / "m", model)
    elif kind == "meta":
        path = write_meta(tmp_path / "m", model, ranks=2)
    else:
        path = write_gguf(tmp_path / "x.gguf", model, quantization="q8_0" if kind == "q8_0" else None)
    del model
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), dtype], capture_output=True, text=True, check=True, env=os.environ
    )
    assert int(run.stdout) * 1024 <= weights + 100 * 2**20
