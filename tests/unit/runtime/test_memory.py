"""Context and cache from the machine's memory: arithmetic with numbers in every refusal."""

from __future__ import annotations

import pytest
from tests.tiny import tiny_config

from llamakit.core.errors import ConfigError
from llamakit.runtime.memory import available_bytes, plan_cache

CONFIG = tiny_config(context_length=4096)
PER_TOKEN = CONFIG.kv_bytes_per_token(2)
GIB = 1 << 30


def test_there_is_some_memory_here() -> None:
    assert 0 < available_bytes() < 1 << 50


def test_a_roomy_machine_gives_the_models_own_context() -> None:
    plan = plan_cache(CONFIG, token_bytes=PER_TOKEN, available=8 * GIB)
    assert plan.context == 4096
    assert plan.cache_bytes == 65_536 * PER_TOKEN


def test_a_small_machine_shortens_the_context_to_what_fits() -> None:
    available = (512 << 20) + 2 * 1000 * PER_TOKEN
    plan = plan_cache(CONFIG, token_bytes=PER_TOKEN, available=available)
    assert plan.context == 1000
    assert plan.cache_bytes <= available


def test_an_explicit_context_that_does_not_fit_says_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"4000 tokens.*at most 1000 tokens"):
        plan_cache(CONFIG, token_bytes=PER_TOKEN, available=0, context=4000, cache_bytes=1000 * PER_TOKEN)


def test_no_room_at_all_is_an_error_not_a_toy() -> None:
    with pytest.raises(ConfigError, match="256 are the least"):
        plan_cache(CONFIG, token_bytes=PER_TOKEN, available=0)


def test_given_cache_bytes_are_taken_as_they_are() -> None:
    plan = plan_cache(CONFIG, token_bytes=PER_TOKEN, available=0, cache_bytes=5000 * PER_TOKEN)
    assert plan.cache_bytes == 5000 * PER_TOKEN
