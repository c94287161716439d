"""The Llama 3 `tokenizer.model`: lines of "base64(bytes) rank", 256 control tokens after the last rank.

Reads, checks and writes that file. A hostile file costs at most time linear in its size.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from pathlib import Path

from llamakit.core.errors import TokenizerError
from llamakit.text.byte_bpe import ByteBpeTokenizer, spell
from llamakit.text.specials import llama3_specials
from llamakit.text.tokenizer_files import MAX_ENTRIES, MAX_TOKEN_BYTES, read_limited


def looks_like_tiktoken(head: bytes) -> bool:
    """Whether a file that starts with `head` is of this kind: base64, one space, digits."""
    token, space, rank = head.split(b"\n", 1)[0].rstrip(b"\r").partition(b" ")
    return bool(space) and rank.isdigit() and _is_base64(token)


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of the file, place = rank; every line is checked."""
    lines = read_limited(path).splitlines()
    while lines and not lines[-1]:
        lines.pop()
    if not 256 <= len(lines) <= MAX_ENTRIES:
        raise TokenizerError(f"{path}: {len(lines)} entries; wanted 256 to {MAX_ENTRIES}")
    tokens: list[bytes] = [b""] * len(lines)
    for number, line in enumerate(lines, 1):
        token, rank = _entry(path, number, line)
        if rank >= len(tokens):
            raise TokenizerError(f"{path}: line {number}: rank {rank} in a file of {len(tokens)} entries")
        if tokens[rank]:
            raise TokenizerError(f"{path}: line {number}: rank {rank} appears twice")
        tokens[rank] = token
    if len(set(tokens)) != len(tokens):
        raise TokenizerError(f"{path}: two ranks share one token")
    return tokens


def _entry(path: Path, number: int, line: bytes) -> tuple[bytes, int]:
    encoded, _, digits = line.partition(b" ")
    try:
        token = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error as fault:
        raise TokenizerError(f"{path}: line {number}: bad base64 ({fault})") from None
    if not 0 < len(token) <= MAX_TOKEN_BYTES:
        raise TokenizerError(f"{path}: line {number}: a token of {len(token)} bytes; wanted 1 to {MAX_TOKEN_BYTES}")
    if not digits.isdigit() or len(digits) > 9:
        raise TokenizerError(f"{path}: line {number}: wanted a rank after the token, found {digits[:20]!r}")
    return token, int(digits)


def _is_base64(text: bytes) -> bool:
    try:
        return bool(binascii.a2b_base64(text, strict_mode=True))
    except binascii.Error:
        return False


def write_ranks(path: Path, tokens: Sequence[bytes]) -> None:
    """Inverse of `read_ranks`."""
    lines = (binascii.b2a_base64(token, newline=False) + b" %d\n" % rank for rank, token in enumerate(tokens))
    path.write_bytes(b"".join(lines))


def load_tiktoken(path: Path) -> ByteBpeTokenizer:
    """The tokenizer of a Llama 3 `tokenizer.model`."""
    tokens = read_ranks(path)
    vocab = {spell(token): rank for rank, token in enumerate(tokens)}
    try:
        return ByteBpeTokenizer(vocab=vocab, merges=merges_of(vocab), specials=llama3_specials(len(tokens)))
    except TokenizerError as fault:
        raise TokenizerError(f"{path}: {fault}") from None


def merges_of(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of entries whose join is an entry too, in the order of the join's rank.

    `vocab` lists its entries by rank. Merging by rank means that any two neighbours whose join is known may
    merge, so all splits of each entry count, not only the one it was learned from.
    """
    return [
        (left, right)
        for token in vocab
        for i in range(1, len(token))
        if (left := token[:i]) in vocab and (right := token[i:]) in vocab
    ]
