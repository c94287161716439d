import torch
from tests.tiny import tiny_config

from llamakit.engine.cache import KvCache


def make(dtype: torch.dtype = torch.bfloat16, num_blocks: int = 4) -> KvCache:
    return KvCache(tiny_config(), num_blocks, 8, dtype=dtype, device=torch.device("cpu"))


def test_a_cache_has_a_pool_a_layer_and_starts_empty():
    cache = make()
    assert len(cache.keys) == len(cache.values) == 2
    for pool in (*cache.keys, *cache.values):
        assert pool.shape == (4, 8, 2, 16) and pool.dtype == torch.bfloat16
        assert not pool.any()


def test_copying_a_block_copies_it_in_every_layer():
    cache = make(torch.float32)
    for layer, pool in enumerate((*cache.keys, *cache.values)):
        pool[1] = layer + 1
    cache.copy_block(1, 3)
    for layer, pool in enumerate((*cache.keys, *cache.values)):
        assert (pool[3] == layer + 1).all() and not pool[2].any()


def test_a_large_cache_takes_memory_only_as_it_fills():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cache = make(num_blocks=200_000)
    assert cache.keys[0].nbytes > 50 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10
