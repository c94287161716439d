from array import array

from llamakit.engine.blocks import BlockPool
from llamakit.engine.prefix import PrefixTree

SIZE = 4


def ids(*tokens: int) -> array:
    return array("q", tokens)


def grow(tree: PrefixTree, pool: BlockPool, salt: bytes, tokens: array) -> list[int]:
    """Insert every full block of `tokens` as a sequence would that found nothing."""
    blocks, node = pool.allocate(len(tokens) // SIZE), None
    for index, block in enumerate(blocks):
        node = tree.insert(salt, node, tokens[index * SIZE : (index + 1) * SIZE].tobytes(), block)
    return blocks


def test_finds_the_longest_prefix_of_whole_blocks():
    pool = BlockPool(8)
    tree = PrefixTree(pool, SIZE)
    blocks = grow(tree, pool, b"", ids(*range(8)))
    found, node = tree.match(b"", ids(*range(8), 9, 9, 9, 9), 12)
    assert found == blocks and node is not None and node.block == blocks[-1]
    assert tree.match(b"", ids(0, 1, 2, 3, 4, 5, 6, 99), 8)[0] == blocks[:1]
    assert tree.match(b"", ids(1, 1, 2, 3), 4) == ([], None)


def test_the_limit_leaves_tokens_to_compute():
    pool = BlockPool(8)
    tree = PrefixTree(pool, SIZE)
    blocks = grow(tree, pool, b"", ids(*range(8)))
    assert tree.match(b"", ids(*range(8)), 7)[0] == blocks[:1]
    assert tree.match(b"", ids(*range(8)), 0) == ([], None)


def test_the_same_ids_elsewhere_in_a_text_do_not_match():
    pool = BlockPool(8)
    tree = PrefixTree(pool, SIZE)
    grow(tree, pool, b"", ids(1, 2, 3, 4, 5, 6, 7, 8))
    assert tree.match(b"", ids(5, 6, 7, 8), 4)[0] == []


def test_salts_do_not_see_each_other():
    pool = BlockPool(8)
    tree = PrefixTree(pool, SIZE)
    mine = grow(tree, pool, b"mine", ids(*range(4)))
    assert tree.match(b"yours", ids(*range(4)), 4)[0] == []
    yours = grow(tree, pool, b"yours", ids(*range(4)))
    assert tree.match(b"mine", ids(*range(4)), 4)[0] == mine != yours


def test_equal_content_keeps_the_block_that_was_first():
    pool = BlockPool(8)
    tree = PrefixTree(pool, SIZE)
    first = grow(tree, pool, b"", ids(*range(4)))
    (second,) = pool.allocate(1)
    assert tree.insert(b"", None, ids(*range(4)).tobytes(), second).block == first[0]
    pool.release([second])
    assert pool.num_free == 7


def test_eviction_removes_nodes_and_empty_salts():
    pool = BlockPool(2)
    tree = PrefixTree(pool, SIZE)
    blocks = grow(tree, pool, b"gone", ids(*range(8)))
    pool.release(blocks)
    taken = pool.allocate(1)
    assert taken == blocks[1:]
    assert tree.match(b"gone", ids(*range(8)), 8)[0] == blocks[:1]
    pool.allocate(1)
    assert len(tree) == 0 and tree._roots == {}


def test_clearing_forgets_what_is_idle_and_what_is_used():
    pool = BlockPool(4)
    tree = PrefixTree(pool, SIZE)
    idle = grow(tree, pool, b"", ids(*range(4)))
    used = grow(tree, pool, b"", ids(*range(4, 8)))
    pool.release(idle)
    tree.clear()
    assert tree.match(b"", ids(*range(4)), 4)[0] == []
    assert (pool.num_free, pool.num_used, pool.num_idle) == (3, 1, 0)
    pool.release(used)
    assert pool.num_free == 4


def test_a_very_long_prompt_needs_no_recursion():
    pool = BlockPool(20_000)
    tree = PrefixTree(pool, SIZE)
    tokens = array("q", range(80_000))
    blocks = grow(tree, pool, b"", tokens)
    assert tree.match(b"", tokens, len(tokens))[0] == blocks
    pool.release(blocks)
    pool.allocate(20_000)
    assert len(tree) == 0
