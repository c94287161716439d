import torch
from tests.tiny import tiny_config, tiny_llama

from llamakit.engine.cache import KvCache, count_blocks, token_bytes
from llamakit.engine.config import EngineConfig
from llamakit.kernels.int8_pool import Int8Pool


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


def test_keys_in_bytes_have_a_scale_a_head_and_are_copied_with_it():
    cache = make(torch.int8)
    for pool in (*cache.keys, *cache.values):
        assert isinstance(pool, Int8Pool)
        assert pool.codes.shape == (4, 8, 2, 16) and pool.scales.shape == (4, 8, 2)
        pool.codes[1], pool.scales[1] = 3, 0.5
    cache.copy_block(1, 3)
    assert all((pool.floats(torch.tensor([3])) == 1.5).all() for pool in (*cache.keys, *cache.values))


def test_a_budget_counts_the_scales():
    model = tiny_llama(dtype=torch.bfloat16)
    each = token_bytes(model.config, torch.int8)
    assert each == 2 * 2 * 2 * (16 + 4) < token_bytes(model.config, torch.bfloat16)
    assert count_blocks(EngineConfig(kv="int8", cache_bytes=each * 16 * 5), [model]) == 5


def test_a_large_cache_takes_memory_only_as_it_fills():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cache = make(num_blocks=200_000)
    assert cache.keys[0].nbytes > 50 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10
