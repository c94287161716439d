"""SentencePiece files: agreement with the sentencepiece package, Code Llama's pieces, hostile files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.text.samples import field, train_spm, write_spm

from llamakit.core.errors import TokenizerError, UnsupportedFormat
from llamakit.text.spm import BYTE, CONTROL, NORMAL, UNKNOWN, SentencePieceTokenizer, SpmPiece
from llamakit.text.spm_file import load_spm
from llamakit.text.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

ALPHABETS = (" \n\t\r", "abc S1,2", " aé🙂न  1२\u2028\u0085\u00a0\u3000\u2581", "()[]{}\n <hole>walked the")
TEXTS = st.one_of(
    st.text(max_size=80), st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(letters, max_size=60))
)


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"user_defined_symbols": ["<hole>", "ab  c"]},
        {"add_dummy_prefix": False},
        {"byte_fallback": False, "vocab_size": 300},
    ],
    ids=["llama", "user-defined", "no-prefix", "no-bytes"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, object]:
    path = train_spm(tmp_path_factory.mktemp("peer") / "tokenizer.model", **request.param)
    return load_spm(path), sentencepiece.SentencePieceProcessor(model_file=str(path))


@settings(max_examples=250, deadline=None)
@given(text=TEXTS)
def test_agrees_with_sentencepiece(pair: tuple[Tokenizer, object], text: str) -> None:
    ours, peer = pair
    ids = ours.encode(text)
    assert ids == peer.encode(text)  # type: ignore[attr-defined]
    if not any(map(ours.is_special, ids)):
        assert ours.decode(ids) == peer.decode(ids)  # type: ignore[attr-defined]


def test_ids_and_names(spm: Tokenizer) -> None:
    assert spm.special == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert (spm.bos_id, spm.eos_ids, spm.pad_id) == (1, (2,), None)
    assert spm.kind == "sentencepiece"
    assert [spm.token_bytes(id) for id in (0, 1, 2, 3, 258)] == [b"", b"", b"", b"\x00", b"\xff"]
    assert spm.token_bytes(10**9) == spm.token_bytes(-1) == b""


@given(text=st.sampled_from(["<s>", "</s>", "<unk>", "<0x41>", "a</s>b", " <s> "]))
def test_spelled_control_tokens_are_text(spm: Tokenizer, text: str) -> None:
    ids = spm.encode(text)
    assert not any(map(spm.is_special, ids))
    assert spm.decode(ids) == text


@pytest.mark.parametrize("text", [" <PRE>", " <PRE> a <SUF>b <MID>", " <EOT><EOT>", "<step>", " <step>"])
def test_code_llama_pieces_are_never_reached_by_text(code_llama: Tokenizer, text: str) -> None:
    ids = code_llama.encode(text)
    assert not any(map(code_llama.is_special, ids))
    assert code_llama.decode(ids) == text


def test_code_llama_pieces_are_named(code_llama: Tokenizer) -> None:
    assert {"\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", "\u2581<EOT>", "<step>"} <= set(code_llama.special)


def test_continuation_adds_no_space(code_llama: Tokenizer) -> None:
    """Meta encodes the suffix behind a sentinel and drops the sentinel's two ids."""
    for text in ("ab", " ab", "\nab", ""):
        behind = code_llama.encode("\u263a" + text)
        assert code_llama.encode_continuation(text) == behind[2:]


BYTES = [SpmPiece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
HEAD = [SpmPiece("<unk>", 0.0, UNKNOWN), SpmPiece("<s>", 0.0, CONTROL), SpmPiece("</s>", 0.0, CONTROL), *BYTES]


def test_a_file_by_hand(tmp_path: Path) -> None:
    tokenizer = load_spm(write_spm(tmp_path / "m", [*HEAD, SpmPiece("a", -1.0, NORMAL)]))
    assert tokenizer.encode("aé") == [3 + 0xE2, 3 + 0x96, 3 + 0x81, 259, 3 + 0xC3, 3 + 0xA9]


@pytest.mark.parametrize(
    ("trainer", "normalizer", "fault"),
    [
        (field(3, 1), field(4, 0), "type unigram"),
        (field(3, 2), field(4, 0) + field(2, b"map"), "normaliser"),
        (field(3, 2), b"", "extra spaces"),
        (field(3, 2) + field(24, 1), field(4, 0), "leading mark"),
        (field(3, 2), field(4, 0) + field(5, 0), "leading mark"),
    ],
)
def test_unsupported_features_are_named(tmp_path: Path, trainer: bytes, normalizer: bytes, fault: str) -> None:
    path = write_spm(tmp_path / "m", HEAD, trainer=trainer, normalizer=normalizer)
    with pytest.raises(UnsupportedFormat, match=fault) as caught:
        load_spm(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("pieces", "fault"),
    [
        ([], "0 pieces"),
        ([*HEAD, SpmPiece("", 0.0, NORMAL)], "0 characters"),
        ([*HEAD, SpmPiece("a" * 300, 0.0, NORMAL)], "300 characters"),
        ([*HEAD, SpmPiece("a", float("nan"), NORMAL)], "no number"),
        ([*HEAD, SpmPiece("a", 0.0, NORMAL), SpmPiece("a", 0.0, NORMAL)], "repeats 'a'"),
        ([*HEAD, SpmPiece("a", 0.0, 9)], "unknown type 9"),
        ([*HEAD, SpmPiece("<0xZZ>", 0.0, BYTE)], "not of the form"),
    ],
)
def test_bad_pieces_are_named(tmp_path: Path, pieces: list[SpmPiece], fault: str) -> None:
    with pytest.raises(TokenizerError, match=fault):
        load_spm(write_spm(tmp_path / "m", pieces))


def test_truncations_never_crash(tmp_path: Path, spm_model_path: Path) -> None:
    data = spm_model_path.read_bytes()
    path = tmp_path / "m"
    for percent in range(100):
        path.write_bytes(data[: len(data) * percent // 100])
        with pytest.raises(TokenizerError):
            load_spm(path)
        path.write_bytes(data[: len(data) * percent // 100] + b"\xff" * 20)
        with pytest.raises((TokenizerError, UnsupportedFormat)):
            load_spm(path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_noise_never_crashes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.model"
    path.write_bytes(data)
    try:
        load_spm(path)
    except (TokenizerError, UnsupportedFormat):
        pass


def test_long_text_takes_linear_time(spm: SentencePieceTokenizer) -> None:
    text = "a" * 300_000
    assert spm.decode(spm.encode(text)) == text
