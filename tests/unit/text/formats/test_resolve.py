"""Names of formats, and the guess from a checkpoint's facts."""

from __future__ import annotations

import pytest

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig, RopeScaling
from llamakit.text.formats.resolve import FORMATS, detect_format, resolve_format
from llamakit.text.tokenizer import Tokenizer

LLAMA30 = "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] }}{% endfor %}"
LLAMA31 = LLAMA30 + "{%- if builtin_tools %}Environment: ipython{%- endif %}{{ '<|start_header_id|>ipython' }}"
LLAMA32 = LLAMA31 + "{%- set date_string = strftime_now('%d %b %Y') %}"
GUARD = "{{ 'Task: Check if there is unsafe content in ' }}"


def config(*, scaled: bool) -> ModelConfig:
    scaling = RopeScaling(factor=8.0) if scaled else None
    return ModelConfig(
        vocab_size=512, dim=64, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=32, ffn_dim=64, rope_scaling=scaling
    )


def test_every_name_resolves(small: Tokenizer) -> None:
    for name in FORMATS:
        form = resolve_format(name, small)
        assert form.name == name
        assert form.supports_tools == (form.tool_style is not None) == (name in ("llama3.1", "llama3.2", "llama3.3"))


def test_unknown_names_list_the_known(small: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"no prompt format 'alpaca'.*llama3\.1"):
        resolve_format("alpaca", small)


@pytest.mark.parametrize(
    ("template", "name", "wanted"),
    [
        (LLAMA30, "my-model", "llama3"),
        (LLAMA31, "my-model", "llama3.1"),
        (LLAMA31, "meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        (LLAMA32, "my-model", "llama3.2"),
        ("[INST] <<SYS>>", "x", "llama2"),
        ("{{ 'Source: assistant\\nDestination: user' }}", "x", "codellama70b"),
        (GUARD + "O1: Violence", "x", "guard1"),
        (GUARD + "S1: Violent", "x", "guard2"),
        (GUARD + "S5: Defamation S14: Code Interpreter Abuse", "x", "guard3"),
        (GUARD + "S5: Defamation", "x", "guard3-1b"),
        ("<|im_start|>", "some-base", "base"),
        (None, "meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
        (None, "meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        (None, "Llama3.2-1B-Instruct", "llama3.2"),
        (None, "meta-llama/Llama-3.2-1B", "base"),
        (None, "meta-llama/Llama-Guard-3-8B", "guard3"),
        (None, "meta-llama/Llama-Guard-3-1B", "guard3-1b"),
        (None, "meta-llama/Meta-Llama-Guard-2-8B", "guard2"),
        (None, "meta-llama/LlamaGuard-7b", "guard1"),
        (None, None, "base"),
    ],
)
def test_guesses_over_a_llama3_vocabulary(
    small: Tokenizer, template: str | None, name: str | None, wanted: str
) -> None:
    assert detect_format(small, name=name, chat_template=template) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("meta-llama/Llama-2-7b-hf", "base"),
        ("codellama/CodeLlama-13b-Instruct-hf", "llama2"),
        ("codellama/CodeLlama-70b-Instruct-hf", "codellama70b"),
        ("codellama/CodeLlama-7b-Python-hf", "base"),
    ],
)
def test_guesses_over_a_sentencepiece_table(spm: Tokenizer, name: str, wanted: str) -> None:
    assert detect_format(spm, name=name) == wanted


def test_stretched_frequencies_tell_31_from_30(small: Tokenizer) -> None:
    assert detect_format(small, name="my-instruct", config=config(scaled=True)) == "llama3.1"
    assert detect_format(small, name="my-instruct", config=config(scaled=False)) == "llama3"
