"""Text and tokenizer files for the tests of this room."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from llamakit.text.spm import SpmPiece

SAMPLE = (
    "The llama walked to the market on Monday and bought 12 apples, 3 pears and a book for $4.50.\n\n"
    "Could you call Anna at 17:30? She doesn't know yet; we'll tell her. unsafe safe S1,S2\n"
    "def total(values):\n    return sum(v for v in values if v > 0)\n"
    "Straße, déjà vu, mañana, नमस्ते, สวัสดี, 你好，世界 🙂\n"
    '[get_weather(city="Bern", days=3)] {"type": "function", "name": "get_weather", "parameters": {}}\n'
    "system user assistant ipython\n"
)


def train_spm(path: Path, **changes: object) -> Path:
    """A SentencePiece BPE model with Llama's settings, by SentencePiece's own trainer."""
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    settings: dict[str, object] = {
        "sentence_iterator": iter(SAMPLE.splitlines() * 5),
        "model_writer": written,
        "vocab_size": 560,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(**(settings | changes))
    path.write_bytes(written.getvalue())
    return path


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | float) -> bytes:
    """One protobuf field: a number, a record, or a 4-byte float."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value & (1 << 64) - 1)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def write_spm(
    path: Path, pieces: Sequence[SpmPiece], *, trainer: bytes = field(3, 2), normalizer: bytes = field(4, 0)
) -> Path:
    """A SentencePiece model file by hand."""
    records = (field(1, piece.text.encode()) + field(2, piece.score) + field(3, piece.kind) for piece in pieces)
    path.write_bytes(b"".join(field(1, record) for record in records) + field(2, trainer) + field(3, normalizer))
    return path
