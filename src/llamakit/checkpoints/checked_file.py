"""A file of unknown honesty: every read is checked against its size, every parse against an allowance.

A header can claim anything. So nothing here allocates because a header says so: ranges are compared
with the real size first (Python integers do not overflow), and the objects a parser is about to make
are paid from an `Allowance` of file size + 16 MiB.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import platform
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from llamakit.core.errors import CheckpointError

MAX_HEADER_BYTES = 16 * 2**20
"""Longest header, index or pickle that is looked at."""
MAX_TENSORS = 100_000
MAX_DIMS = 8
MAX_CONFIG_BYTES = 2**20
"""Longest config.json or params.json; real ones have a few kilobytes."""
SLACK_BYTES = 16 * 2**20
CHUNK_BYTES = 4 * 2**20
"""Bytes converted at once."""

_SHRUNK = "became shorter while it was read"

# A copy-on-write map reserves memory for pages that are never written; without this flag a file larger
# than the machine's memory cannot be mapped. The constant reached Python's mmap in 3.13.
_COMMON_ABI = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if _COMMON_ABI else 0)


class Allowance:
    """Bytes that parsing one file may still allocate, by estimate: file size + 16 MiB at first."""

    def __init__(self, path: Path, file_bytes: int) -> None:
        self._path = path
        self._left = file_bytes + SLACK_BYTES

    def spend(self, num_bytes: int, what: str) -> None:
        """Pay before allocating; raises `CheckpointError` when the file asks for more than it is worth."""
        self._left -= num_bytes
        if self._left < 0:
            raise CheckpointError(
                f"{self._path}: reading {what} would take more memory than the file's size + 16 MiB; "
                "the header is damaged or hostile"
            )


class CheckedFile:
    """An open regular file with a fixed size; reads outside it raise instead of returning less."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Without O_NONBLOCK the open of a named pipe would wait for a writer for ever.
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error
        info = os.fstat(handle)
        self.size = info.st_size
        if not stat.S_ISREG(info.st_mode) or self.size == 0:
            os.close(handle)
            raise CheckpointError(f"{path}: is {'empty' if stat.S_ISREG(info.st_mode) else 'not a regular file'}")
        self._file = io.FileIO(handle, "r", closefd=True)
        self._map: mmap.mmap | None = None
        self.allowance = Allowance(path, self.size)

    def __enter__(self) -> CheckedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; tensors that were mapped from it stay valid."""
        self._file.close()
        # Tensors hold the map alive by themselves, so it must not be closed under them.
        self._map = None

    def fail(self, fault: str) -> NoReturn:
        """Raise `CheckpointError` with this file's name before `fault`."""
        raise CheckpointError(f"{self.path}: {fault}")

    def check_range(self, offset: int, length: int, what: str) -> None:
        """Raise unless `length` bytes at `offset` lie inside the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            self.fail(
                f"{what} wants bytes {offset} to {offset + length}, the file has {self.size}; "
                "it is truncated or damaged"
            )

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Exactly `length` bytes at `offset`; `what` names them in errors."""
        self.check_range(offset, length, what)
        self.allowance.spend(length, what)
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) != length:
            self.fail(_SHRUNK)
        return data

    def chunks(self, offset: int, length: int, step: int) -> Iterator[bytearray]:
        """The bytes of a checked range in pieces of `step`; the buffer is reused, so copy what must stay."""
        self.check_range(offset, length, "a tensor")
        buffer = bytearray(min(step, length))
        for start in range(offset, offset + length, step):
            count = min(step, offset + length - start)
            if count < len(buffer):
                buffer = bytearray(count)
            self._fill(memoryview(buffer), start)
            yield buffer

    def _fill(self, buffer: memoryview, offset: int) -> None:
        self._file.seek(offset)
        filled = 0
        while filled < len(buffer):
            count = self._file.readinto(buffer[filled:])
            if not count:
                self.fail(_SHRUNK)
            filled += count

    def map(self) -> mmap.mmap:
        """The whole file as copy-on-write memory: writable, and never written back."""
        if self._map is None:
            try:
                self._map = mmap.mmap(
                    self._file.fileno(),
                    self.size,
                    flags=mmap.MAP_PRIVATE | _NORESERVE,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
            except OSError as error:
                self.fail(f"cannot be mapped into memory: {error.strerror}")
        return self._map

    def release(self, offset: int, length: int) -> None:
        """Give whole pages of a range back to the system; they are read again when somebody looks."""
        if self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        count = (offset + length - start) // mmap.PAGESIZE * mmap.PAGESIZE
        if count > 0:
            self._map.madvise(mmap.MADV_DONTNEED, start, count)


def parse_json(raw: bytes, path: Path, what: str, allowance: Allowance) -> Any:
    """JSON from foreign bytes: UTF-8, no duplicate keys, no NaN, and paid from `allowance` before it is built."""
    # Each object, list or scalar needs at least one of these characters; the weights are CPython's
    # sizes of a small dict, a list, and a dict slot or list slot with its value.
    objects = 300 * raw.count(b"{") + 100 * raw.count(b"[") + 180 * raw.count(b":") + 72 * raw.count(b",")
    # One character beyond Latin-1 makes Python store a whole string with up to four bytes a character.
    text_bytes = len(raw) if raw.isascii() and b"\\u" not in raw else 4 * len(raw)
    allowance.spend(objects + 2 * text_bytes, what)
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise CheckpointError(f"{path}: {what} is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {what} is not valid JSON: {error}") from None


def read_json(path: Path, *, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in a small file; raises `CheckpointError` for anything else."""
    with CheckedFile(path) as file:
        if file.size > max_bytes:
            file.fail(f"has {file.size} bytes, at most {max_bytes} are read; it is not the JSON file it is named after")
        value = parse_json(file.read(0, file.size, "the file"), path, "the file", file.allowance)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: wanted a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:100]!r} appears twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
