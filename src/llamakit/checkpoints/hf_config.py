"""Hugging Face's config.json and generation_config.json <-> our config; knows no tensors.

Both generations are read: `rope_theta` with `rope_scaling`, and the `rope_parameters` that
transformers 5 writes. Written is the older form, which transformers 4 and 5 both load. A field that
could change the maths and is not understood is refused by name; the harmless ones are listed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llamakit.checkpoints.fields import Fields, build_config
from llamakit.checkpoints.reader import Generation
from llamakit.core.errors import UnsupportedFormat
from llamakit.core.model_config import ModelConfig, RopeScaling

# fmt: off
_READ = frozenset({
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "rope_theta",
    "rope_scaling", "rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id",
})
# Training, bookkeeping, and generation defaults that some exporters leave in config.json.
_HARMLESS = frozenset({
    "attention_dropout", "initializer_range", "pretraining_tp", "torch_dtype", "dtype", "transformers_version",
    "use_cache", "_name_or_path", "_attn_implementation_autoset", "unsloth_fixed", "unsloth_version",
    "max_sequence_length", "max_length", "min_length", "do_sample", "temperature", "top_p", "top_k", "typical_p",
    "num_beams", "num_beam_groups", "repetition_penalty", "length_penalty", "diversity_penalty", "early_stopping",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate", "remove_invalid_values",
    "exponential_decay_length_penalty", "torchscript", "use_bfloat16", "tf_legacy_loss", "problem_type", "id2label",
    "label2id", "num_labels", "task_specific_params", "finetuning_task", "tokenizer_class", "prefix", "sep_token_id",
    "unk_token_id", "decoder_start_token_id", "begin_suppress_tokens", "suppress_tokens", "bad_words_ids",
    "forced_bos_token_id", "forced_eos_token_id", "is_decoder", "tie_encoder_decoder", "cross_attention_hidden_size",
})
# fmt: on
_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "architectures": (["LlamaForCausalLM"], ["LLaMAForCausalLM"], []),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "pruned_heads": ({},),
}
_ROPE_FIELDS = frozenset(
    {
        "rope_theta",
        "rope_type",
        "type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    }
)


def config_from_hf(values: dict[str, Any], path: Path) -> ModelConfig:
    """Read config.json's object; `path` names it in errors."""
    fields = Fields(values, path)
    for name, allowed in _FIXED.items():
        if name in fields.values and fields.values[name] not in allowed:
            raise UnsupportedFormat(str(fields.error(name, " or ".join(map(repr, allowed)))))
    if "model_type" not in fields.values:
        raise fields.error("model_type", "'llama'")
    if "quantization_config" in fields.values:
        raise UnsupportedFormat(
            f"{path}: quantization_config is set; quantized safetensors are not read, "
            "use the unquantized model or a GGUF"
        )
    fields.refuse_unknown({*_READ, *_HARMLESS, *_FIXED})
    dim, num_heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if "head_dim" not in fields.values and dim % num_heads:
        raise fields.error("num_attention_heads", f"a divisor of hidden_size {dim} when head_dim is not given")
    theta, scaling = _rope(fields)
    return build_config(
        path,
        vocab_size=fields.integer("vocab_size"),
        dim=dim,
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", num_heads),
        head_dim=fields.integer("head_dim", dim // num_heads),
        ffn_dim=fields.integer("intermediate_size"),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        context_length=fields.integer("max_position_embeddings", 2048),
    )


def _rope(fields: Fields) -> tuple[float, RopeScaling | None]:
    old = _one_rope(fields, "rope_scaling", fields.number("rope_theta", 10_000.0))
    if "rope_parameters" not in fields.values:
        return old
    new = _one_rope(fields, "rope_parameters", old[0])
    if ("rope_theta" in fields.values and old[0] != new[0]) or ("rope_scaling" in fields.values and old[1] != new[1]):
        raise fields.error("rope_parameters", "the same as rope_theta and rope_scaling when both are given")
    return new


def _one_rope(fields: Fields, name: str, theta: float) -> tuple[float, RopeScaling | None]:
    values = fields.values.get(name, {})
    if not isinstance(values, dict):
        raise fields.error(name, "an object")
    rope = Fields(values, fields.path)
    kind = rope.values.get("rope_type", rope.values.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise UnsupportedFormat(
            f"{fields.path}: {name} has rope_type {str(kind)[:50]!r}; supported are default and llama3"
        )
    rope.refuse_unknown(_ROPE_FIELDS)
    theta = rope.number("rope_theta", theta)
    if kind == "default":
        return theta, None
    factor, low, high = (rope.number(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = rope.integer("original_max_position_embeddings")
    if not (factor >= 1 and high > low > 0):
        raise fields.error(name, "a factor of at least 1 with high_freq_factor > low_freq_factor > 0")
    return theta, RopeScaling(factor=factor, low_freq_factor=low, high_freq_factor=high, original_context=original)


def config_to_hf(config: ModelConfig, dtype: torch.dtype, generation: Generation) -> dict[str, Any]:
    """The object to write as config.json; raises when the frequencies have no name there."""
    if config.rope_divisors is not None:
        raise UnsupportedFormat(
            "the model divides its rotary frequencies by a table (rope_freqs) that is not llama3 scaling; "
            "config.json cannot say that, write a GGUF instead"
        )
    scaling = config.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": generation.bos_id,
        "eos_token_id": _one_or_list(generation.eos_ids),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn_dim,
        "max_position_embeddings": config.context_length,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "pad_token_id": generation.pad_id,
        "pretraining_tp": 1,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": None
        if scaling is None
        else {
            "factor": scaling.factor,
            "high_freq_factor": scaling.high_freq_factor,
            "low_freq_factor": scaling.low_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
            "rope_type": "llama3",
        },
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def generation_from_hf(config: dict[str, Any], defaults: dict[str, Any], path: Path) -> Generation:
    """Ids and sampling defaults: generation_config.json (`defaults`, read from `path`) before config.json."""
    fields = Fields({**{name: config.get(name) for name in _IDS}, **defaults}, path)
    top_k = fields.optional_number("top_k")
    return Generation(
        bos_id=fields.token_id("bos_token_id"),
        eos_ids=fields.token_ids("eos_token_id"),
        pad_id=fields.token_id("pad_token_id"),
        temperature=fields.optional_number("temperature"),
        top_p=fields.optional_number("top_p"),
        top_k=None if top_k is None else int(top_k),
        repetition_penalty=fields.optional_number("repetition_penalty"),
    )


_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def generation_to_hf(generation: Generation) -> dict[str, Any]:
    """The object to write as generation_config.json."""
    values = {
        "bos_token_id": generation.bos_id,
        "eos_token_id": _one_or_list(generation.eos_ids),
        "pad_token_id": generation.pad_id,
        # transformers refuses to save sampling values beside greedy decoding.
        "do_sample": True if generation.temperature else None,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "repetition_penalty": generation.repetition_penalty,
    }
    return {name: value for name, value in values.items() if value is not None}


def _one_or_list(ids: tuple[int, ...]) -> int | list[int] | None:
    if not ids:
        return None
    return ids[0] if len(ids) == 1 else list(ids)
