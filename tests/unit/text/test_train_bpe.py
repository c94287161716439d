"""A vocabulary of one's own in the Llama 3 file format."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.text.samples import SAMPLE

from llamakit.core.errors import ConfigError, TokenizerError
from llamakit.text.specials import LLAMA3_SPECIALS
from llamakit.text.tiktoken_file import read_ranks
from llamakit.text.tokenizer import load_tokenizer
from llamakit.text.train_bpe import train_tiktoken


def test_the_file_has_the_size_asked_for(small_model_path: Path) -> None:
    tokens = read_ranks(small_model_path)
    assert len(tokens) == 700 - 256
    assert {bytes([byte]) for byte in range(256)} <= set(tokens)
    tokenizer = load_tokenizer(small_model_path)
    assert tokenizer.vocab_size == 700
    assert [tokenizer.special[name] for name in LLAMA3_SPECIALS] == list(range(444, 700))


def test_the_same_texts_give_the_same_file(tmp_path: Path, small_model_path: Path) -> None:
    train_tiktoken(iter([SAMPLE] * 3), 700, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == small_model_path.read_bytes()


def test_learned_words_are_single_tokens(small_model_path: Path) -> None:
    tokenizer = load_tokenizer(small_model_path)
    assert len(tokenizer.encode("unsafe")) < len("unsafe")
    assert tokenizer.decode(tokenizer.encode(SAMPLE)) == SAMPLE


def test_too_few_texts_say_what_would_work(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="ask for a vocabulary of 5"):
        train_tiktoken(["abc"], 4096, tmp_path / "m")


@pytest.mark.parametrize("size", [0, 511, 10**7])
def test_impossible_sizes(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigError, match="wanted 512"):
        train_tiktoken([SAMPLE], size, tmp_path / "m")
