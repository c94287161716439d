"""Tokenizers inside GGUF files, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.unit.text.samples import SAMPLE

from llamakit.core.errors import TokenizerError, UnsupportedFormat
from llamakit.text.byte_bpe import GPT2_SPLIT, LLAMA3_SPLIT, ByteBpeTokenizer
from llamakit.text.gguf_tokenizer import fields_of, load_fields
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.spm import BYTE, CONTROL, NORMAL, UNKNOWN, SentencePieceTokenizer

TEXTS = (SAMPLE, " two  spaces ", "नमस्ते 🙂", "<|eot_id|></s><s>", "\n\n\n", "")


def test_byte_bpe_there_and_back(small: ByteBpeTokenizer) -> None:
    fields = fields_of(small)
    assert (fields.model, fields.pre, len(fields.tokens)) == ("gpt2", "llama-bpe", 700)
    assert (fields.bos_id, fields.eot_id, fields.eom_id) == (444, 453, 452)
    back = load_fields(fields)
    assert isinstance(back, ByteBpeTokenizer)
    assert dict(back.special) == dict(small.special)
    assert (back.bos_id, back.eos_ids, back.pad_id) == (small.bos_id, small.eos_ids, small.pad_id)
    for text in TEXTS:
        assert back.encode(text) == small.encode(text)
        assert back.decode(back.encode(text)) == text
    assert fields_of(back) == fields


def test_sentencepiece_there_and_back(spm: SentencePieceTokenizer) -> None:
    fields = fields_of(spm)
    assert (fields.model, fields.add_space_prefix, fields.unk_id) == ("llama", True, 0)
    assert fields.token_types is not None
    assert fields.token_types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    back = load_fields(fields)
    assert isinstance(back, SentencePieceTokenizer)
    assert dict(back.special) == dict(spm.special)
    for text in TEXTS:
        assert back.encode(text) == spm.encode(text)
        assert back.decode(back.encode(text)) == text
    assert fields_of(back) == fields


def test_code_llama_pieces_are_written_as_control(code_llama: SentencePieceTokenizer) -> None:
    fields = fields_of(code_llama)
    back = load_fields(fields)
    assert dict(back.special) == dict(code_llama.special)
    assert back.encode(" <PRE>") == code_llama.encode(" <PRE>")


def test_a_padded_table_has_unused_entries(small: ByteBpeTokenizer) -> None:
    fields = fields_of(small, size=704)
    assert fields.tokens[700:] == ["[unused700]", "[unused701]", "[unused702]", "[unused703]"]
    back = load_fields(fields)
    assert back.encode("[unused700]") == small.encode("[unused700]")
    assert back.token_bytes(701) == b""


def test_kinds_are_guessed_where_the_file_does_not_say(spm: SentencePieceTokenizer) -> None:
    fields = dataclasses.replace(fields_of(spm), token_types=None, unk_id=None, bos_id=None, eos_id=None)
    back = load_fields(fields)
    assert dict(back.special) == dict(spm.special)
    assert back.encode(SAMPLE) == spm.encode(SAMPLE)


def test_control_tokens_listed_as_ordinary_ones_are_told_apart(small: ByteBpeTokenizer) -> None:
    back = load_fields(dataclasses.replace(fields_of(small), token_types=[NORMAL] * 700))
    assert dict(back.special) == dict(small.special)
    assert not any(map(back.is_special, back.encode("".join(small.special))))


def test_no_space_prefix(spm: SentencePieceTokenizer) -> None:
    back = load_fields(dataclasses.replace(fields_of(spm), add_space_prefix=False))
    assert back.encode("llama") == spm.encode_continuation("llama")
    assert not back.strips_leading_space


@pytest.mark.parametrize(
    ("pre", "split"),
    [("llama-bpe", LLAMA3_SPLIT), (None, LLAMA3_SPLIT), ("default", LLAMA3_SPLIT), ("gpt-2", GPT2_SPLIT)],
)
def test_split_patterns(small: ByteBpeTokenizer, pre: str | None, split: str) -> None:
    back = load_fields(dataclasses.replace(fields_of(small), pre=pre))
    assert isinstance(back, ByteBpeTokenizer)
    assert back.split == split


@pytest.mark.parametrize(
    ("changes", "error", "fault"),
    [
        ({"model": "t5"}, UnsupportedFormat, "kind 't5'"),
        ({"pre": "qwen2"}, UnsupportedFormat, "called 'qwen2'"),
        ({"merges": None}, TokenizerError, "without merges"),
        ({"merges": ["ab"]}, TokenizerError, "a merge is two tokens"),
        ({"merges": ["a b c"]}, TokenizerError, "a merge is two tokens"),
        ({"tokens": []}, TokenizerError, "0 tokens"),
        ({"token_types": [1]}, TokenizerError, "1 token types for 700"),
        ({"scores": [0.0]}, TokenizerError, "1 scores for 700"),
        ({"tokens": ["a"] * 700}, TokenizerError, "share one token"),
        ({"tokens": [*(f"t{i}" for i in range(699)), "a" * 600]}, TokenizerError, "more than 512"),
        ({"model": "llama", "merges": None}, TokenizerError, "without scores"),
    ],
)
def test_bad_fields_are_named(
    small: ByteBpeTokenizer, changes: dict[str, Any], error: type[Exception], fault: str
) -> None:
    with pytest.raises(error, match=fault):
        load_fields(dataclasses.replace(fields_of(small), **changes))


def test_ids_outside_the_table_are_none(spm: SentencePieceTokenizer) -> None:
    back = load_fields(dataclasses.replace(fields_of(spm), bos_id=10**6, eos_id=10**6))
    assert (back.bos_id, back.eos_ids) == (None, ())


def test_written_files_agree_with_the_tiktoken_file(llama3_model_path: Path, llama3: ByteBpeTokenizer) -> None:
    fields = fields_of(llama3)
    assert isinstance(fields, TokenizerFields)
    assert (len(fields.tokens), len(fields.merges or ())) == (128_256, 280_147)
    assert fields.token_types is not None
    assert fields.token_types.count(NORMAL) == 128_000
