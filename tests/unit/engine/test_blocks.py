from array import array

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llamakit.engine.blocks import BlockPool
from llamakit.engine.prefix import PrefixTree

SIZE = 2


def test_allocates_free_blocks_before_evicting():
    pool = BlockPool(3)
    evicted: list[int] = []
    pool.on_evict = evicted.append
    first = pool.allocate(1)
    pool.keep(first[0])
    pool.release(first)
    assert (pool.num_free, pool.num_idle, pool.num_used) == (2, 1, 0)
    pool.allocate(2)
    assert evicted == []
    assert pool.allocate(1) == first
    assert evicted == first


def test_evicts_the_longest_idle_first_and_leaves_before_their_parents():
    pool = BlockPool(4)
    evicted: list[int] = []
    pool.on_evict = evicted.append
    old, new = pool.allocate(2), pool.allocate(2)
    for block in (*old, *new):
        pool.keep(block)
    pool.release(old)
    pool.release(new)
    pool.allocate(4)
    assert evicted == [old[1], old[0], new[1], new[0]]


def test_sharing_takes_a_block_out_of_the_eviction_order():
    pool = BlockPool(1)
    block = pool.allocate(1)
    pool.keep(block[0])
    pool.release(block)
    pool.share(block)
    assert (pool.num_idle, pool.num_used, pool.num_available) == (0, 1, 0)
    pool.release(block)
    assert pool.num_idle == 1


def test_generation_tells_old_content_from_new():
    pool = BlockPool(1)
    (block,) = pool.allocate(1)
    before = pool.generation[block]
    pool.release([block])
    pool.allocate(1)
    assert pool.generation[block] == before + 1


def test_forgetting_frees_an_idle_block_and_leaves_a_used_one_with_its_holder():
    pool = BlockPool(2)
    idle, used = pool.allocate(1), pool.allocate(1)
    for block in (*idle, *used):
        pool.keep(block)
    pool.release(idle)
    for block in (*idle, *used):
        pool.forget(block)
    assert (pool.num_free, pool.num_used) == (1, 1)
    pool.release(used)
    assert pool.num_free == 2


def test_asking_for_more_than_there_is_is_a_bug():
    with pytest.raises(AssertionError):
        BlockPool(1).allocate(2)


class Conservation(RuleBasedStateMachine):
    """Holders come and go as sequences do: match a prefix, add blocks, let the tree keep full ones, let go."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.tree = PrefixTree(self.pool, SIZE)
        self.holders: list[tuple[bytes, array, array]] = []
        self.epochs: list[int] = []

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        salt=st.sampled_from([b"", b"a"]),
        kept=st.integers(0, 6),
    )
    def begin(self, tokens: list[int], salt: bytes, kept: int) -> None:
        ids = array("q", tokens)
        blocks, node = self.tree.match(salt, ids, len(ids))
        self.pool.share(blocks)
        missing = -(-len(ids) // SIZE) - len(blocks)
        if missing > self.pool.num_available:
            self.pool.release(blocks)
            return
        own = array("q", blocks + self.pool.allocate(missing))
        for index in range(len(blocks), min(kept, len(ids) // SIZE)):
            node = self.tree.insert(salt, node, ids[index * SIZE : (index + 1) * SIZE].tobytes(), own[index])
            assert node.block == own[index]
        self.holders.append((salt, ids, own))
        self.epochs.append(self.tree.epoch)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.holders) - 1))
        self.pool.release(self.holders.pop(place)[2])
        self.epochs.pop(place)

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        assert self.pool.num_idle == 0 and len(self.tree) == 0

    @invariant()
    def every_block_is_in_one_state(self) -> None:
        pool = self.pool
        held = {block for _, _, blocks in self.holders for block in blocks}
        assert pool.num_free + pool.num_idle + pool.num_used == pool.num_blocks
        assert pool.num_used == len(held)
        for block in range(pool.num_blocks):
            assert pool.references(block) == sum(block in blocks for _, _, blocks in self.holders)

    @invariant()
    def a_block_shared_holds_one_text(self) -> None:
        texts: dict[int, tuple] = {}
        for salt, ids, blocks in self.holders:
            for index, block in enumerate(blocks):
                text = (salt, tuple(ids[: (index + 1) * SIZE]))
                assert texts.setdefault(block, text) == text

    @invariant()
    def whoever_holds_a_node_holds_its_path(self) -> None:
        for (salt, ids, blocks), epoch in zip(self.holders, self.epochs, strict=True):
            if epoch == self.tree.epoch:
                matched, _ = self.tree.match(salt, ids, len(ids))
                for index, block in enumerate(blocks):
                    if block in self.tree._nodes:
                        assert matched[: index + 1] == list(blocks[: index + 1])

    def teardown(self) -> None:
        for _, _, blocks in self.holders:
            self.pool.release(blocks)
        assert self.pool.num_used == 0
        self.tree.clear()
        assert self.pool.num_free == self.pool.num_blocks


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
