"""Meta's params.json -> our config; knows no tensors beyond the vocabulary size they show.

params.json leaves out what Meta's own code holds as constants: the context length, the scaling of
the rotary frequencies and the end ids. They are told here from the fields that differ between the
releases (model cards of Llama 1 to 3.3 and Code Llama).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llamakit.checkpoints.fields import Fields, build_config
from llamakit.checkpoints.reader import Generation
from llamakit.core.model_config import ModelConfig, RopeScaling

# fmt: off
_READ = frozenset({
    "dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps",
    "rope_theta", "use_scaled_rope", "max_seq_len",
})
# fmt: on
_HARMLESS = frozenset({"max_batch_size", "model_parallel_size"})
_SMALL_SCALED = {(2048, 16), (3072, 28)}
"""(dim, layers) of Llama 3.2 1B and 3B, whose frequencies are divided by 32 and not by 8."""
_LLAMA3_VOCAB = 128_256


def config_from_meta(values: dict[str, Any], path: Path, *, vocab_size: int, tied: bool) -> ModelConfig:
    """Read params.json's object; `vocab_size` is the number of rows of the stored embedding."""
    fields = Fields(values, path)
    fields.refuse_unknown(_READ | _HARMLESS)
    dim, num_heads, num_layers = (fields.integer(name) for name in ("dim", "n_heads", "n_layers"))
    if dim % num_heads:
        raise fields.error("n_heads", f"a divisor of dim {dim}")
    # Llama 1 and 2 say -1: ask the tokenizer. The embedding has the same number of rows.
    if fields.values.get("vocab_size", -1) != -1 and fields.integer("vocab_size") != vocab_size:
        raise fields.error("vocab_size", f"{vocab_size}, the rows of tok_embeddings.weight")
    theta, eps = fields.number("rope_theta", 10_000.0), fields.number("norm_eps", 1e-5)
    scaled = fields.flag("use_scaled_rope", False)
    return build_config(
        path,
        vocab_size=vocab_size,
        dim=dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.integer("n_kv_heads", num_heads),
        head_dim=dim // num_heads,
        ffn_dim=_ffn_dim(fields, dim),
        norm_eps=eps,
        rope_theta=theta,
        rope_scaling=RopeScaling(factor=32.0 if (dim, num_layers) in _SMALL_SCALED else 8.0) if scaled else None,
        tie_embeddings=tied,
        context_length=fields.integer("max_seq_len", _context_length(theta, eps, scaled)),
    )


def _ffn_dim(fields: Fields, dim: int) -> int:
    """Two thirds of four times the width, times the multiplier if there is one, rounded up."""
    multiple = fields.integer("multiple_of", 256)
    width = 2 * (4 * dim) // 3
    multiplier = fields.optional_number("ffn_dim_multiplier")
    if multiplier is not None:
        if not 0 < multiplier < 1000:
            raise fields.error("ffn_dim_multiplier", "between 0 and 1000")
        width = math.floor(multiplier * width)
    return multiple * -(-width // multiple)


def _context_length(theta: float, eps: float, scaled: bool) -> int:
    if scaled:
        return 131_072
    if theta == 500_000.0:
        return 8192
    if theta == 1_000_000.0:
        return 16_384
    return 2048 if eps == 1e-6 else 4096


def generation_of_meta(config: ModelConfig) -> Generation:
    """End ids and sampling defaults that the release's reference code uses; nothing for an unknown vocabulary."""
    if config.vocab_size == _LLAMA3_VOCAB:
        # 3.0 has no end-of-message token and never emits its id.
        return Generation(bos_id=128_000, eos_ids=(128_001, 128_008, 128_009), temperature=0.6, top_p=0.9)
    if config.vocab_size in (32_000, 32_016):
        return Generation(bos_id=1, eos_ids=(2,))
    return Generation()
