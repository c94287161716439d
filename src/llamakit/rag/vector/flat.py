"""Exact search over vectors in a memory-mapped file: every dot product, by numpy, nothing approximate.

The file is a header and rows of float32; a row's number is its slot. Rows are only appended, and are
on the disk before `append` returns, so a database that names a slot never names an empty one. Slots
nobody names are waste, gone with the next compaction. 100k x 384 takes about 9 ms on two cores, 11 on one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamakit.core.errors import StorageError, StorageFull
from llamakit.core.faults import fault
from llamakit.rag.embed import Vectors
from llamakit.storage.blobs import sync_folder

_HEADER = struct.Struct("<8sII")
_MAGIC = b"llamavec"
_VERSION = 1

_COPY_COST = 4
"""Times as long as its product that it takes to copy a row: where most rows are wanted, all are multiplied."""

Slots = NDArray[np.int64]
"""Row numbers, ascending."""


class FlatVectors:
    """The vectors of one collection in one file; several processes may append to it and read it."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension
        self._row = 4 * dimension
        self._view: Vectors = np.empty((0, dimension), np.float32)
        with self._opened(os.O_RDWR | os.O_CREAT) as descriptor:
            if os.fstat(descriptor).st_size == 0:
                os.pwrite(descriptor, _HEADER.pack(_MAGIC, _VERSION, dimension), 0)
                os.fsync(descriptor)
                sync_folder(path.parent)
            self._check(descriptor)

    def append(self, vectors: Vectors) -> int:
        """Write rows durably; the slot of the first."""
        data = np.ascontiguousarray(vectors, dtype="<f4")
        if data.ndim != 2 or data.shape[1] != self.dimension:
            raise ValueError(f"rows of {self.dimension} numbers were wanted, got shape {data.shape}")
        with self._opened(os.O_RDWR) as descriptor:
            # A kill in the middle of an append leaves part of a row, which the next one writes over.
            first = self._rows(descriptor)
            try:
                rest = memoryview(data.tobytes())
                at = _HEADER.size + first * self._row
                while rest:
                    written = os.pwrite(descriptor, rest, at)
                    rest, at = rest[written:], at + written
                fault("flat.before_sync")
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, _HEADER.size + first * self._row)
                raise StorageFull(f"no room for {len(data)} vectors: {error.strerror}; free some space") from error
        return first

    def search(self, query: Vectors, k: int, slots: Slots) -> list[tuple[int, float]]:
        """The `k` slots of highest dot product with `query` [D] among `slots`, best first."""
        if len(slots) == 0 or k <= 0:
            return []
        rows = self._mapped(int(slots[-1]) + 1)
        rows, query = rows[: slots[-1] + 1], query.astype(np.float32)
        if _COPY_COST * len(slots) > len(rows):
            scores = (rows @ query)[slots]
        else:
            scores = rows[slots] @ query
        k = min(k, len(slots))
        best = np.argpartition(-scores, k - 1)[:k]
        # Equal scores are ordered by slot, so that the same question has the same answer.
        best = best[np.lexsort((slots[best], -scores[best]))]
        return [(int(slots[n]), float(scores[n])) for n in best]

    def count(self) -> int:
        """Rows in the file, living or waste."""
        with open(self.path, "rb") as file:
            return self._rows(file.fileno())

    def rows(self, slots: Slots) -> Vectors:
        """A copy of these rows."""
        return np.array(self._mapped(int(slots[-1]) + 1)[slots]) if len(slots) else self._view[:0].copy()

    def _mapped(self, needed: int) -> Vectors:
        """A view of at least `needed` rows, mapped anew when the file has grown."""
        if len(self._view) < needed:
            with open(self.path, "rb") as file:
                rows = self._rows(file.fileno())
                if rows < needed:
                    raise StorageError(
                        f"{self.path} holds {rows} vectors where {needed} were written; restore a backup"
                    )
                mapped = mmap.mmap(file.fileno(), _HEADER.size + rows * self._row, access=mmap.ACCESS_READ)
            self._view = np.frombuffer(mapped, "<f4", rows * self.dimension, _HEADER.size).reshape(rows, -1)
        return self._view

    def _rows(self, descriptor: int) -> int:
        return (os.fstat(descriptor).st_size - _HEADER.size) // self._row

    def _check(self, descriptor: int) -> None:
        head = os.pread(descriptor, _HEADER.size, 0)
        if len(head) < _HEADER.size or _HEADER.unpack(head) != (_MAGIC, _VERSION, self.dimension):
            raise StorageError(f"{self.path} is not a file of vectors of {self.dimension} numbers; restore a backup")

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        """The file, with every other process's append kept out."""
        try:
            descriptor = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)
