"""The GGUF container, version 3: header, metadata pairs and tensor places, all checked; knows no model.

Counts and lengths are compared with the bytes that are left before anything is made of them. Arrays
stay bytes until somebody asks, so a header cannot blow up in memory by being read.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llamakit.checkpoints.checked_file import MAX_HEADER_BYTES, MAX_TENSORS, CheckedFile
from llamakit.checkpoints.gguf_blocks import ENCODINGS, type_name
from llamakit.checkpoints.stored import StoredTensor
from llamakit.core.errors import UnsupportedFormat

MAGIC: Final = b"GGUF"
VERSION: Final = 3
DEFAULT_ALIGNMENT: Final = 32
MAX_NAME_BYTES: Final = 64
"""Longest tensor name llama.cpp accepts, with its closing zero."""
SPLIT_COUNT: Final = "split.count"
STRING, ARRAY, BOOL = 8, 9, 7
FORMATS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"
}  # fmt: skip
_MAX_PAIRS = 65_536
_MAX_STRINGS = 1_000_000
"""Strings in one file at most; Llama 3 has 128,256 tokens and 280,147 merges."""
_MAX_ALIGNMENT = 65_536


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array that is still bytes."""

    file: CheckedFile
    kind: int
    count: int
    data: bytes

    def strings(self, what: str) -> list[str]:
        """The elements, which must be text."""
        if self.kind != STRING:
            self.file.fail(f"{what} must be an array of strings")
        self.file.allowance.spend(90 * self.count + 4 * len(self.data), what)
        values, position = [], 0
        try:
            for _ in range(self.count):
                start = position + 8
                position = start + int.from_bytes(self.data[position:start], "little")
                values.append(self.data[start:position].decode("utf-8"))
        except UnicodeDecodeError:
            self.file.fail(f"{what} has a string that is not UTF-8")
        return values

    def numbers(self, what: str) -> list[int] | list[float]:
        """The elements, which must be numbers."""
        if self.kind not in FORMATS or self.kind == BOOL:
            self.file.fail(f"{what} must be an array of numbers")
        self.file.allowance.spend(48 * self.count, what)
        return list(struct.unpack(f"<{self.count}{FORMATS[self.kind][1]}", self.data))


Value = str | int | float | bool | GgufArray


class GgufFile:
    """An open file whose whole header has been checked; `tensors` maps stored names to places in it."""

    def __init__(self, path: Path) -> None:
        self._file = CheckedFile(path)
        try:
            self.metadata, self.tensors = _Header(self._file).read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; mapped tensors stay valid."""
        self._file.close()


class _Header:
    """A cursor over the first bytes of the file."""

    def __init__(self, file: CheckedFile) -> None:
        self._file = file
        self._raw = file.read(0, min(file.size, MAX_HEADER_BYTES), "the header")
        self._position = 0
        self._strings_left = _MAX_STRINGS

    def read(self) -> tuple[dict[str, Value], dict[str, StoredTensor]]:
        num_tensors, num_pairs = self._counts()
        metadata: dict[str, Value] = {}
        for _ in range(num_pairs):
            self._file.allowance.spend(300, "the metadata")
            key = self._string("a metadata key")
            if key in metadata:
                self._file.fail(f"has the metadata key {key[:100]!r} twice")
            metadata[key] = self._value(self._number("<I", "a value type"), key)
        # The first of several files may hold the metadata alone.
        if not num_tensors and metadata.get(SPLIT_COUNT, 1) in (0, 1):
            self._file.fail("says it has 0 tensors")
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            self._file.fail(f"general.alignment must be a power of two from 8 to {_MAX_ALIGNMENT}")
        places = [self._tensor_info() for _ in range(num_tensors)]
        start = -(-self._position // alignment) * alignment
        return metadata, self._place(places, start, alignment)

    def _counts(self) -> tuple[int, int]:
        if self._take(4, "the magic") != MAGIC:
            self._file.fail("is not a GGUF file")
        version = self._number("<I", "the version")
        if version == int.from_bytes(struct.pack(">I", VERSION), "little"):
            raise UnsupportedFormat(f"{self._file.path}: is a big-endian GGUF, only little-endian ones are read")
        if version not in (2, VERSION):
            raise UnsupportedFormat(f"{self._file.path}: is GGUF version {version}, readable are 2 and 3")
        num_tensors, num_pairs = self._number("<Q", "the tensor count"), self._number("<Q", "the metadata count")
        if num_tensors > MAX_TENSORS or num_pairs > _MAX_PAIRS:
            self._file.fail(
                f"says it has {num_tensors} tensors and {num_pairs} metadata pairs; "
                f"wanted at most {MAX_TENSORS} and {_MAX_PAIRS}"
            )
        return num_tensors, num_pairs

    def _take(self, count: int, what: str) -> bytes:
        end = self._position + count
        if end > len(self._raw):
            beyond = "its header is longer than 16 MiB" if end <= self._file.size else "it is truncated or damaged"
            self._file.fail(f"{what} wants {count} bytes at {self._position}, which the header does not have; {beyond}")
        piece = self._raw[self._position : end]
        self._position = end
        return piece

    def _number(self, form: str, what: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form), what))[0]

    def _string(self, what: str) -> str:
        data = self._take(self._number("<Q", what), what)
        self._file.allowance.spend(80 + 5 * len(data), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._file.fail(f"{what} is not UTF-8")

    def _value(self, kind: int, key: str) -> Value:
        what = f"metadata {key[:100]!r}"
        if kind == STRING:
            return self._string(what)
        if kind == ARRAY:
            return self._array(what)
        if kind not in FORMATS:
            self._file.fail(f"{what} has the unknown value type {kind}")
        number = self._number(FORMATS[kind], what)
        if kind == BOOL and number not in (0, 1):
            self._file.fail(f"{what} must be true or false, found {number}")
        return bool(number) if kind == BOOL else number

    def _array(self, what: str) -> GgufArray:
        kind, count = self._number("<I", what), self._number("<Q", what)
        start = self._position
        if kind in FORMATS:
            self._take(count * struct.calcsize(FORMATS[kind]), what)
        elif kind == STRING:
            self._skip_strings(count, what)
        else:
            self._file.fail(f"{what} is an array of the value type {kind}, wanted numbers or strings")
        self._file.allowance.spend(self._position - start, what)
        return GgufArray(self._file, kind, count, self._raw[start : self._position])

    def _skip_strings(self, count: int, what: str) -> None:
        if count > self._strings_left:
            self._file.fail(f"{what} has {count} strings, more than the {_MAX_STRINGS} a file may have")
        self._strings_left -= count
        raw, position, end = self._raw, self._position, len(self._raw)
        for _ in range(count):
            position += 8 + int.from_bytes(raw[position : position + 8], "little")
            if position > end:
                self._take(position - self._position, what)
        self._position = position

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        self._file.allowance.spend(700, "the tensor list")
        length = self._number("<Q", "a tensor name")
        if not 0 < length < MAX_NAME_BYTES:
            self._file.fail(f"has a tensor name of {length} bytes, wanted 1 to {MAX_NAME_BYTES - 1}")
        name = self._take(length, "a tensor name").decode("utf-8", errors="backslashreplace")
        num_dims = self._number("<I", "a tensor's rank")
        if not 1 <= num_dims <= 4:
            self._file.fail(f"tensor {name!r} has {num_dims} dimensions, wanted 1 to 4")
        dims = [self._number("<Q", "a tensor's shape") for _ in range(num_dims)]
        kind, offset = self._number("<I", "a tensor's type"), self._number("<Q", "a tensor's offset")
        # The innermost dimension comes first in the file.
        return name, tuple(reversed(dims)), kind, offset

    def _place(
        self, places: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> dict[str, StoredTensor]:
        tensors: dict[str, StoredTensor] = {}
        for name, shape, kind, offset in places:
            label = f"tensor {name!r}"
            encoding = ENCODINGS.get(kind)
            if encoding is None:
                readable = ", ".join(known.name for known in ENCODINGS.values())
                raise UnsupportedFormat(
                    f"{self._file.path}: {label} has type {type_name(kind)}; readable are {readable}"
                )
            if 0 in shape or math.prod(shape) >= 2**63 or shape[-1] % encoding.block_values:
                self._file.fail(f"{label} has shape {list(shape)}, wanted rows of whole {encoding.name} blocks")
            if offset % alignment:
                self._file.fail(f"{label} starts at {offset}, which is not a multiple of the alignment {alignment}")
            if name in tensors:
                self._file.fail(f"has {label} twice")
            tensors[name] = tensor = StoredTensor(
                file=self._file, offset=start + offset, shape=shape, encoding=encoding
            )
            self._file.check_range(tensor.offset, tensor.nbytes, label)
        end, previous = 0, ""
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
            if tensor.offset < end:
                self._file.fail(f"tensors {previous!r} and {name!r} overlap")
            end, previous = tensor.offset + tensor.nbytes, name
        return tensors
