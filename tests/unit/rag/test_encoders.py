"""Vectors without a model, and the sentence encoder against its reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import CheckpointError, InvalidRequest, PromptTooLong
from llamakit.rag.ngrams import NgramEncoder
from llamakit.rag.sentence import SentenceEncoder
from llamakit.rag.tokens import estimate_tokens

SHAPE = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "vocab_size": 10,
    "layer_norm_eps": 1e-12,
}


def near(*texts):
    vectors, _ = NgramEncoder().encode(texts)
    return vectors @ vectors.T


def test_texts_that_share_words_stems_and_spellings_are_near():
    scores = near("the soft wool of llamas", "llama wool, softer than most", "interest rates of central banks")
    assert scores[0, 1] > 0.3 > scores[0, 2]
    assert near("recieve the parcel", "receive the parcel", "bake the bread")[0, 1] > 0.5
    japanese = near("今日は天気がいい", "明日の天気は悪い", "銀行の金利")
    assert japanese[0, 1] > 0.1 > japanese[0, 2]
    assert near("Straße", "STRASSE", "Mond")[0, 1] > near("Straße", "Mond")[0, 1]


def test_grammar_weighs_little():
    scores = near("it is in the and of", "it is in the and of whale", "whale song")
    assert scores[1, 2] > 0.4


def test_vectors_are_the_same_everywhere():
    vectors, words = NgramEncoder().encode(["one two", ""])
    assert words == 2 and not vectors[1].any()
    # CRC-32 of "<one" is 0x1e94c7e6, whose highest bit is 0.
    assert vectors[0, 0x1E94C7E6 % 768] < 0
    with pytest.raises(InvalidRequest):
        NgramEncoder().encode([(1, 2)])


@given(st.lists(st.text(max_size=40), max_size=4))
@settings(deadline=None, max_examples=30)
def test_any_text_has_a_vector(texts):
    vectors, _ = NgramEncoder().encode(texts)
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (len(texts), 768) and np.isfinite(vectors).all()
    assert all(length == pytest.approx(1, abs=1e-5) or length == 0 for length in lengths)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog.", 10, 11),
        ("def f(x):\n    return x + 1\n", 9, 14),
        ("1234567", 3, 3),
        ("今天天气很好", 6, 6),
        ("a" * 600, 100, 100),
    ],
)
def test_estimated_tokens(text, low, high):
    assert low <= estimate_tokens(text) <= high


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tiny encoder with random weights, as transformers writes it."""
    from transformers import BertConfig, BertModel

    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    BertModel(BertConfig(**{k: v for k, v in SHAPE.items() if k != "model_type"})).save_pretrained(tmp_path)
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e", "f"])}
    tokenizer = {
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tmp_path


def test_the_encoder_computes_what_transformers_does(folder):
    import torch
    from transformers import BertModel

    reference = BertModel.from_pretrained(folder).eval()
    encoder = SentenceEncoder.open(folder)
    assert (encoder.width, encoder.context) == (8, 12)
    for ids in ([4], [4, 5, 6], list(range(10))):
        with torch.no_grad():
            mean = reference(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        (vector,), count = encoder.encode([ids])
        assert count == len(ids) and np.allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)
    assert np.array_equal(encoder.encode(["a b c"])[0], encoder.encode(["d", "a b c"])[0][1:])


def test_what_the_encoder_refuses(folder):
    encoder = SentenceEncoder.open(folder)
    with pytest.raises(PromptTooLong, match="13 tokens, the encoder holds 12"):
        encoder.encode(["a " * 13])
    for ids in ([10], [-1]):
        with pytest.raises(InvalidRequest, match="outside 0 to 9"):
            encoder.encode([ids])


@pytest.mark.parametrize("size", [0, 4, 9, 200, 2000])
def test_damaged_weights(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError):
        SentenceEncoder.open(folder)


@pytest.mark.parametrize(
    "change",
    [{"model_type": "llama"}, {"hidden_act": "relu"}, {"hidden_size": 7}, {"hidden_size": 16}, {"num_hidden_layers": 3},
     {"num_attention_heads": 0}, {"num_attention_heads": "2"}],
)  # fmt: skip
def test_configs_that_do_not_fit(folder, change):
    (folder / "config.json").write_text(json.dumps(SHAPE | change))
    with pytest.raises(CheckpointError):
        SentenceEncoder.open(folder)


def test_files_that_are_missing(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer"):
        SentenceEncoder.open(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config"):
        SentenceEncoder.open(folder)
