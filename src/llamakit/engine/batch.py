"""Tokens of many sequences, laid flat for one pass through a model.

Turns lists of ids into tensors and does nothing else: what to compute was decided before.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llamakit.kernels.attention import AttentionBatch


class Piece(NamedTuple):
    """Consecutive tokens of one sequence; keys and values before `start` are already in its blocks."""

    ids: Sequence[int]
    start: int
    blocks: array[int]


class Batch(NamedTuple):
    """One step's tokens on the model's device. N flat tokens."""

    ids_N: Tensor
    positions_N: Tensor
    slots_N: Tensor
    """Where each token's key and value go: block * block_tokens + offset."""
    attention: AttentionBatch
    max_position: int
    starts: list[int]
    """First flat token of each piece, and the number of all tokens."""


def build_batch(pieces: Sequence[Piece], block_tokens: int, device: torch.device) -> Batch:
    """Lay the pieces one after another, in order."""
    starts = [0]
    ends = []
    for ids, start, _ in pieces:
        starts.append(starts[-1] + len(ids))
        ends.append(start + len(ids))
    num_tokens = starts[-1]
    longest = max(ends)
    # Ids, positions and slots travel as one tensor: one copy to the device.
    flat = np.empty((3, num_tokens), dtype=np.int64)
    tables = np.zeros((len(pieces), -(-longest // block_tokens)), dtype=np.int64)
    for row, (ids, start, blocks) in enumerate(pieces):
        first, last = starts[row], starts[row + 1]
        used = blocks[: -(-ends[row] // block_tokens)]
        tables[row, : len(used)] = used
        if last - first == 1:
            flat[0, first] = ids[0]
            flat[1, first] = start
            flat[2, first] = used[-1] * block_tokens + start % block_tokens
        else:
            positions = np.arange(start, ends[row])
            flat[0, first:last] = ids
            flat[1, first:last] = positions
            flat[2, first:last] = tables[row, positions // block_tokens] * block_tokens + positions % block_tokens
    on_device = torch.from_numpy(flat).to(device)
    attention = AttentionBatch(starts, ends, torch.from_numpy(tables).to(device), block_tokens)
    return Batch(on_device[0], on_device[1], on_device[2], attention, longest - 1, starts)
