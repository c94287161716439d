"""Quantization recipes of GGUF files: which tensor gets which type.

A recipe gives most matrices its main type and some that matter more a larger one. The mixed recipes are
those of llama.cpp's quantizer, so sizes compare.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints import names
from llamakit.core.model_config import ModelConfig

Quantization = Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"]
QUANTIZATIONS: Final[tuple[Quantization, ...]] = get_args(Quantization)

MAIN_TYPE: Final[dict[Quantization, int]] = {
    "f32": types.F32,
    "f16": types.F16,
    "bf16": types.BF16,
    "q8_0": types.Q8_0,
    "q6_k": types.Q6_K,
    "q5_k_m": types.Q5_K,
    "q4_k_m": types.Q4_K,
    "q4_0": types.Q4_0,
}
"""Recipe -> type of most matrices."""
FILE_TYPES: Final[dict[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 14: "Q4_K_S", 15: "Q4_K_M",
    16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip
"""Codes of `general.file_type`; a recipe is its name in lower case."""
PLAIN_TYPES: Final = {types.F32: torch.float32, types.F16: torch.float16, types.BF16: torch.bfloat16}
# For rows that are not whole super-blocks, and for rows that are not even whole small blocks.
_FALLBACK = {types.Q4_K: types.Q5_0, types.Q5_K: types.Q5_1, types.Q6_K: types.Q8_0}


def plain_recipe(dtype: torch.dtype) -> Quantization:
    """The recipe that keeps weights in this dtype."""
    return next(recipe for recipe, kind in MAIN_TYPE.items() if PLAIN_TYPES.get(kind) == dtype)


def file_type(quantization: Quantization) -> int:
    """The code of `general.file_type`."""
    return next(code for code, name in FILE_TYPES.items() if name.lower() == quantization)


def tensor_type(name: str, shape: tuple[int, ...], quantization: Quantization, config: ModelConfig) -> int:
    """The type a recipe gives to the tensor of this canonical name; vectors stay float32."""
    main, columns = MAIN_TYPE[quantization], shape[-1]
    if len(shape) == 1:
        return types.F32
    if main in PLAIN_TYPES:
        return main
    kind = _preferred(name, main, quantization, config)
    if columns % types.ENCODINGS[kind].block_values:
        kind = _FALLBACK.get(kind, types.F16)
    return types.F16 if columns % types.ENCODINGS[kind].block_values else kind


def _preferred(name: str, main: int, quantization: Quantization, config: ModelConfig) -> int:
    head = names.EMBEDDING if config.tie_embeddings else names.HEAD
    if name == head and main != types.Q8_0:
        return types.Q6_K
    layer = names.layer_of(name)
    if quantization not in ("q4_k_m", "q5_k_m") or layer is None:
        return main
    if name.endswith(("v_proj.weight", "down_proj.weight")) and _gets_more_bits(layer, config.num_layers):
        return types.Q6_K
    if name.endswith("v_proj.weight") and main == types.Q4_K and config.num_heads == 8 * config.num_kv_heads >= 64:
        # 70B: one value head serves eight query heads, so its precision costs little and counts much.
        return types.Q5_K
    return main


def _gets_more_bits(layer: int, num_layers: int) -> bool:
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
