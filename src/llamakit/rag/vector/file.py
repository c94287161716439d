"""What the vectors of one local collection are kept in: rows that are only appended, found again by their slot.

Whoever opens one decides how it searches; `flat` is exact, others are faster on many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llamakit.rag.embed import Vectors

if TYPE_CHECKING:
    from llamakit.rag.vector.flat import Slots


class VectorFile(Protocol):
    """The vectors of one collection in one file; several processes may append to it and read it."""

    @property
    def path(self) -> Path:
        """Where it lies; removing the file removes all of it."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a row."""
        ...

    def append(self, vectors: Vectors) -> int:
        """Write rows durably; the slot of the first."""
        ...

    def search(self, query: Vectors, k: int, slots: Slots) -> list[tuple[int, float]]:
        """The `k` slots of highest dot product with `query` [D] among `slots`, best first."""
        ...

    def count(self) -> int:
        """Rows in the file, living or waste."""
        ...

    def rows(self, slots: Slots) -> Vectors:
        """A copy of these rows."""
        ...


OpenVectors = Callable[[Path, int], VectorFile]
"""Opens or makes the file at a path, for rows of so many numbers."""


def open_flat(path: Path, dimension: int) -> VectorFile:
    """Exact search by numpy, which is loaded now and not before."""
    from llamakit.rag.vector.flat import FlatVectors

    return FlatVectors(path, dimension)
