from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import spm_fields, write_gguf

from llamakit.checkpoints import gguf_write
from llamakit.checkpoints.gguf import GgufReader, recognise_scaling, scaling_divisors
from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.core.model_config import RopeScaling


def _write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, int, Any], **shape: Any) -> Path:
    """A file whose metadata has been changed: a value of None takes the key out."""
    original = gguf_write._metadata

    def changed(*args: Any) -> list[tuple[str, int, Any]]:
        pairs = [entry for entry in original(*args) if entry[0] not in {key for key, _, _ in changes}]
        return pairs + [entry for entry in changes if entry[2] is not None]

    monkeypatch.setattr(gguf_write, "_metadata", changed)
    return write_gguf(tmp_path / "x.gguf", tiny_llama(**shape))


@pytest.mark.parametrize(
    "shape",
    [
        {"tie_embeddings": True},
        {"tie_embeddings": False},
        {"rope_theta": 500_000.0, "context_length": 131072, "rope_scaling": RopeScaling(factor=32.0), "head_dim": 64},
        {"rope_theta": 500_000.0, "rope_scaling": RopeScaling(factor=8.0)},
        {"rope_divisors": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 7.0)},
        {"head_dim": 32},
    ],
)
def test_a_model_survives_the_round_trip(shape: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_llama(**shape)
    loaded = load_model(write_gguf(tmp_path / "x.gguf", model))
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


# The published divisors of model_facts.md, section 1.2.
@pytest.mark.parametrize(
    ("head_dim", "factor", "first", "divisors"),
    [
        (128, 8.0, 29, [1.207484, 1.553415, 2.026313, 2.694530, 3.684253, 5.257327]),
        (128, 32.0, 29, [1.234937, 1.651329, 2.276660, 3.292262, 5.171596, 9.666729]),
        (64, 32.0, 15, [1.651329, 3.292262, 9.666729]),
    ],
)
def test_the_divisors_are_the_published_ones(head_dim: int, factor: float, first: int, divisors: list[float]) -> None:
    scaling = RopeScaling(factor=factor)
    found = scaling_divisors(scaling, head_dim, 500_000.0).tolist()
    assert found[:first] == [1.0] * first
    assert found[first : first + len(divisors)] == pytest.approx(divisors, rel=1e-5)
    assert found[first + len(divisors) :] == pytest.approx([factor] * (head_dim // 2 - first - len(divisors)))
    assert recognise_scaling(tuple(found), head_dim, 500_000.0) == scaling


@pytest.mark.parametrize(
    "divisors", [(1.0,) * 32, (2.0,) * 32, (1.0,) * 31, (float("nan"),) * 32, (float("inf"),) * 32]
)
def test_other_divisors_are_no_llama3_scaling(divisors: tuple[float, ...]) -> None:
    assert recognise_scaling(divisors, 64, 500_000.0) is None


def test_the_tokenizer_comes_back(tmp_path: Path) -> None:
    fields = spm_fields(320)
    with open_checkpoint(write_gguf(tmp_path / "x.gguf", tiny_llama(), tokenizer=fields)) as reader:
        assert reader.tokenizer_source() == fields
        assert reader.generation().bos_id == 1 and reader.generation().eos_ids == (2,)


def test_a_file_without_tokenizer_has_none(tmp_path: Path) -> None:
    with open_checkpoint(write_gguf(tmp_path / "x.gguf", tiny_llama(), tokenizer=None)) as reader:
        assert reader.tokenizer_source() is None
        assert reader.generation().eos_ids == ()


def test_facts_for_people(tmp_path: Path) -> None:
    model = tiny_llama()
    path = write_gguf(tmp_path / "x.gguf", model, quantization="q8_0", name="small", chat_template="{{ x }}")
    with open_checkpoint(path) as reader:
        facts = reader.metadata()
    assert (facts.architecture, facts.name, facts.quantization) == ("llama", "small", "Q8_0")
    assert facts.num_parameters == sum(tensor.numel() for tensor in model.parameters())
    assert facts.chat_template == "{{ x }}"


def test_all_end_ids_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"eos": 9, "eot": 9, "eom": 8, "padding": 2**32 - 1}
    changes = [(f"tokenizer.ggml.{name}_token_id", 4, value) for name, value in ids.items()]
    with open_checkpoint(_write(tmp_path, monkeypatch, *changes)) as reader:
        assert reader.generation().eos_ids == (9, 8)
        assert reader.generation().pad_id is None


UNSUPPORTED: dict[str, tuple[str, int, Any, str]] = {
    "another architecture": ("general.architecture", 8, "qwen2", "general.architecture must be 'llama', found 'qwen2'"),
    "experts": ("llama.expert_count", 4, 8, "llama.expert_count must be 0, found 8"),
    "yarn": ("llama.rope.scaling.type", 8, "yarn", "llama.rope.scaling.type must be 'none'"),
    "linear scaling": ("llama.rope.scaling.factor", 6, 4.0, "llama.rope.scaling.factor must be 1.0"),
    "bidirectional": ("llama.attention.causal", 7, False, "llama.attention.causal must be True"),
    "window": ("llama.attention.sliding_window", 4, 4096, "no plain Llama has the field 'llama.attention.sliding"),
    "partial rotation": ("llama.rope.dimension_count", 4, 8, "llama.rope.dimension_count must be 16"),
    "values of another width": ("llama.attention.value_length", 4, 8, "value_length must be 16"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_would_change_the_maths_is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kind, value, message = UNSUPPORTED[case]
    with pytest.raises(UnsupportedFormat, match=message):
        GgufReader(_write(tmp_path, monkeypatch, (key, kind, value)))


WRONG: dict[str, tuple[str, int, Any, str]] = {
    "no layers": ("llama.block_count", 4, 0, "llama.block_count must be a positive integer"),
    "layers as text": ("llama.block_count", 8, "2", "llama.block_count must be a positive integer"),
    "a list of heads": ("llama.attention.head_count_kv", 4, [2, 2], "head_count_kv must be a positive integer"),
    "width absent": ("llama.embedding_length", 4, None, "llama.embedding_length must be .*, found nothing"),
    "division by zero": ("llama.attention.head_count", 4, 0, "llama.attention.head_count must be a positive integer"),
    "heads that do not divide": ("llama.attention.head_count_kv", 4, 3, "num_heads 4 is not a multiple"),
    "epsilon of zero": ("llama.attention.layer_norm_rms_epsilon", 6, 0.0, "norm_eps must be in"),
    "epsilon that is no number": ("llama.attention.layer_norm_rms_epsilon", 6, float("nan"), "must be a finite number"),
    "theta of zero": ("llama.rope.freq_base", 6, 0.0, "rope_theta must be in"),
    "more layers than tensors": ("llama.block_count", 4, 3, r"9 missing: model.layers.\{2\}.input_layernorm.weight"),
    "fewer layers than tensors": ("llama.block_count", 4, 1, r"9 unexpected: model.layers.\{1\}"),
    "2^31 - 1 layers": ("llama.block_count", 4, 2**31 - 1, "has 2147483647 layers of 9 tensors, but only 20 tensors"),
    "another width": ("llama.feed_forward_length", 4, 95, "wanted \\[95, 64\\] found \\[96, 64\\]"),
    "another count of heads": ("llama.attention.head_count_kv", 4, 1, "of the wrong shape: .*k_proj"),
}


@pytest.mark.parametrize("case", WRONG)
def test_metadata_and_tensors_must_fit(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kind, value, message = WRONG[case]
    with pytest.raises(CheckpointError, match=message):
        load_model(_write(tmp_path, monkeypatch, (key, kind, value)))


TOKENIZERS: dict[str, tuple[str, int, Any, str]] = {
    "more tokens than rows": ("tokenizer.ggml.tokens", 8, ["a"] * 321, "321 tokens, but embeddings for 320 only"),
    "fewer scores": ("tokenizer.ggml.scores", 6, [0.0] * 319, "320 tokens, but 319 values in scores"),
    "fewer types": ("tokenizer.ggml.token_type", 5, [1] * 3, "320 tokens, but 3 values in token_type"),
    "tokens as numbers": ("tokenizer.ggml.tokens", 4, [1] * 320, "the tokens must be an array of strings"),
    "tokens as text": ("tokenizer.ggml.tokens", 8, "abc", "tokenizer.ggml.tokens must be an array"),
    "scores as text": ("tokenizer.ggml.scores", 8, ["a"] * 320, "the scores must be an array of numbers"),
    "model as number": ("tokenizer.ggml.model", 4, 3, "tokenizer.ggml.model must be text"),
    "begin beyond the rows": ("tokenizer.ggml.bos_token_id", 4, 320, "bos_token_id must be a token id below 320"),
    "end beyond the rows": ("tokenizer.ggml.eos_token_id", 4, 2**31 - 1, "eos_token_id must be a token id below 320"),
    "end as text": ("tokenizer.ggml.eos_token_id", 8, "2", "eos_token_id must be a token id"),
    "a flag as number": ("tokenizer.ggml.add_bos_token", 4, 1, "add_bos_token must be true or false"),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizer_fields_are_checked(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kind, value, message = TOKENIZERS[case]
    with (
        open_checkpoint(_write(tmp_path, monkeypatch, (key, kind, value))) as reader,
        pytest.raises(CheckpointError, match=message),
    ):
        reader.tokenizer_source()
        reader.generation()


def test_a_tokenizer_inside_is_known_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_gguf(tmp_path / "a.gguf", tiny_llama())
    renamed = write_gguf(tmp_path / "b.gguf", tiny_llama(seed=1), name="other weights")
    changed = _write(tmp_path, monkeypatch, ("tokenizer.ggml.eos_token_id", 4, 9))
    without = write_gguf(tmp_path / "c.gguf", tiny_llama(), tokenizer=None)
    digests = []
    for path in (whole, renamed, changed, without):
        with GgufReader(path) as reader:
            digests.append(reader.tokenizer_digest())
    assert digests[0] == digests[1] != digests[2] and digests[3] is None
    assert all(digest is None or len(digest) == 64 for digest in digests)
