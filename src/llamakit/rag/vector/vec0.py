"""Exact search inside SQLite by sqlite-vec, through apsw (extra `sqlite-vec`), which can load it where Python's
own sqlite3 cannot.

One file a collection, a row's id is its slot plus one. A commit is on the disk before it returns.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np

from llamakit.core.errors import MissingExtra, StorageError, StorageFull
from llamakit.rag.embed import Vectors
from llamakit.rag.vector.flat import Slots

MAX_NEIGHBOURS = 4096
"""What sqlite-vec gives at most in one search."""
BUSY_MS = 10_000


class SqliteVectors:
    """The vectors of one collection in a SQLite file of their own."""

    def __init__(self, path: Path, dimension: int) -> None:
        try:
            import apsw
            import sqlite_vec
        except ImportError as error:
            raise MissingExtra("this provider needs apsw and sqlite-vec: pip install 'llamakit[sqlite-vec]'") from error
        self._apsw = apsw
        self._path = path
        self._dimension = dimension
        self._lock = threading.Lock()
        try:
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(BUSY_MS)
            self._connection.enable_load_extension(True)
            self._connection.load_extension(sqlite_vec.loadable_path())
            self._connection.enable_load_extension(False)
            # One file alone, so that removing it removes everything; a commit is synced twice.
            self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.execute("PRAGMA synchronous = EXTRA")
            self._connection.execute(
                f"CREATE VIRTUAL TABLE IF NOT EXISTS rows USING vec0 (vector float[{int(dimension)}] "
                "distance_metric=cosine)"
            )
        except apsw.Error as error:
            raise StorageError(f"{path} cannot be opened as vectors: {error}") from error

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    @property
    def dimension(self) -> int:
        """Numbers in a row."""
        return self._dimension

    def append(self, vectors: Vectors) -> int:
        """Write rows durably; the slot of the first."""
        data = np.ascontiguousarray(vectors, dtype="<f4")
        if data.ndim != 2 or data.shape[1] != self._dimension:
            raise ValueError(f"rows of {self._dimension} numbers were wanted, got shape {data.shape}")
        try:
            with self._lock:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    first = self._count()
                    self._connection.executemany(
                        "INSERT INTO rows (rowid, vector) VALUES (?, ?)",
                        ((first + 1 + n, row.tobytes()) for n, row in enumerate(data)),
                    )
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
        except self._apsw.FullError as error:
            raise StorageFull(f"no room for {len(data)} vectors; free some space") from error
        except self._apsw.Error as error:
            raise StorageError(f"{self._path} takes no vectors: {error}") from error
        return first

    def search(self, query: Vectors, k: int, slots: Slots) -> list[tuple[int, float]]:
        """The `k` slots of highest cosine among `slots`, best first; of equal ones the first made."""
        k = min(k, len(slots), MAX_NEIGHBOURS)
        if k <= 0:
            return []
        sql = (
            "SELECT rowid, distance FROM rows WHERE vector MATCH ? AND k = ? "
            "AND rowid IN (SELECT value FROM json_each(?))"
        )
        wanted = json.dumps((slots + 1).tolist())
        with self._lock:
            found = list(self._connection.execute(sql, (query.astype("<f4").tobytes(), k, wanted)))
        # The distance to a row that is all zero is none: its cosine counts as 0.
        scored = [(rowid - 1, 0.0 if distance is None else 1 - distance) for rowid, distance in found]
        return sorted(scored, key=lambda item: (-item[1], item[0]))

    def count(self) -> int:
        """Rows in the file, living or waste."""
        with self._lock:
            return self._count()

    def rows(self, slots: Slots) -> Vectors:
        """A copy of these rows."""
        sql = "SELECT rowid, vector FROM rows WHERE rowid IN (SELECT value FROM json_each(?))"
        with self._lock:
            found = dict(self._connection.execute(sql, (json.dumps((slots + 1).tolist()),)))
        if not len(slots):
            return np.empty((0, self._dimension), np.float32)
        return np.stack([np.frombuffer(found[int(slot) + 1], "<f4") for slot in slots])

    def _count(self) -> int:
        (count,) = self._connection.execute("SELECT coalesce(max(rowid), 0) FROM rows").fetchall()[0]
        assert isinstance(count, int), "a row id is a number"
        return count
