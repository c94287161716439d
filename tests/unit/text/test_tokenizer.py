"""Which file is which kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamakit.core.errors import TokenizerError
from llamakit.text.byte_bpe import ByteBpeTokenizer
from llamakit.text.gguf_tokenizer import fields_of
from llamakit.text.tokenizer import load_tokenizer


def test_content_decides_and_not_the_name(tmp_path: Path, small_model_path: Path, spm_model_path: Path) -> None:
    for source, kind in ((small_model_path, "byte_bpe"), (spm_model_path, "sentencepiece")):
        copy = tmp_path / "whatever.bin"
        copy.write_bytes(source.read_bytes())
        assert load_tokenizer(copy).kind == kind
        assert load_tokenizer(source.parent).kind == kind
        assert load_tokenizer(str(source)).kind == kind


def test_fields_of_a_gguf_file(small: ByteBpeTokenizer) -> None:
    assert load_tokenizer(fields_of(small)).kind == "byte_bpe"


def test_a_windows_line_end_is_no_fault(tmp_path: Path, small_model_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(small_model_path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_tokenizer(path).vocab_size == 700


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"%PDF-1.7", b"a b c\n", b"\x0a\x05xxxxx"])
def test_what_is_no_tokenizer_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(TokenizerError, match="not a tokenizer") as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such file"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    with path.open("wb") as file:
        file.write(b"YQ== 0\n")
        file.truncate((64 << 20) + 1)
    with pytest.raises(TokenizerError, match="more than 67108864 bytes"):
        load_tokenizer(path)
