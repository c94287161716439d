"""How much memory a model may take, and what context and cache that buys.

Reads the machine (and the container's limit) and does arithmetic; allocates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
_RESERVE = 512 << 20
"""Left to activations, the operating system and everybody else."""
_FULL_CONTEXTS = 4
"""More cache than this many full contexts (or `_MIN_TOKENS`) helps nobody by default."""
_MIN_TOKENS = 65_536


def available_bytes() -> int:
    """Memory that can be taken now without swapping, in bytes, inside the container's limit."""
    free = psutil.virtual_memory().available
    limit, used = _first_number(_CGROUP_LIMITS), _first_number(_CGROUP_USED)
    if limit is not None and used is not None and limit < 1 << 60:
        free = min(free, max(limit - used, 0))
    return free


@dataclass(frozen=True, kw_only=True, slots=True)
class CachePlan:
    """What the KV cache gets."""

    context: int
    """Most tokens of one sequence."""
    cache_bytes: int
    """Bytes of keys and values for all sequences together."""


def plan_cache(
    config: ModelConfig,
    *,
    token_bytes: int,
    available: int,
    share: float = 0.5,
    context: int | None = None,
    cache_bytes: int | None = None,
) -> CachePlan:
    """Context and cache for a model whose weights are already loaded.

    `token_bytes` is what one token takes over all layers. Takes at most `share` of `available` bytes. Without
    `context` the model's own is used, cut to what fits; a `context` that was asked for and does not fit is an
    error with the numbers.
    """
    budget = cache_bytes if cache_bytes is not None else max(int((available - _RESERVE) * share), 0)
    fits = budget // token_bytes
    if context is not None and context > fits:
        raise ConfigError(
            f"a context of {context} tokens needs {_mib(context * token_bytes)} of cache, "
            f"{_mib(budget)} are set aside; ask for at most {fits} tokens or give the cache more memory"
        )
    if fits < 256:
        raise ConfigError(
            f"{_mib(budget)} of memory for the cache hold {fits} tokens of {token_bytes} bytes, 256 are the least; "
            "free some memory or load a smaller or quantized model"
        )
    if context is None:
        context = min(config.context_length, fits)
    tokens = min(fits, max(_FULL_CONTEXTS * context, _MIN_TOKENS)) if cache_bytes is None else fits
    return CachePlan(context=context, cache_bytes=max(tokens, context) * token_bytes)


def _first_number(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text())
        except (OSError, ValueError):
            continue
    return None


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
