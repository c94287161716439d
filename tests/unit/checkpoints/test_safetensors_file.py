from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from llamakit.checkpoints.safetensors_file import SafetensorsFile, write_safetensors
from llamakit.core.errors import CheckpointError, UnsupportedFormat

TENSORS = {
    "b": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
    "a": torch.tensor([1.5, -2.0, 3.25]),
    "scalar": torch.tensor(7.0, dtype=torch.float16),
    "d": torch.ones(1, 2, 3, dtype=torch.float64),
}


def _file(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def _entry(begin: int, end: int, *, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def test_reads_what_the_reference_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"format": "pt"})
    with SafetensorsFile(path) as file:
        assert file.metadata == {"format": "pt"}
        assert set(file.tensors) == set(TENSORS)
        for name, tensor in TENSORS.items():
            loaded = file.tensors[name].load()
            assert loaded.dtype == tensor.dtype and torch.equal(loaded, tensor)


def test_the_reference_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    layout = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()]
    with path.open("wb") as out:
        write_safetensors(out, layout, TENSORS.values(), {"step": "3"})
    loaded = safetensors.torch.load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert (8 + length) % 64 == 0, "tensors start on a cache line"


def test_a_tensor_in_its_own_dtype_is_a_view_that_never_reaches_the_file(tmp_path: Path) -> None:
    header = json.dumps({"a": _entry(0, 16)}).encode()
    path = _file(tmp_path / "x.safetensors", header.ljust(64), struct.pack("<4f", 1, 2, 3, 4))
    before = path.read_bytes()
    with SafetensorsFile(path) as file:
        mapped = file.tensors["a"].load()
        assert mapped.data_ptr() == file.tensors["a"].load(torch.float32).data_ptr()
    mapped += 1
    assert mapped.tolist() == [2, 3, 4, 5]
    assert path.read_bytes() == before


def test_an_odd_header_length_is_read_by_copy(tmp_path: Path) -> None:
    # Files of other writers need not be aligned; torch would misread nothing, but must not be asked to.
    text = json.dumps({"a": _entry(0, 8)}).encode()
    for padding in range(8):
        path = _file(tmp_path / f"{padding}.safetensors", text + b" " * padding, struct.pack("<2f", 1.5, -2))
        with SafetensorsFile(path) as file:
            tensor = file.tensors["a"].load()
        assert tensor.tolist() == [1.5, -2] and tensor.data_ptr() % 4 == 0


def test_conversion_goes_by_pieces_and_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    wide = torch.randn(3000, 1100).half()
    safetensors.torch.save_file({"w": wide}, path)
    with SafetensorsFile(path) as file:
        assert torch.equal(file.tensors["w"].load(torch.float32), wide.float())


FAULTS: dict[str, tuple[Any, bytes, str]] = {
    "not json": (b"{", b"", "not valid JSON"),
    "a list": ([], b"", "not a JSON object"),
    "not utf-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', bytes(4), "appears twice"),
    "nan": (b'{"a":NaN}', b"", "NaN is not a JSON number"),
    "huge integer": (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4), "JSON"),
    "nested": (b"[" * 100_000, b"", "nested too deeply|not valid JSON"),
    "unknown field": ({"a": _entry(0, 4) | {"x": 1}}, bytes(4), "wants exactly dtype, shape and data_offsets"),
    "missing field": ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), "wants exactly"),
    "an entry that is a number": ({"a": 3}, b"", "wants exactly"),
    "unknown dtype": ({"a": _entry(0, 4, dtype="F99")}, bytes(4), "unknown dtype"),
    "dtype that is a list": ({"a": _entry(0, 4, dtype=["F32"])}, bytes(4), "unknown dtype"),
    "negative size": ({"a": _entry(0, 4, shape=[-1])}, bytes(4), "positive sizes"),
    "zero size": ({"a": _entry(0, 0, shape=[0])}, b"", "positive sizes"),
    "a size that is true": ({"a": _entry(0, 4, shape=[True])}, bytes(4), "positive sizes"),
    "a size that is 1.0": ({"a": _entry(0, 4, shape=[1.0])}, bytes(4), "positive sizes"),
    "a product beyond 64 bits": ({"a": _entry(0, 4, shape=[2**62, 2**62])}, bytes(4), "wants .* bytes"),
    "a product that wraps to 4": ({"a": _entry(0, 4, shape=[2**32, 2**32 + 1])}, bytes(4), "wants .* bytes"),
    "many dimensions": ({"a": _entry(0, 4, shape=[1] * 9)}, bytes(4), "at most 8"),
    "offsets backwards": ({"a": _entry(4, 0, shape=[1])}, bytes(4), "offsets hold -4"),
    "negative offset": ({"a": _entry(-4, 0, shape=[1])}, bytes(4), "neither negative"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(8), "two data_offsets"),
    "beyond the file": ({"a": _entry(0, 2**40)}, bytes(4), "beyond the file"),
    "overlap": ({"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12), "overlap or leave a hole"),
    "same place": ({"a": _entry(0, 4), "b": _entry(0, 4)}, bytes(4), "overlap or leave a hole"),
    "hole": ({"a": _entry(0, 4), "b": _entry(8, 12)}, bytes(12), "overlap or leave a hole"),
    "rest": ({"a": _entry(0, 4)}, bytes(8), "end at byte"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", "object of strings"),
    "metadata list": ({"__metadata__": []}, b"", "object of strings"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_file(fault: str, tmp_path: Path) -> None:
    header, data, message = FAULTS[fault]
    path = _file(tmp_path / "x.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        SafetensorsFile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [3, 10**6, 2**24 + 1, 2**63, 2**64 - 1])
def test_a_header_length_that_lies_is_refused(length: int, tmp_path: Path) -> None:
    path = _file(tmp_path / "x.safetensors", {"a": _entry(0, 4)}, bytes(4), length=length)
    with pytest.raises(CheckpointError):
        SafetensorsFile(path)


def test_quantized_tensors_are_named(tmp_path: Path) -> None:
    path = _file(tmp_path / "x.safetensors", {"w": _entry(0, 4, dtype="F8_E4M3", shape=[4])}, bytes(4))
    with pytest.raises(UnsupportedFormat, match="'w' has dtype F8_E4M3; readable are F64, F32, F16, BF16"):
        SafetensorsFile(path)


@pytest.mark.parametrize("kind", ["directory", "missing", "empty", "pipe"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"x.safetensors: (is|cannot)"):
        SafetensorsFile(path)
