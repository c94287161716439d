"""SentencePiece's `tokenizer.model`: a small reader of the few protobuf fields that matter.

Field numbers are those of sentencepiece_model.proto. Every length is checked against the file before it
is used; unknown fields are skipped, features this build cannot run are refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llamakit.core.errors import TokenizerError, UnsupportedFormat
from llamakit.text.spm import NORMAL, UNUSED, SentencePieceTokenizer, SpmPiece
from llamakit.text.tokenizer_files import MAX_ENTRIES, read_limited

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_MODEL_TYPE, _WHITESPACE_AS_SUFFIX, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 24, 40, 41, 42, 43
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_WHITESPACE, _ESCAPE_WHITESPACE = 2, 3, 4, 5
_MODEL_TYPES: Final = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Fields = dict[int, int | bytes]


def looks_like_spm(head: bytes) -> bool:
    """Whether a file that starts with `head` is of this kind: a first piece that begins with its own text."""
    return len(head) > 4 and head[0] == (_PIECES << 3 | _BYTES) and head[1] < 0x80 and head[2] == (1 << 3 | _BYTES)


def load_spm(path: Path) -> SentencePieceTokenizer:
    """The tokenizer of a SentencePiece BPE model file."""
    try:
        return _build(read_limited(path))
    except UnsupportedFormat as fault:
        raise UnsupportedFormat(f"{path}: {fault}") from None
    except TokenizerError as fault:
        raise TokenizerError(f"{path}: {fault}") from None


def _build(data: bytes) -> SentencePieceTokenizer:
    pieces: list[SpmPiece] = []
    trainer: Fields | None = None
    normalizer: Fields | None = None
    for field, value in _fields(data):
        if field == _PIECES:
            pieces.append(_piece(_as_bytes(value)))
            if len(pieces) > MAX_ENTRIES:
                raise TokenizerError(f"more than {MAX_ENTRIES} pieces")
        elif field == _TRAINER:
            trainer = dict(_fields(_as_bytes(value)))
        elif field == _NORMALIZER:
            normalizer = dict(_fields(_as_bytes(value)))
    if trainer is None or normalizer is None:
        raise TokenizerError(f"the file ends after {len(pieces)} pieces, before the records that say how to use them")
    _refuse_unsupported(trainer, normalizer)
    return SentencePieceTokenizer(
        pieces,
        unk_id=_id(trainer, _UNK_ID, 0),
        bos_id=_id(trainer, _BOS_ID, 1),
        eos_id=_id(trainer, _EOS_ID, 2),
        pad_id=_id(trainer, _PAD_ID, -1),
        dummy_prefix=_flag(normalizer, _DUMMY_PREFIX, default=True),
    )


def _refuse_unsupported(trainer: Fields, normalizer: Fields) -> None:
    kind = trainer.get(_MODEL_TYPE, 1)
    if kind != 2:
        name = _MODEL_TYPES.get(kind, repr(kind)) if isinstance(kind, int) else repr(kind)
        raise UnsupportedFormat(f"a SentencePiece model of type {name}; this build reads bpe, the type of Llama")
    if normalizer.get(_CHARSMAP):
        raise UnsupportedFormat("a SentencePiece model with a normaliser; this build reads the identity, as Llama has")
    if _flag(normalizer, _EXTRA_WHITESPACE, default=True):
        raise UnsupportedFormat("a SentencePiece model that drops extra spaces; this build keeps all, as Llama does")
    if _flag(trainer, _WHITESPACE_AS_SUFFIX, default=False) or not _flag(normalizer, _ESCAPE_WHITESPACE, default=True):
        raise UnsupportedFormat("a SentencePiece model that treats spaces otherwise than as a leading mark")


def _piece(data: bytes) -> SpmPiece:
    text, score, kind = b"", 0.0, NORMAL
    for field, value in _fields(data):
        if field == _PIECE_TEXT:
            text = _as_bytes(value)
        elif field == _PIECE_SCORE:
            score = struct.unpack("<f", _as_bytes(value))[0] if len(_as_bytes(value)) == 4 else 0.0
        elif field == _PIECE_TYPE and isinstance(value, int):
            kind = value
    if not NORMAL <= kind <= UNUSED + 1:
        raise TokenizerError(f"piece of unknown type {kind}")
    try:
        return SpmPiece(text.decode("utf-8"), score, kind)
    except UnicodeDecodeError:
        raise TokenizerError(f"piece {text[:40]!r} is not UTF-8") from None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; 4- and 8-byte values come as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise TokenizerError(f"not a SentencePiece model: wire type {wire} at byte {at}")
        if length > len(data) - at:
            raise TokenizerError(f"the file is cut: {length} bytes wanted at byte {at} of {len(data)}")
        yield field, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise TokenizerError("the file is cut inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise TokenizerError(f"not a SentencePiece model: a number of more than 10 bytes before byte {at}")


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TokenizerError("not a SentencePiece model: a number where a record was wanted")
    return value


def _id(fields: Fields, field: int, default: int) -> int | None:
    value = fields.get(field, default)
    # Negative ids mean "none" and are stored as 64-bit two's complement.
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else None


def _flag(fields: Fields, field: int, *, default: bool) -> bool:
    return bool(fields.get(field, default))
