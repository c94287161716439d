"""A GGUF file's tokenizer fields -> the tokenizer files of a Hugging Face directory.

Byte-level BPE becomes `tokenizer.json`, SentencePiece becomes the protobuf `tokenizer.model`; both load
here and in transformers.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from llamakit.text.byte_bpe import LLAMA3_SPLIT, ByteBpeTokenizer
from llamakit.text.gguf_tokenizer import load_fields
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.spm import CONTROL, NORMAL, USER_DEFINED


def write_tokenizer(fields: TokenizerFields, directory: Path) -> None:
    """Write vocabulary and settings; raises `TokenizerError` when the fields are no working tokenizer."""
    tokenizer = load_fields(fields)
    if isinstance(tokenizer, ByteBpeTokenizer):
        _write_json(directory / "tokenizer.json", _byte_bpe(fields, is_llama3=tokenizer.split == LLAMA3_SPLIT))
    else:
        (directory / "tokenizer.model").write_bytes(_sentencepiece(fields))
    _write_json(directory / "tokenizer_config.json", _settings(fields))


def _settings(fields: TokenizerFields) -> dict[str, Any]:
    roles = {
        "bos_token": fields.bos_id,
        "eos_token": fields.eos_id,
        "unk_token": fields.unk_id,
        "pad_token": fields.pad_id,
    }
    kind = "LlamaTokenizer" if fields.model == "llama" else "PreTrainedTokenizerFast"
    named = {role: text for role, token in roles.items() if (text := _text(fields, token)) is not None}
    return {"tokenizer_class": kind, "clean_up_tokenization_spaces": False, **named}


def _text(fields: TokenizerFields, token: int | None) -> str | None:
    return None if token is None or token >= len(fields.tokens) else fields.tokens[token]


def _byte_bpe(fields: TokenizerFields, *, is_llama3: bool) -> dict[str, Any]:
    kinds = fields.token_types or [NORMAL] * len(fields.tokens)
    added = {id for id, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)}
    # Without a pattern of its own the byte-level step splits as GPT-2 does.
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not is_llama3}
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id,
                "content": fields.tokens[id],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kinds[id] == CONTROL,
            }
            for id in sorted(added)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level] if is_llama3 else [byte_level]},
        "post_processor": _begins_with(fields),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": is_llama3,
            "vocab": {token: id for id, token in enumerate(fields.tokens) if id not in added},
            "merges": fields.merges or [],
        },
    }


def _begins_with(fields: TokenizerFields) -> dict[str, Any] | None:
    """The step that puts the begin token in front, where the file asks for one."""
    token = _text(fields, fields.bos_id)
    if fields.add_bos is False or token is None:
        return None
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, {"SpecialToken": {"id": token, "type_id": 1}}, second],
        "special_tokens": {token: {"id": token, "ids": [fields.bos_id], "tokens": [token]}},
    }


# SentencePiece: field numbers and values of sentencepiece_model.proto.

_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_BPE_MODEL = 2


def _sentencepiece(fields: TokenizerFields) -> bytes:
    kinds = fields.token_types or [NORMAL] * len(fields.tokens)
    scores = fields.scores or [0.0] * len(fields.tokens)
    pieces = (
        _record(1, _record(1, text.encode()) + _float(2, score) + _number(3, kind))
        for text, score, kind in zip(fields.tokens, scores, kinds, strict=True)
    )
    ids = ((40, fields.unk_id), (41, fields.bos_id), (42, fields.eos_id), (43, fields.pad_id))
    trainer = _number(3, _BPE_MODEL) + _number(4, len(fields.tokens)) + _number(25, 1) + _number(35, 1)
    trainer += b"".join(_number(field, -1 if token is None else token) for field, token in ids)
    # Identity: no character map, one space in front, no space removed, spaces written as a mark.
    prefix = 1 if fields.add_space_prefix is not False else 0
    normalizer = _record(1, b"identity") + _number(3, prefix) + _number(4, 0) + _number(5, 1)
    return b"".join(pieces) + _record(2, trainer) + _record(3, normalizer)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | _FIXED32) + struct.pack("<f", value)


def _record(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
