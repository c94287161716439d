"""The safetensors container: a checked reader and a streaming writer; knows no model.

A file is a little-endian u64 header length, a JSON header (name -> dtype, shape, data_offsets, plus
string pairs under `__metadata__`) and the raw bytes. The reader demands what the format promises:
tensors lie one after another without hole, overlap or remainder.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from llamakit.checkpoints.checked_file import MAX_DIMS, MAX_HEADER_BYTES, MAX_TENSORS, CheckedFile, parse_json
from llamakit.checkpoints.stored import PLAIN, StoredTensor
from llamakit.core.errors import CheckpointError, UnsupportedFormat

_DTYPES = {encoding.name: dtype for dtype, encoding in PLAIN.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# The rest is known to the format, and a sign of a quantized or foreign checkpoint when a weight has it.
_SIZES = {name: dtype.itemsize for name, dtype in _DTYPES.items()} | {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8
}  # fmt: skip
_ALIGNMENT = 64
"""Bytes; the header is padded so that tensor data starts on a cache line."""


class SafetensorsFile:
    """An open file whose whole header has been checked; `tensors` maps names to places in it."""

    def __init__(self, path: Path) -> None:
        self._file = CheckedFile(path)
        try:
            self.tensors, self.metadata = _read_header(self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; mapped tensors stay valid."""
        self._file.close()


def _read_header(file: CheckedFile) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    (length,) = struct.unpack("<Q", file.read(0, 8, "the header length"))
    if length > MAX_HEADER_BYTES:
        file.fail(f"says its header has {length} bytes, at most {MAX_HEADER_BYTES} are read")
    header = parse_json(file.read(8, length, "the header"), file.path, "the header", file.allowance)
    if not isinstance(header, dict):
        file.fail("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        file.fail("__metadata__ in its header is not an object of strings")
    if len(header) > MAX_TENSORS:
        file.fail(f"lists {len(header)} tensors, at most {MAX_TENSORS} are read")
    file.allowance.spend(600 * len(header), "the header")
    start = 8 + length
    placed = [(*_check_entry(file, name, entry), name) for name, entry in header.items()]
    position = 0
    tensors: dict[str, StoredTensor] = {}
    for begin, end, shape, kind, name in sorted(placed, key=lambda entry: entry[:2]):
        if begin != position:
            file.fail(
                f"tensor {name[:200]!r} starts at data byte {begin}, wanted {position}: tensors overlap or leave a hole"
            )
        position = end
        if kind not in _DTYPES:
            raise UnsupportedFormat(
                f"{file.path}: tensor {name[:200]!r} has dtype {kind}; readable are {', '.join(_DTYPES)}. "
                "A quantized checkpoint has to be converted to one of these first"
            )
        tensors[name] = StoredTensor(file=file, offset=start + begin, shape=shape, encoding=PLAIN[_DTYPES[kind]])
    if start + position != file.size:
        file.fail(f"its tensors end at byte {start + position}, the file has {file.size}; it is truncated or damaged")
    return {name: tensors[name] for name in header}, metadata


def _check_entry(file: CheckedFile, name: str, entry: Any) -> tuple[int, int, tuple[int, ...], str]:
    label = f"tensor {name[:200]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        file.fail(f"{label} wants exactly dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or (itemsize := _SIZES.get(kind)) is None:
        file.fail(f"{label} has an unknown dtype")
    if not _are_naturals(shape) or len(shape) > MAX_DIMS or 0 in shape:
        file.fail(f"{label} wants a shape of at most {MAX_DIMS} positive sizes")
    if not _are_naturals(offsets) or len(offsets) != 2:
        file.fail(f"{label} wants two data_offsets, neither negative")
    begin, end = offsets
    if end - begin != math.prod(shape) * itemsize:
        file.fail(
            f"{label} of {kind} {shape} wants {math.prod(shape) * itemsize} bytes, its offsets hold {end - begin}"
        )
    if end > file.size:
        file.fail(f"{label} ends at data byte {end}, beyond the file's {file.size}; it is truncated or damaged")
    return begin, end, tuple(shape), kind


def _are_naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def write_safetensors(
    out: BinaryIO,
    layout: Sequence[tuple[str, tuple[int, ...], torch.dtype]],
    tensors: Iterable[Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a whole file: names, shapes and dtypes first, then `tensors` in the same order, one at a time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, shape, dtype in layout:
        if dtype not in _NAMES:
            raise CheckpointError(f"safetensors is written with {', '.join(_NAMES.values())}, tensor {name} is {dtype}")
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    out.write(struct.pack("<Q", len(text)))
    out.write(text)
    for (name, shape, dtype), tensor in zip(layout, tensors, strict=True):
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise AssertionError(f"{name}: announced {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")
        write_bytes(out, tensor)


def write_bytes(out: BinaryIO, tensor: Tensor) -> None:
    """The tensor's values as little-endian bytes, row by row."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    out.write(flat.view(torch.uint8).numpy().data)
