"""Byte-level BPE, the tokenizer of Llama 3: split by a pattern, then merge bytes by rank.

The merging runs in the `tokenizers` library. Control tokens are kept out of it altogether, so text that
spells one is always plain text. Knows no file format; `tiktoken_file`, `hf_tokenizer` and `gguf_tokenizer`
feed it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps

from llamakit.core.errors import TokenizerError
from llamakit.text.specials import (
    BEGIN_OF_TEXT,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    RIGHT_PAD,
    pick,
    with_canonical_names,
)

LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Split pattern of Llama 3; digits group by up to three from the left."""

GPT2_SPLIT: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Split pattern that the byte-level step of `tokenizers` has built in."""

# Meta's guards: a piece of text handed to the engine, and a run without a change between space and non-space.
MAX_PIECE_CHARS: Final = 400_000
MAX_RUN_CHARS: Final = 25_000

_RUN = re.compile(r"\s+|\S+")


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where printable, else the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(spare)) for byte in range(256)}


_ALPHABET: Final = _byte_alphabet()
_FROM_ALPHABET: Final = {ord(char): byte for byte, char in _ALPHABET.items()}


def spell(token: bytes) -> str:
    """Bytes in the byte-to-unicode alphabet ("Ġ" for a space)."""
    return token.decode("latin-1").translate(_ALPHABET)


def unspell(token: str) -> bytes:
    """Inverse of `spell`; a character outside the alphabet raises TokenizerError."""
    try:
        return token.translate(_FROM_ALPHABET).encode("latin-1")
    except UnicodeEncodeError:
        raise TokenizerError(f"token {token[:40]!r} is not written in the byte-level alphabet") from None


class ByteBpeTokenizer:
    """Text to ids and back by byte-level BPE; see `tokenizer.Tokenizer` for the contract."""

    kind = "byte_bpe"
    strips_leading_space = False

    def __init__(
        self,
        *,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        specials: Mapping[str, int],
        whole: Mapping[str, int] = MappingProxyType({}),
        split: str = LLAMA3_SPLIT,
        ignore_merges: bool = True,
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
    ) -> None:
        """`vocab` and `merges` are spelled in the byte alphabet; `specials` are not part of `vocab`.

        `whole` are tokens matched in text before it is split. `bos`, `eos` and `pad` name tokens where the
        file says which they are; otherwise they are Llama 3's.
        """
        missing = [byte for byte, char in _ALPHABET.items() if char not in vocab]
        if missing:
            raise TokenizerError(f"a byte-level vocabulary needs all 256 bytes; 0x{missing[0]:02x} is missing")
        self.split = split
        self.special = with_canonical_names(specials)
        self.whole = dict(whole)
        self.vocab_size = 1 + max(*vocab.values(), *self.special.values(), *whole.values())
        self._special_ids = frozenset(self.special.values())
        self._bytes = _bytes_by_id(vocab, self.whole, self.vocab_size)
        self._bpe = _machine(vocab, merges, self.whole, split, ignore_merges)
        self.bos_id = self.special.get(bos or BEGIN_OF_TEXT)
        self.eos_ids = pick(self.special, (eos or END_OF_TEXT, END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN))
        self.pad_id = self.special.get(pad or RIGHT_PAD)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no BOS, and spelled control tokens stay text."""
        ids: list[int] = []
        for piece in guarded_pieces(well_formed(text)):
            ids += self._bpe.encode(piece, add_special_tokens=False).ids
        return ids

    def encode_continuation(self, text: str) -> list[int]:
        """The same: byte-level BPE puts nothing in front of a text."""
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control tokens are omitted, bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one token; empty for control tokens and for ids the vocabulary does not have."""
        return self._bytes[token_id] if 0 <= token_id < self.vocab_size else b""

    def is_special(self, token_id: int) -> bool:
        """Whether `token_id` is a control token."""
        return token_id in self._special_ids

    def merges(self) -> list[tuple[str, str]]:
        """The merge table in order, spelled in the byte alphabet; read back from the engine, for export."""
        return [(left, right) for left, right in json.loads(self._bpe.to_str())["model"]["merges"]]


def _bytes_by_id(vocab: Mapping[str, int], whole: Mapping[str, int], size: int) -> list[bytes]:
    table = [b""] * size
    for token, id in vocab.items():
        if token not in whole:
            table[id] = unspell(token)
    for token, id in whole.items():
        table[id] = token.encode()
    return table


def _machine(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    whole: Mapping[str, int],
    split: str,
    ignore_merges: bool,
) -> Tokenizer:
    # A whole token that is new to the vocabulary is listed there, so that it keeps the id of the file.
    try:
        bpe = BPE(vocab={**vocab, **whole}, merges=list(merges), ignore_merges=ignore_merges)
    except Exception as fault:  # noqa: BLE001 - the library raises bare Exception for every kind of fault
        raise TokenizerError(f"the merge table is inconsistent: {fault}") from None
    machine = Tokenizer(bpe)
    machine.pre_tokenizer = Steps(
        [Split(Regex(split), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    machine.add_tokens([AddedToken(token, normalized=False, special=False) for token in whole])
    return machine


def well_formed(text: str) -> str:
    """`text` as valid Unicode: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def guarded_pieces(text: str) -> Iterator[str]:
    """`text` in Meta's pieces: at most 400,000 characters, no run of more than 25,000 of one kind."""
    if len(text) <= MAX_RUN_CHARS:
        yield text
        return
    for start in range(0, len(text), MAX_PIECE_CHARS):
        yield from _short_runs(text[start : start + MAX_PIECE_CHARS])


def _short_runs(text: str) -> Iterator[str]:
    start = 0
    for run in _RUN.finditer(text):
        for cut in range(run.start() + MAX_RUN_CHARS, run.end(), MAX_RUN_CHARS):
            yield text[start:cut]
            start = cut
    yield text[start:]
