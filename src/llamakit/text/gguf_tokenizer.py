"""Tokenizers from the fields of a GGUF file, and back into fields for writing one.

The fields come from a file and are not trusted: kinds, counts and ids are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from llamakit.core.errors import TokenizerError, UnsupportedFormat
from llamakit.text.byte_bpe import GPT2_SPLIT, LLAMA3_SPLIT, ByteBpeTokenizer, spell
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.specials import BEGIN_OF_TEXT, END_OF_MESSAGE, END_OF_TURN, LLAMA3_SPECIALS
from llamakit.text.spm import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceTokenizer,
    SpmPiece,
)
from llamakit.text.tokenizer_files import MAX_ENTRIES, MAX_TOKEN_BYTES

_SENTENCEPIECE: Final = "llama"
_BYTE_BPE: Final = "gpt2"
_LLAMA3_PRE: Final = frozenset({"llama-bpe", "llama3", "llama-v3"})
_LLAMA3_NAMES: Final = frozenset(LLAMA3_SPECIALS)
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")

GgufTokenizer = ByteBpeTokenizer | SentencePieceTokenizer


def load_fields(fields: TokenizerFields) -> GgufTokenizer:
    """The tokenizer that the fields describe; TokenizerError or UnsupportedFormat where they do not."""
    if not 0 < len(fields.tokens) <= MAX_ENTRIES:
        raise TokenizerError(f"{len(fields.tokens)} tokens in the file's vocabulary; wanted 1 to {MAX_ENTRIES}")
    for name, column in (("scores", fields.scores), ("token types", fields.token_types)):
        if column is not None and len(column) != len(fields.tokens):
            raise TokenizerError(f"{len(column)} {name} for {len(fields.tokens)} tokens")
    if fields.model == _BYTE_BPE:
        return _byte_bpe(fields)
    if fields.model == _SENTENCEPIECE:
        return _sentencepiece(fields)
    raise UnsupportedFormat(
        f"a vocabulary of kind {fields.model!r}; this build reads {_SENTENCEPIECE!r} and {_BYTE_BPE!r}"
    )


def _byte_bpe(fields: TokenizerFields) -> ByteBpeTokenizer:
    if fields.merges is None:
        raise TokenizerError("a byte-level vocabulary without merges")
    if any(len(token) > 2 * MAX_TOKEN_BYTES for token in fields.tokens):
        raise TokenizerError(f"a token of more than {2 * MAX_TOKEN_BYTES} characters")
    if len(set(fields.tokens)) != len(fields.tokens):
        raise TokenizerError("two ids share one token")
    kinds = fields.token_types or [NORMAL] * len(fields.tokens)
    # Some files list control tokens as ordinary ones; their names and their roles tell them apart.
    roles = {fields.bos_id, fields.eos_id, fields.eot_id, fields.eom_id, fields.unk_id, fields.pad_id}
    vocab: dict[str, int] = {}
    specials: dict[str, int] = {}
    whole: dict[str, int] = {}
    for id, (token, kind) in enumerate(zip(fields.tokens, kinds, strict=True)):
        if kind in (CONTROL, UNKNOWN) or token in _LLAMA3_NAMES or id in roles:
            specials[token] = id
        elif kind == USER_DEFINED:
            whole[token] = id
        elif kind != UNUSED:
            vocab[token] = id
    return ByteBpeTokenizer(
        vocab=vocab,
        merges=[_pair(merge) for merge in fields.merges],
        specials=specials,
        whole=whole,
        split=_split(fields.pre, specials),
        ignore_merges=_split(fields.pre, specials) == LLAMA3_SPLIT,
        bos=_name(fields, fields.bos_id),
        eos=_name(fields, fields.eos_id),
        pad=_name(fields, fields.pad_id),
    )


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not left or not space or not right or " " in right:
        raise TokenizerError(f"a merge is two tokens and a space, found {merge[:80]!r}")
    return left, right


def _split(pre: str | None, specials: Mapping[str, int]) -> str:
    """Early Llama 3 files do not name their pattern; their control tokens do."""
    if pre in _LLAMA3_PRE or (pre in (None, "default") and BEGIN_OF_TEXT in specials):
        return LLAMA3_SPLIT
    if pre in (None, "default", "gpt-2"):
        return GPT2_SPLIT
    raise UnsupportedFormat(f"a split pattern called {pre!r}; this build knows {', '.join(sorted(_LLAMA3_PRE))}")


def _name(fields: TokenizerFields, id: int | None) -> str | None:
    return fields.tokens[id] if id is not None and 0 <= id < len(fields.tokens) else None


def _sentencepiece(fields: TokenizerFields) -> SentencePieceTokenizer:
    if fields.scores is None and fields.merges is None:
        raise TokenizerError("a SentencePiece vocabulary without scores")
    scores = fields.scores or [0.0] * len(fields.tokens)
    kinds = fields.token_types or [_guess_kind(id, token) for id, token in enumerate(fields.tokens)]
    merges = None if fields.scores is not None or fields.merges is None else [_pair(merge) for merge in fields.merges]
    return SentencePieceTokenizer(
        [SpmPiece(*piece) for piece in zip(fields.tokens, scores, kinds, strict=True)],
        unk_id=0 if fields.unk_id is None else fields.unk_id,
        bos_id=1 if fields.bos_id is None else fields.bos_id,
        eos_id=2 if fields.eos_id is None else fields.eos_id,
        pad_id=fields.pad_id,
        dummy_prefix=fields.add_space_prefix is not False,
        merges=merges,
    )


def _guess_kind(id: int, token: str) -> int:
    """Llama's own layout, where a file does not say the kinds."""
    if id < 3:
        return UNKNOWN if id == 0 else CONTROL
    return BYTE if _BYTE_PIECE.fullmatch(token) else NORMAL


def fields_of(tokenizer: GgufTokenizer, *, size: int | None = None) -> TokenizerFields:
    """Inverse of `load_fields`. `size`: entries to write, at least the vocabulary's; the rest are unused ones."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _fields_of_sentencepiece(tokenizer, size or tokenizer.vocab_size)
    return _fields_of_byte_bpe(tokenizer, size or tokenizer.vocab_size)


def _fields_of_byte_bpe(tokenizer: ByteBpeTokenizer, size: int) -> TokenizerFields:
    tokens, kinds = _unused(size)
    for id in range(tokenizer.vocab_size):
        data = tokenizer.token_bytes(id)
        if data:
            tokens[id], kinds[id] = spell(data), NORMAL
    for name, id in tokenizer.whole.items():
        tokens[id], kinds[id] = name, USER_DEFINED
    # Of several names of one id the file's own comes first, and it is the one to write.
    for name, id in reversed(list(tokenizer.special.items())):
        tokens[id], kinds[id] = name, CONTROL
    return TokenizerFields(
        model=_BYTE_BPE,
        pre="llama-bpe" if tokenizer.split == LLAMA3_SPLIT else "gpt-2",
        tokens=tokens,
        token_types=kinds,
        merges=[f"{left} {right}" for left, right in tokenizer.merges()],
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_ids[0] if tokenizer.eos_ids else None,
        eot_id=tokenizer.special.get(END_OF_TURN),
        eom_id=tokenizer.special.get(END_OF_MESSAGE),
        pad_id=tokenizer.pad_id,
        add_bos=True,
    )


def _fields_of_sentencepiece(tokenizer: SentencePieceTokenizer, size: int) -> TokenizerFields:
    tokens, kinds = _unused(size)
    scores = [0.0] * size
    for id, piece in enumerate(tokenizer.pieces):
        kind = piece.kind if not tokenizer.is_special(id) or piece.kind == UNKNOWN else CONTROL
        tokens[id], scores[id], kinds[id] = piece.text, piece.score, kind
    return TokenizerFields(
        model=_SENTENCEPIECE,
        pre="default",
        tokens=tokens,
        scores=scores,
        token_types=kinds,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_ids[0] if tokenizer.eos_ids else None,
        unk_id=tokenizer.unk_id,
        pad_id=tokenizer.pad_id,
        add_bos=True,
        add_space_prefix=tokenizer.strips_leading_space,
    )


def _unused(size: int) -> tuple[list[str], list[int]]:
    return [f"[unused{id}]" for id in range(size)], [UNUSED] * size
