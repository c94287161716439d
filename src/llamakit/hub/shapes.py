"""The shapes of every released text model, as published in their `config.json`, `params.json` and cards.

One row is one shape; several models may share it. "rope F" is the factor of the llama3 frequency scaling:
Meta's own reference code applies 8 to every scaled model, but the 1B and 3B were trained with 32.
"""

from __future__ import annotations

from llamakit.core.model_config import ModelConfig, RopeScaling

_Row = tuple[str, int, int, int, int, int, int, int, float, float, int, bool, int]

# fmt: off
_ROWS: tuple[_Row, ...] = (
    # name               dim   layers heads kv  head   ffn   vocab    eps  theta rope F  tied  context
    ("llama1-7b",        4096,   32,   32,  32, 128, 11008,  32000, 1e-6,  1e4,   0, False,   2048),
    ("llama1-13b",       5120,   40,   40,  40, 128, 13824,  32000, 1e-6,  1e4,   0, False,   2048),
    ("llama1-30b",       6656,   60,   52,  52, 128, 17920,  32000, 1e-6,  1e4,   0, False,   2048),
    ("llama1-65b",       8192,   80,   64,  64, 128, 22016,  32000, 1e-6,  1e4,   0, False,   2048),
    ("llama2-7b",        4096,   32,   32,  32, 128, 11008,  32000, 1e-5,  1e4,   0, False,   4096),
    ("llama2-13b",       5120,   40,   40,  40, 128, 13824,  32000, 1e-5,  1e4,   0, False,   4096),
    ("llama2-70b",       8192,   80,   64,   8, 128, 28672,  32000, 1e-5,  1e4,   0, False,   4096),
    ("code-7b",          4096,   32,   32,  32, 128, 11008,  32016, 1e-5,  1e6,   0, False,  16384),
    ("code-7b-python",   4096,   32,   32,  32, 128, 11008,  32000, 1e-5,  1e6,   0, False,  16384),
    ("code-13b",         5120,   40,   40,  40, 128, 13824,  32016, 1e-5,  1e6,   0, False,  16384),
    ("code-13b-python",  5120,   40,   40,  40, 128, 13824,  32000, 1e-5,  1e6,   0, False,  16384),
    ("code-34b",         8192,   48,   64,   8, 128, 22016,  32000, 1e-5,  1e6,   0, False,  16384),
    ("code-70b",         8192,   80,   64,   8, 128, 28672,  32016, 1e-5,  1e6,   0, False,  16384),
    ("code-70b-short",   8192,   80,   64,   8, 128, 28672,  32016, 1e-5,  1e4,   0, False,   4096),
    ("llama3-8b",        4096,   32,   32,   8, 128, 14336, 128256, 1e-5,  5e5,   0, False,   8192),
    ("llama3-70b",       8192,   80,   64,   8, 128, 28672, 128256, 1e-5,  5e5,   0, False,   8192),
    ("llama3.1-8b",      4096,   32,   32,   8, 128, 14336, 128256, 1e-5,  5e5,   8, False, 131072),
    ("llama3.1-70b",     8192,   80,   64,   8, 128, 28672, 128256, 1e-5,  5e5,   8, False, 131072),
    ("llama3.1-405b",   16384,  126,  128,   8, 128, 53248, 128256, 1e-5,  5e5,   8, False, 131072),
    ("llama3.2-1b",      2048,   16,   32,   8,  64,  8192, 128256, 1e-5,  5e5,  32, True,  131072),
    ("llama3.2-3b",      3072,   28,   24,   8, 128,  8192, 128256, 1e-5,  5e5,  32, True,  131072),
    ("llama3.2-1b-int4", 2048,   16,   32,   8,  64,  8192, 128256, 1e-5,  5e5,  32, True,    8192),
    ("llama3.2-3b-int4", 3072,   28,   24,   8, 128,  8192, 128256, 1e-5,  5e5,  32, True,    8192),
    ("guard3-1b-int4",   2048,   12,   32,   8,  64,  6400, 128256, 1e-5,  5e5,  32, False, 131072),
)
# fmt: on


def _shape(row: _Row) -> ModelConfig:
    _, dim, layers, heads, kv_heads, head_dim, ffn, vocab, eps, theta, factor, tied, context = row
    return ModelConfig(
        vocab_size=vocab,
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_dim=ffn,
        norm_eps=eps,
        rope_theta=theta,
        rope_scaling=RopeScaling(factor=float(factor)) if factor else None,
        tie_embeddings=tied,
        context_length=context,
    )


SHAPES: dict[str, ModelConfig] = {row[0]: _shape(row) for row in _ROWS}
