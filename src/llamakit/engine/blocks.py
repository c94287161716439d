"""Paged KV-cache blocks: who uses them, which may be taken, in what order.

Knows block ids and nothing else: the cache owns the memory, the prefix tree knows what is in it. A block
is free, used (somebody holds it) or idle (nobody does, but the prefix tree remembers its content).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable


class BlockPool:
    """Reference counts over `num_blocks` ids; idle blocks are evicted oldest first."""

    def __init__(self, num_blocks: int) -> None:
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks
        self._kept = bytearray(num_blocks)
        # Holders let go of a prefix from its end (`release`), and whoever holds a block holds all before it.
        # So a block always enters this order after everything that continues it: the oldest is a leaf.
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.generation = [0] * num_blocks
        """Counts how often each block was handed out; tells old content from new."""
        self.on_evict: Callable[[int], None] = lambda block: None
        """Called before an idle block is handed out again."""

    @property
    def num_blocks(self) -> int:
        """All blocks."""
        return len(self._references)

    @property
    def num_free(self) -> int:
        """Blocks without content."""
        return len(self._free)

    @property
    def num_idle(self) -> int:
        """Blocks that hold a cached prefix and may be evicted."""
        return len(self._idle)

    @property
    def num_used(self) -> int:
        """Blocks that somebody holds."""
        return len(self._references) - len(self._free) - len(self._idle)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out now."""
        return len(self._free) + len(self._idle)

    def references(self, block: int) -> int:
        """How many hold `block`."""
        return self._references[block]

    def allocate(self, count: int) -> list[int]:
        """Hand out `count` blocks, each held once; evicts idle ones when none is free."""
        assert count <= self.num_available, (count, self.num_free, self.num_idle)
        taken = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._idle.popitem(last=False)
                self.on_evict(block)
                self._kept[block] = False
            self._references[block] = 1
            self.generation[block] += 1
            taken.append(block)
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Hold blocks that are used or idle once more."""
        for block in blocks:
            if self._references[block] == 0:
                del self._idle[block]
            self._references[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Let go of the blocks of a prefix, given from its start; unheld ones become idle if kept, else free."""
        for block in reversed(list(blocks)):
            assert self._references[block] > 0, block
            self._references[block] -= 1
            if self._references[block] == 0:
                if self._kept[block]:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def keep(self, block: int) -> None:
        """Remember a used block's content beyond its last holder."""
        assert self._references[block] > 0, block
        self._kept[block] = True

    def forget(self, block: int) -> None:
        """Take back `keep`; an idle block becomes free."""
        self._kept[block] = False
        if block in self._idle:
            del self._idle[block]
            self._free.append(block)
