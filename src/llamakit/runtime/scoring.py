"""Checkpoints as scorers: the log-probabilities of every next token, computed as the model runs.

A way of computing is named by a word: `float32` (the stored weights, products in float32: what others are compared
with), `bf16`, a scheme of packed weights (`int8`, `int4`), a recipe of GGUF (`q4_0`, `q8_0`, `q4_k_m`, ...), whose file
is written aside and used as stored, or `stored`: a quantized checkpoint as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llamakit.checkpoints.gguf_recipes import QUANTIZATIONS, Quantization
from llamakit.checkpoints.gguf_write import save_gguf
from llamakit.checkpoints.load import STORED, load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import ConfigError
from llamakit.kernels.attention import AttentionBatch, paged_attention, write_kv
from llamakit.kernels.int8_pool import make_int8_pool
from llamakit.models.llama import Llama
from llamakit.quant.convert import packed_bytes
from llamakit.quant.fused import fuse
from llamakit.quant.schemes import SCHEMES
from llamakit.runtime.assembly import best_dtype

_PLAIN = {"float32": torch.float32, "bf16": torch.bfloat16}
_GGUF: dict[str, Quantization] = {recipe: recipe for recipe in QUANTIZATIONS if recipe not in ("f32", "f16", "bf16")}
WAYS = (*_PLAIN, *SCHEMES, *_GGUF, STORED)
"""Every way of computing."""
_BLOCK_TOKENS = 16


class Scorer:
    """A loaded model that scores texts; satisfies `evals.divergence.LogProbs`.

    `rounds_keys` keeps keys and values as bytes, in the pools and by the kernels of an int8 cache.
    """

    def __init__(self, model: Llama, *, rounds_keys: bool = False) -> None:
        self._model = model
        self._rounds_keys = rounds_keys

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights, packed ones included."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters()) + packed_bytes(self._model)

    def __call__(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32]:
        with torch.no_grad():
            states = self._rounded_states(ids) if self._rounds_keys else self._model.states(torch.tensor([ids]))[0]
            return self._model.logits(states[torch.tensor(places)]).log_softmax(-1).numpy()

    def _rounded_states(self, ids: Sequence[int]) -> Tensor:
        config, count = self._model.config, len(ids)
        num_blocks, places = -(-count // _BLOCK_TOKENS), torch.arange(count)
        keys, values = (make_int8_pool(num_blocks, _BLOCK_TOKENS, config.num_kv_heads, config.head_dim) for _ in "kv")
        batch = AttentionBatch(
            block_tables=torch.arange(num_blocks)[None],
            query_starts=(0, count),
            context_lens=(count,),
            block_tokens=_BLOCK_TOKENS,
        )

        def attend(layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
            write_kv(keys, values, places, k_NKD, v_NKD)  # one layer after another: its pools serve the next
            return paged_attention(q_NHD, keys, values, batch, config.head_dim**-0.5)

        return self._model.hidden(torch.tensor(ids), places, attend)


def load_scorer(path: Path, way: str, *, rounds_keys: bool = False) -> Scorer:
    """The checkpoint at `path`, computed with in this way; ConfigError for an unknown one, or what loading raises."""
    if way in _PLAIN:
        return Scorer(_fused(path, _PLAIN[way], None), rounds_keys=rounds_keys)
    if way in _GGUF:
        return _through_gguf(path, _GGUF[way], rounds_keys)
    if way not in WAYS:
        raise ConfigError(f"no way of computing {way!r}; there are {', '.join(WAYS)}")
    with open_checkpoint(path) as reader:
        if way == STORED and not reader.is_quantized():
            raise ConfigError(f"{path} stores plain numbers; choose among {', '.join((*SCHEMES, *_GGUF))}")
        dtype = best_dtype(reader.metadata().quantization, torch.device("cpu"))
    return Scorer(_fused(path, dtype, way), rounds_keys=rounds_keys)


def _through_gguf(path: Path, recipe: Quantization, rounds_keys: bool) -> Scorer:
    with tempfile.TemporaryDirectory(prefix="llamakit-eval-") as folder:
        file = Path(folder) / f"{recipe}.gguf"
        with open_checkpoint(path) as reader:
            save_gguf(reader, reader.config(), file, quantization=recipe)
        return load_scorer(file, STORED, rounds_keys=rounds_keys)


def _fused(path: Path, dtype: torch.dtype, scheme: str | None) -> Llama:
    model = load_model(path, dtype=dtype, scheme=scheme).model
    fuse(model)
    return model
