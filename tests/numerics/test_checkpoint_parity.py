"""Every family against `transformers`: what either writes the other loads, and both compute the same.

Random weights of every family's shape, float32. Both sides do the same sums in different order, which
costs about 1e-5 on logits of size 10; the bar is 1e-4.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.save import save_hf
from llamakit.models.llama import Llama

MAX_DIFFERENCE = 1e-4
NUM_GREEDY = 128


def _llama3_rope(factor: float) -> dict[str, object]:
    return {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _plain_rope(theta: float) -> dict[str, object]:
    return {"rope_type": "default", "rope_theta": theta}


FAMILIES = {
    "llama-1": {"num_key_value_heads": 8, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    "llama-2": {"num_key_value_heads": 8, "max_position_embeddings": 4096},
    "llama-2-70b": {"num_key_value_heads": 1, "max_position_embeddings": 4096, "intermediate_size": 224},
    "code-llama": {"num_key_value_heads": 8, "vocab_size": 336, "rope_parameters": _plain_rope(1e6)},
    "llama-3": {"num_key_value_heads": 2, "rope_parameters": _plain_rope(5e5), "max_position_embeddings": 8192},
    "llama-3.1": {"num_key_value_heads": 2, "rope_parameters": _llama3_rope(8.0), "max_position_embeddings": 131072},
    "llama-3.2": {
        "num_key_value_heads": 2,
        "rope_parameters": _llama3_rope(32.0),
        "tie_word_embeddings": True,
        "max_position_embeddings": 131072,
    },
    "llama-guard-3": {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "num_hidden_layers": 3,
        "rope_parameters": _llama3_rope(8.0),
    },
}


def _reference(family: str) -> LlamaForCausalLM:
    shape = {
        "vocab_size": 320,
        "hidden_size": 128,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.1,
        "rope_parameters": _plain_rope(1e4),
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "attn_implementation": "eager",
    } | FAMILIES[family]
    torch.manual_seed(sum(map(ord, family)))
    model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    with torch.no_grad():
        # Gains other than one, so that a gain applied in the wrong place is seen.
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
    return model


def _prompt(vocab_size: int, length: int) -> Tensor:
    return torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def _greedy(logits_of, prompt: Tensor) -> list[int]:
    ids = prompt
    for _ in range(NUM_GREEDY):
        ids = torch.cat([ids, logits_of(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0, prompt.shape[1] :].tolist()


@torch.no_grad()
def _assert_same(ours: Llama, reference: LlamaForCausalLM) -> None:
    prompt = _prompt(reference.config.vocab_size, 400)
    difference = (ours(prompt) - reference(prompt).logits).abs().max().item()
    assert difference <= MAX_DIFFERENCE
    start = prompt[:, :8]
    continued = _greedy(ours, start)
    assert continued == _greedy(lambda ids: reference(ids).logits, start)
    assert len(set(continued)) > 8, "a model that repeats itself proves little"


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_transformers_writes(family: str, tmp_path: Path) -> None:
    reference = _reference(family)
    reference.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.model.dtype == torch.float32
    assert loaded.generation.eos_ids == (2, 3)
    assert loaded.config.num_parameters == sum(p.numel() for p in reference.parameters())
    _assert_same(loaded.model, reference)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_what_we_write(family: str, tmp_path: Path) -> None:
    reference = _reference(family)
    reference.save_pretrained(tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    save_hf(loaded.model, loaded.config, tmp_path / "ours", generation=loaded.generation)
    again, report = LlamaForCausalLM.from_pretrained(
        tmp_path / "ours", attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    prompt = _prompt(again.config.vocab_size, 400)
    with torch.no_grad():
        assert torch.equal(again(prompt).logits, reference(prompt).logits)
    assert again.generation_config.eos_token_id == [2, 3]


def test_the_scaling_of_the_frequencies_is_seen_at_this_length(tmp_path: Path) -> None:
    # Guards the parity above: with the wrong factor the same comparison must fail.
    reference = _reference("llama-3.2")
    reference.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"factor": 32.0', '"factor": 8.0'))
    prompt = _prompt(reference.config.vocab_size, 400)
    with torch.no_grad():
        difference = (load_model(tmp_path).model(prompt) - reference(prompt).logits).abs().max()
    assert difference > 10 * MAX_DIFFERENCE
