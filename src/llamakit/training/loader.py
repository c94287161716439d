"""Rows of ids become tensors here, and a stream of blocks becomes a stream of batches one can resume.

A `Cursor` names the next batch. Blocks are pure functions of their number, so a cursor is all the
state that reading data has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llamakit.data.packing import Row


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next batch to read."""

    block: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T places. `places_M` are flat places whose next token is the target `targets_M`."""

    ids_BT: Tensor
    positions_BT: Tensor
    documents_BT: Tensor
    places_M: Tensor
    targets_M: Tensor
    num_tokens: int
    """Places that are not padding."""


def make_batch(rows: Sequence[Row], *, all_tokens: bool) -> Batch:
    """Rows of one length as tensors; targets are the assistant's tokens, or every token of each document."""
    places: list[int] = []
    targets: list[int] = []
    length = rows[0].length
    for number, row in enumerate(rows):
        for at in range(1, length):
            inside = row.documents[at] != 0 and row.documents[at] == row.documents[at - 1]
            if inside and (all_tokens or row.trained[at]):
                places.append(number * length + at - 1)
                targets.append(row.ids[at])
    return Batch(
        ids_BT=torch.tensor([row.ids for row in rows]),
        positions_BT=torch.tensor([row.positions for row in rows]),
        documents_BT=torch.tensor([row.documents for row in rows]),
        places_M=torch.tensor(places, dtype=torch.int64),
        targets_M=torch.tensor(targets, dtype=torch.int64),
        num_tokens=sum(number != 0 for row in rows for number in row.documents),
    )


def batches(
    rows_of: Callable[[int], list[Row]],
    *,
    batch_tokens: int,
    seed: int,
    all_tokens: Callable[[Cursor], bool],
    start: Cursor = Cursor(),
) -> Iterator[tuple[Batch, Cursor]]:
    """Endless batches of `batch_tokens` places, each with the cursor of the one after it.

    Rows of one block are grouped by length and shuffled. A group that does not fill its last batch is
    repeated from its beginning, so that shapes never vary.
    """
    cursor = start
    while True:
        groups: dict[int, list[Row]] = {}
        for row in rows_of(cursor.block):
            groups.setdefault(row.length, []).append(row)
        shuffle = random.Random(f"{seed}:{cursor.block}")
        chunks: list[list[Row]] = []
        for length in sorted(groups):
            rows, size = groups[length], max(1, batch_tokens // length)
            shuffle.shuffle(rows)
            whole = list(rows)
            while len(rows) % size:
                rows += whole[: size - len(rows) % size]
            chunks += [rows[at : at + size] for at in range(0, len(rows), size)]
        shuffle.shuffle(chunks)
        for number in range(cursor.batch, len(chunks)):
            following = Cursor(cursor.block, number + 1)
            yield make_batch(chunks[number], all_tokens=all_tokens(Cursor(cursor.block, number))), following
        cursor = Cursor(cursor.block + 1)
