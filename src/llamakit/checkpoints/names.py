"""The names of a Llama's tensors in three worlds, their shapes, and the order of rotary rows.

Canonical are Hugging Face's names; each row of the tables has the same tensor's name in Meta's files
and in GGUF. Meta and GGUF keep the rows of q and k so that rotary pairs are neighbours (2i, 2i + 1);
the canonical order has them half a head apart (i, i + D/2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from llamakit.core.model_config import ModelConfig

# D head dim
World = Literal["hf", "meta", "gguf"]
Split = Literal["rows", "columns", "none", "embedding"]


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor in three worlds. Layer tensors leave out the prefix and the layer's number."""

    hf: str
    meta: str
    gguf: str
    split: Split
    """How Meta's model-parallel files divide it; the embedding by columns until Llama 2, by rows since Llama 3."""

    def spelled(self, world: World) -> str:
        """The name in one world."""
        return {"hf": self.hf, "meta": self.meta, "gguf": self.gguf}[world]


_TOP = (
    Row("model.embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight", "embedding"),
    Row("model.norm.weight", "norm.weight", "output_norm.weight", "none"),
    Row("lm_head.weight", "output.weight", "output.weight", "rows"),
)
_LAYER = (
    Row("input_layernorm.weight", "attention_norm.weight", "attn_norm.weight", "none"),
    Row("self_attn.q_proj.weight", "attention.wq.weight", "attn_q.weight", "rows"),
    Row("self_attn.k_proj.weight", "attention.wk.weight", "attn_k.weight", "rows"),
    Row("self_attn.v_proj.weight", "attention.wv.weight", "attn_v.weight", "rows"),
    Row("self_attn.o_proj.weight", "attention.wo.weight", "attn_output.weight", "columns"),
    Row("post_attention_layernorm.weight", "ffn_norm.weight", "ffn_norm.weight", "none"),
    Row("mlp.gate_proj.weight", "feed_forward.w1.weight", "ffn_gate.weight", "rows"),
    Row("mlp.up_proj.weight", "feed_forward.w3.weight", "ffn_up.weight", "rows"),
    Row("mlp.down_proj.weight", "feed_forward.w2.weight", "ffn_down.weight", "columns"),
)
EMBEDDING, NORM, HEAD = (row.hf for row in _TOP)
TENSORS_PER_LAYER = len(_LAYER)

_PREFIXES: dict[World, str] = {"hf": "model.layers.", "meta": "layers.", "gguf": "blk."}


def translate(name: str, source: World, target: World) -> str | None:
    """The name in another world; None for a name that is no tensor of a Llama."""
    found = _find(name, source)
    if found is None:
        return None
    row, layer = found
    return row.spelled(target) if layer is None else f"{_PREFIXES[target]}{layer}.{row.spelled(target)}"


def split_of(name: str) -> Split:
    """How Meta's shards divide the tensor of this canonical name."""
    found = _find(name, "hf")
    if found is None:
        raise KeyError(name)
    return found[0].split


def layer_of(name: str) -> int | None:
    """Number of the layer a canonical name belongs to; None for the tensors outside the layers."""
    found = _find(name, "hf")
    return None if found is None else found[1]


_TOP_BY = {world: {row.spelled(world): row for row in _TOP} for world in _PREFIXES}
_LAYER_BY = {world: {row.spelled(world): row for row in _LAYER} for world in _PREFIXES}
# No leading zeros: one tensor has one name.
_IN_LAYER = {world: re.compile(re.escape(prefix) + r"(0|[1-9][0-9]{0,4})\.(.+)") for world, prefix in _PREFIXES.items()}


def _find(name: str, world: World) -> tuple[Row, int | None] | None:
    if (top := _TOP_BY[world].get(name)) is not None:
        return top, None
    match = _IN_LAYER[world].fullmatch(name)
    if match is None or (row := _LAYER_BY[world].get(match[2])) is None:
        return None
    return row, int(match[1])


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every tensor a model of this shape has, in model order."""
    q_width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (config.dim,),
        "self_attn.q_proj.weight": (q_width, config.dim),
        "self_attn.k_proj.weight": (kv_width, config.dim),
        "self_attn.v_proj.weight": (kv_width, config.dim),
        "self_attn.o_proj.weight": (config.dim, q_width),
        "post_attention_layernorm.weight": (config.dim,),
        "mlp.gate_proj.weight": (config.ffn_dim, config.dim),
        "mlp.up_proj.weight": (config.ffn_dim, config.dim),
        "mlp.down_proj.weight": (config.dim, config.ffn_dim),
    }
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.dim)}
    for index in range(config.num_layers):
        shapes.update({f"{_PREFIXES['hf']}{index}.{name}": shape for name, shape in layer.items()})
    shapes[NORM] = (config.dim,)
    if not config.tie_embeddings:
        shapes[HEAD] = (config.vocab_size, config.dim)
    return shapes


def rotary_heads(name: str, config: ModelConfig) -> int | None:
    """Heads of the q or k weight of this canonical name; None for tensors without rotary rows."""
    if name.endswith("self_attn.q_proj.weight"):
        return config.num_heads
    if name.endswith("self_attn.k_proj.weight"):
        return config.num_kv_heads
    return None


def to_neighbours(weight: Tensor, num_heads: int) -> Tensor:
    """Canonical -> Meta and GGUF: rows of each head from halves (i, i + D/2) to neighbours (2i, 2i + 1)."""
    return weight.view(num_heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def to_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Meta and GGUF -> canonical: the inverse of `to_neighbours`."""
    return weight.view(num_heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
