"""Documents into rows of fixed lengths: full rows, short attention, no document cut.

Every document goes whole into the shortest row that holds it; what is left of longer rows is filled
with shorter documents (first fit, longest first). Documents in one row are numbered, so that attention
can keep them apart, and positions start at 0 in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llamakit.core.errors import ConfigError
from llamakit.data.conversations import Document


@dataclass(slots=True)
class Row:
    """One row of `length` places; the places after the last document are padding, document 0."""

    length: int
    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    """Number of the document at each place, from 1; 0 is padding."""
    positions: list[int] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Free places."""
        return self.length - len(self.ids)

    def append(self, document: Document) -> None:
        """Add a whole document; the caller has checked that there is room."""
        number = (self.documents[-1] if self.documents else 0) + 1
        self.ids += document.ids
        self.trained += document.trained
        self.documents += [number] * len(document.ids)
        self.positions += range(len(document.ids))

    def pad(self, pad_id: int) -> None:
        """Fill the rest of the row."""
        room = self.room
        self.ids += [pad_id] * room
        self.trained += [False] * room
        self.documents += [0] * room
        self.positions += [0] * room


def pack(documents: Sequence[Document], lengths: Sequence[int], pad_id: int) -> list[Row]:
    """Rows of the given lengths that hold every document once. ConfigError where one fits no row."""
    sizes = sorted(lengths)
    rows: list[Row] = []
    for document in sorted(documents, key=lambda one: -len(one.ids)):
        need = len(document.ids)
        row = next((row for row in rows if row.room >= need), None)
        if row is None:
            size = next((size for size in sizes if size >= need), None)
            if size is None:
                raise ConfigError(f"a document of {need} tokens fits no row; the longest has {sizes[-1]}")
            row = Row(length=size)
            rows.append(row)
        row.append(document)
    for row in rows:
        row.pad(pad_id)
    return rows
