"""A model and its cache: batches in, states and logits out.

Knows no sequence and no request. On a CPU the bits of a token's states depend on the tokens before it
alone: not on its batch mates, nor on how its prompt was cut into steps (see `kernels.matmul` and
`kernels.attention`). Everything that makes results reproducible stands on that.

Legend: N flat tokens, M rows whose next token is wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamakit.engine.batch import Piece, build_batch
from llamakit.engine.cache import KvCache
from llamakit.kernels.paged import PagedAttend
from llamakit.models.llama import Llama


class Runner:
    """Runs `model` over `cache`."""

    def __init__(self, model: Llama, cache: KvCache) -> None:
        self.model = model
        self.cache = cache
        self._scale = model.config.head_dim**-0.5
        self._memo: dict[object, object] = {}

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> tuple[Tensor, list[int]]:
        """States after the final norm `[N, dim]`, and the first row of each piece; fills the cache."""
        batch = build_batch(pieces, self.cache.block_tokens, self.model.device)
        keys, values = self.cache.keys, self.cache.values
        attend = PagedAttend(keys, values, batch.slots_N, batch.attention, self._scale, self._memo)
        states = self.model.hidden(batch.ids_N, batch.positions_N, attend, max_position=batch.max_position)
        return states, batch.starts

    @torch.inference_mode()
    def logits(self, hidden_ND: Tensor, rows: list[int] | None = None) -> Tensor:
        """Float32 logits `[M, V]` of the given rows, or of all."""
        if rows is not None and rows != list(range(hidden_ND.shape[0])):
            hidden_ND = hidden_ND[torch.tensor(rows, device=hidden_ND.device)]
        return self.model.logits(hidden_ND)
