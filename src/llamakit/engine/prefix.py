"""The prefix cache: a radix tree over token ids that all requests share.

Every edge spells the ids of one full block, so a path from a root spells a prompt's beginning and its
nodes name the blocks that hold the keys and values of it. Generated tokens enter like prompt tokens.
Every salt has a root of its own. Knows ids and block numbers; what a block holds is not its business.

Whoever holds a node's block holds the blocks of all nodes above it (`Scheduler` sees to that), which is
why the pool may evict idle blocks in its own order and always meets a leaf.
"""

from __future__ import annotations

from array import array

from llamakit.engine.blocks import BlockPool


class Node:
    """One cached block; `children` is keyed by the bytes of the next block's ids."""

    __slots__ = ("block", "children", "key", "parent")

    def __init__(self, parent: Node | None, key: bytes, block: int) -> None:
        self.parent = parent
        self.key = key
        self.block = block
        self.children: dict[bytes, Node] = {}


class PrefixTree:
    """Cached prefixes of whole blocks, by salt."""

    def __init__(self, pool: BlockPool, block_tokens: int) -> None:
        self._pool = pool
        self._block_tokens = block_tokens
        self._roots: dict[bytes, Node] = {}
        self._nodes: dict[int, Node] = {}
        self.epoch = 0
        """Counts `clear`; nodes of an earlier epoch are no longer in the tree."""
        pool.on_evict = self._remove

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, salt: bytes, tokens: array[int], limit: int) -> tuple[list[int], Node | None]:
        """Blocks that hold the longest cached beginning of `tokens[:limit]`, and its last node; changes nothing."""
        node = self._roots.get(salt)
        blocks: list[int] = []
        if node is None:
            return blocks, None
        size = self._block_tokens
        for start in range(0, limit - size + 1, size):
            child = node.children.get(tokens[start : start + size].tobytes())
            if child is None:
                break
            node = child
            blocks.append(node.block)
        return blocks, node if blocks else None

    def insert(self, salt: bytes, parent: Node | None, key: bytes, block: int) -> Node:
        """The node that continues `parent` (None: the salt's root) by `key`; new ones keep `block`.

        The node may name another block than `block`: equal content that was there first.
        """
        if parent is None:
            parent = self._roots.get(salt)
            if parent is None:
                parent = self._roots[salt] = Node(None, salt, -1)
        node = parent.children.get(key)
        if node is None:
            node = parent.children[key] = self._nodes[block] = Node(parent, key, block)
            self._pool.keep(block)
        return node

    def clear(self) -> None:
        """Forget everything; blocks in use stay with their holders."""
        for block in self._nodes:
            self._pool.forget(block)
        self._nodes = {}
        self._roots = {}
        self.epoch += 1

    def _remove(self, block: int) -> None:
        node = self._nodes.pop(block)
        parent = node.parent
        assert not node.children and parent is not None, block
        del parent.children[node.key]
        # A salt whose prefixes are all gone must not stay behind: salts can be many.
        if parent.parent is None and not parent.children:
            self._roots.pop(parent.key, None)
