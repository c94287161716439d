from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.checkpoints.hf_config import (
    config_from_hf,
    config_to_hf,
    generation_from_hf,
    generation_to_hf,
)
from llamakit.checkpoints.reader import Generation
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.core.model_config import ModelConfig, RopeScaling

PATH = Path("model/config.json")
LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
# Llama 3.2 1B as published for transformers 4.
ONE_B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": LLAMA3_ROPE,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
SHAPE_1B = ModelConfig(
    vocab_size=128256,
    dim=2048,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
    head_dim=64,
    ffn_dim=8192,
    norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=RopeScaling(factor=32.0),
    tie_embeddings=True,
    context_length=131072,
)


def test_reads_the_older_form() -> None:
    assert config_from_hf(ONE_B, PATH) == SHAPE_1B


def test_reads_the_form_of_transformers_5() -> None:
    newer = {key: value for key, value in ONE_B.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")}
    newer |= {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 500000.0}, "dtype": "bfloat16"}
    assert config_from_hf(newer, PATH) == SHAPE_1B
    plain = newer | {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    assert config_from_hf(plain, PATH).rope_scaling is None


def test_both_forms_must_agree() -> None:
    assert config_from_hf(ONE_B | {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 500000.0}}, PATH) == SHAPE_1B
    for other in ({"rope_theta": 10000.0}, {"factor": 8.0}):
        both = ONE_B | {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 500000.0} | other}
        with pytest.raises(CheckpointError, match="rope_parameters must be the same"):
            config_from_hf(both, PATH)


def test_llama_1_leaves_much_out() -> None:
    config = config_from_hf(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "pad_token_id": -1,
        },
        PATH,
    )
    assert (config.num_kv_heads, config.head_dim, config.norm_eps) == (32, 128, 1e-6)
    assert (config.rope_theta, config.context_length, config.tie_embeddings) == (10000.0, 2048, False)


def test_null_counts_as_absent() -> None:
    assert config_from_hf(ONE_B | {"quantization_config": None, "surprise": None}, PATH) == SHAPE_1B


REFUSED: dict[str, tuple[Any, str]] = {
    "model_type": ("mistral", "model_type must be 'llama', found 'mistral'"),
    "architectures": (["LlamaForSequenceClassification"], "architectures must be"),
    "hidden_act": ("gelu", "hidden_act must be 'silu'"),
    "attention_bias": (True, "attention_bias must be False, found True"),
    "mlp_bias": (True, "mlp_bias must be False"),
    "quantization_config": ({"bits": 4}, "quantization_config is set"),
    "sliding_window": (4096, "no plain Llama has the field 'sliding_window'"),
    "num_key_value_head": (8, "'num_key_value_head' \\(nearest known: 'num_key_value_heads'\\)"),
    "auto_map": ({"AutoModel": "x.py"}, "'auto_map'"),
    "rope_scaling": ({"type": "linear", "factor": 2.0}, "rope_type 'linear'; supported are default and llama3"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_would_change_the_maths_is_refused_by_name(field: str) -> None:
    value, message = REFUSED[field]
    with pytest.raises(UnsupportedFormat, match=message) as caught:
        config_from_hf(ONE_B | {field: value}, PATH)
    assert str(caught.value).startswith(str(PATH))


WRONG: dict[str, Any] = {
    "hidden_size": "2048",
    "num_hidden_layers": 0,
    "num_attention_heads": True,
    "num_key_value_heads": 7,
    "head_dim": 63,
    "vocab_size": 2**31,
    "intermediate_size": -1,
    "rms_norm_eps": float("inf"),
    "rope_theta": 0,
    "tie_word_embeddings": "yes",
    "max_position_embeddings": 1.5,
    "rope_scaling": {"rope_type": "llama3", "factor": 8},
}


@pytest.mark.parametrize("field", WRONG)
def test_a_value_that_cannot_work_names_file_and_field(field: str) -> None:
    with pytest.raises(CheckpointError, match=r"model/config.json: ") as caught:
        config_from_hf(ONE_B | {field: WRONG[field]}, PATH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "model_type"])
def test_a_field_without_default_must_be_there(field: str) -> None:
    with pytest.raises(CheckpointError, match=f"{field} must be .*, found nothing"):
        config_from_hf({key: value for key, value in ONE_B.items() if key != field}, PATH)


@given(
    st.builds(
        ModelConfig,
        vocab_size=st.integers(1, 10**6),
        dim=st.integers(1, 10**5),
        num_layers=st.integers(1, 200),
        num_heads=st.sampled_from([8, 16]),
        num_kv_heads=st.sampled_from([1, 2, 4, 8]),
        head_dim=st.sampled_from([2, 64, 128]),
        ffn_dim=st.integers(1, 10**5),
        norm_eps=st.sampled_from([1e-5, 1e-6]),
        rope_theta=st.floats(2, 1e9),
        rope_scaling=st.none() | st.builds(RopeScaling, factor=st.floats(1, 64)),
        tie_embeddings=st.booleans(),
        context_length=st.integers(1, 10**6),
    )
)
@settings(max_examples=50, deadline=None)
def test_a_config_survives_the_round_trip(config: ModelConfig) -> None:
    assert config_from_hf(config_to_hf(config, torch.bfloat16, Generation()), PATH) == config


def test_divisors_without_a_rule_cannot_be_written() -> None:
    from dataclasses import replace

    config = replace(SHAPE_1B, rope_scaling=None, rope_divisors=(1.0,) * 31 + (3.0,))
    with pytest.raises(UnsupportedFormat, match="write a GGUF instead"):
        config_to_hf(config, torch.bfloat16, Generation())


def test_generation_defaults_go_before_the_config() -> None:
    defaults = {"eos_token_id": [1, 2], "temperature": 0.6, "top_p": 0.9, "do_sample": True, "top_k": 50}
    found = generation_from_hf(ONE_B, defaults, PATH)
    assert found == Generation(bos_id=128000, eos_ids=(1, 2), temperature=0.6, top_p=0.9, top_k=50)
    assert generation_from_hf(ONE_B, {}, PATH).eos_ids == (128001, 128008, 128009)
    assert generation_from_hf({}, generation_to_hf(found), PATH) == found


@pytest.mark.parametrize("eos", ["2", [1, "2"], [2.0], 2**31, [[1]], {"a": 1}])
def test_end_ids_are_checked(eos: Any) -> None:
    with pytest.raises(CheckpointError, match="eos_token_id must be a token id"):
        generation_from_hf({}, {"eos_token_id": eos}, PATH)
