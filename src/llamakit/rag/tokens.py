"""How many tokens a text has, about: an estimate without a vocabulary, so chunks are cut alike whatever model embeds.

Against Llama 3's tokenizer it counts 2 % too few to 25 % too many on English prose, tables and code, up to a third too
few on long compound words, and up to twice as many on Japanese.
"""

from __future__ import annotations

import re

_PIECE = re.compile(r"[^\W\d_]+|\d+|[^\w\s]+|_+|\n+|[ \t]{2,}")
_LATIN_END, _IDEOGRAPHS = "\u0250", "\u2e80"
_WHOLE_WORD = 7
"""Letters up to which a Latin word is mostly one token."""


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, about."""
    return sum(_tokens_of(found.group()) for found in _PIECE.finditer(text))


def _tokens_of(piece: str) -> int:
    first, size = piece[0], len(piece)
    if first.isdigit():
        return -(-size // 3)
    if first.isspace():
        return 1
    if not first.isalpha():
        return -(-size // 2)
    if first >= _IDEOGRAPHS:
        return size
    if first >= _LATIN_END:
        return -(-size // 3)
    return 1 if size <= _WHOLE_WORD else -(-size // 6)
