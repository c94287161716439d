"""The vocabulary and merges of byte-level BPE as one flat piece of memory, searched where it lies.

Nothing is built when a table is opened, so a file of one can be mapped and used at once. Little endian throughout:
four counts (ids, tokens, merges, bytes of all tokens) of 8 bytes, then

    keys     u64[merges]    left id * 2^32 + right id, ascending
    ranks    u32[merges]    place of that merge in the list, best first
    joins    u32[merges]    id that the merge of a rank makes
    starts   u32[ids + 1]   where the bytes of an id begin
    hashes   u32[tokens]    CRC-32 of each token, ascending
    owners   u32[tokens]    id of that token
    bytes    of all ids, one after another

Knows neither files nor how text is split.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final
from zlib import crc32

from llamakit.core.errors import TokenizerError

NO_MERGE: Final = 2**32
"""Worse than every rank."""
_COUNTS = struct.Struct("<4Q")


class MergeTable:
    """Tokens by id, ids by token, merges by pair of ids."""

    def __init__(self, data: bytes | memoryview) -> None:
        """`data` is what `packed` made, and stays unchanged; TokenizerError where its counts do not fit its size."""
        view = memoryview(data)
        if sys.byteorder != "little" or len(view) < _COUNTS.size:
            raise TokenizerError(f"a merge table of {len(view)} bytes cannot be read here")
        ids, tokens, merges, text = _COUNTS.unpack_from(view)
        lengths = (8 * merges, 4 * merges, 4 * merges, 4 * (ids + 1), 4 * tokens, 4 * tokens, text)
        if sum(lengths) != len(view) - _COUNTS.size:
            raise TokenizerError(f"a merge table of {len(view)} bytes says that it has {_COUNTS.size + sum(lengths)}")
        parts, place = [], _COUNTS.size
        for length in lengths:
            parts.append(view[place : place + length])
            place += length
        self.data = view
        self.num_ids: int = ids
        self._keys = parts[0].cast("Q")
        self._ranks, self._joins, self._starts, self._hashes, self._owners = (part.cast("I") for part in parts[1:6])
        self._bytes = parts[6]

    def token(self, id: int) -> bytes:
        """Bytes of an id below `num_ids`; empty where no token has it."""
        return bytes(self._bytes[self._starts[id] : self._starts[id + 1]])

    def id_of(self, token: bytes) -> int | None:
        """The id of a token."""
        hashes, wanted = self._hashes, crc32(token)
        place = bisect_left(hashes, wanted)
        while place < len(hashes) and hashes[place] == wanted:
            if self.token(self._owners[place]) == token:
                return self._owners[place]
            place += 1
        return None

    def rank(self, left: int, right: int) -> int:
        """The place of a merge in the list, `NO_MERGE` where the two do not merge."""
        keys, wanted = self._keys, left << 32 | right
        place = bisect_left(keys, wanted)
        return self._ranks[place] if place < len(keys) and keys[place] == wanted else NO_MERGE

    def merge(self, ids: list[int]) -> list[int]:
        """`ids` after all merges, the best first and of equals the leftmost; the list is changed."""
        ranks = [self.rank(left, right) for left, right in pairwise(ids)]
        while ranks and (best := min(ranks)) < NO_MERGE:
            at = ranks.index(best)
            ids[at : at + 2] = [self._joins[best]]
            del ranks[at]
            if at < len(ranks):
                ranks[at] = self.rank(ids[at], ids[at + 1])
            if at:
                ranks[at - 1] = self.rank(ids[at - 1], ids[at])
        return ids

    def tokens(self) -> Iterator[tuple[bytes, int]]:
        """Every token with its id, by id."""
        for id in sorted(self._owners):
            yield self.token(id), id

    def merges(self) -> Iterator[tuple[int, int]]:
        """The pairs of ids that merge, best first."""
        for _, key in sorted(zip(self._ranks, self._keys, strict=True)):
            yield key >> 32, key & 0xFFFFFFFF


def packed(tokens: Mapping[bytes, int], lefts: Sequence[int], rights: Sequence[int], joins: Sequence[int]) -> bytes:
    """The memory of a table; the merges are ids of left, right and what they make, best first.

    No two tokens share an id. Of a merge that is listed twice the later place counts.
    """
    import numpy as np  # Only who builds a table waits for it.

    pairs = np.array(lefts, np.uint64) << np.uint64(32) | np.array(rights, np.uint64)
    order = np.argsort(pairs, kind="stable")
    keys = pairs[order]
    is_last = np.append(keys[1:] != keys[:-1], True) if len(keys) else np.empty(0, bool)
    listed = order[is_last]
    used = np.sort(listed)
    by_id = {id: token for token, id in tokens.items()}
    num_ids = 1 + max(by_id, default=-1)
    ordered = [by_id.get(id, b"") for id in range(num_ids)]
    text = b"".join(ordered)
    starts = np.concatenate(([0], np.cumsum([len(token) for token in ordered], dtype=np.int64)))
    hashes = np.fromiter(map(crc32, tokens), np.uint32, len(tokens))
    owners = np.fromiter(tokens.values(), np.uint32, len(tokens))
    by_hash = np.lexsort((owners, hashes))
    columns = (
        keys[is_last],
        np.searchsorted(used, listed).astype(np.uint32),
        np.array(joins, np.uint32)[used],
        starts.astype(np.uint32),
        hashes[by_hash],
        owners[by_hash],
    )
    counts = _COUNTS.pack(num_ids, len(tokens), len(listed), len(text))
    return b"".join((counts, *(column.tobytes() for column in columns), text))
