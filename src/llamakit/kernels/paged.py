"""Attention over the paged cache of a whole model, one pool of keys and one of values a layer.

An engine makes a `PagedAttend` once a step and hands it to the model, which calls it once a layer. Fused layers do not
call it: they take the pools and tables out of it and run, attention included, as one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from llamakit.kernels.attention import AttentionBatch, Pool, paged_attention, write_kv
from llamakit.kernels.cpu.library import Step
from llamakit.kernels.int8_pool import Int8Pool


class PagedAttend:
    """Stores the keys and values of a step's tokens and mixes what each token may see."""

    def __init__(
        self,
        keys: Sequence[Pool],
        values: Sequence[Pool],
        slots_N: Tensor,
        batch: AttentionBatch,
        scale: float,
        memo: dict[object, object] | None = None,
    ) -> None:
        self.keys = keys
        """Per layer."""
        self.values = values
        self.slots_N = slots_N
        self.batch = batch
        self.scale = scale
        self.memo = {} if memo is None else memo
        """What fused layers remember of these pools from one step to the next."""
        self._step: Step | None = None
        self._kept: tuple[Tensor, ...] = ()

    def __call__(self, layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
        write_kv(self.keys[layer], self.values[layer], self.slots_N, k_NKD, v_NKD)
        return paged_attention(q_NHD, self.keys[layer], self.values[layer], self.batch, self.scale)

    def step(self, rope: tuple[Tensor, Tensor]) -> Step:
        """What the compiled layers want to know of this step; the same for all of them."""
        if self._step is None:
            codes = [pool.codes if isinstance(pool, Int8Pool) else pool for pool in self.keys[:1]]
            num_blocks, block_tokens = codes[0].shape[:2]
            cos, sin, slots = rope[0].contiguous(), rope[1].contiguous(), self.slots_N.contiguous()
            starts, contexts, tables = self.batch.tables
            self._kept = (cos, sin, slots)
            self._step = Step(
                slots.shape[0],
                cos.data_ptr(),
                sin.data_ptr(),
                slots.data_ptr(),
                starts.data_ptr(),
                contexts.data_ptr(),
                tables.data_ptr(),
                contexts.shape[0],
                tables.shape[1],
                num_blocks,
                block_tokens,
                self.scale,
            )
        return self._step
