"""Byte-level BPE, the tokenizer of Llama 3: split by a pattern, then merge bytes by rank.

Short texts are merged over a `MergeTable`, which is there at once; the first long one builds the machine of the
`tokenizers` library, which is faster by the character and takes half a second and 100 MiB to make. Both give the same
ids. Control tokens are kept out of them altogether, so text that spells one is always plain text. Knows no file
format; `tiktoken_file`, `hf_tokenizer` and `gguf_tokenizer` feed it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps

from llamakit.core.errors import TokenizerError
from llamakit.text.merge_table import MergeTable, packed
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

SHORT_CHARS: Final = 16_384
"""Characters of text, or bytes of one piece of it (a sixteenth of them), up to which no machine is built."""
_CACHED_PIECES = 1 << 14

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
        self._set(
            MergeTable(_table(vocab, merges, whole)),
            specials=specials,
            whole=whole,
            split=split,
            ignore_merges=ignore_merges,
            roles=(bos, eos, pad),
        )

    @classmethod
    def over(
        cls,
        table: MergeTable,
        *,
        specials: Mapping[str, int],
        split: str,
        ignore_merges: bool,
        roles: tuple[str | None, str | None, str | None],
    ) -> ByteBpeTokenizer:
        """The tokenizer over the table of another one, without whole tokens; `roles` name bos, eos and pad."""
        made = cls.__new__(cls)
        made._set(table, specials=specials, whole={}, split=split, ignore_merges=ignore_merges, roles=roles)
        return made

    def _set(
        self,
        table: MergeTable,
        *,
        specials: Mapping[str, int],
        whole: Mapping[str, int],
        split: str,
        ignore_merges: bool,
        roles: tuple[str | None, str | None, str | None],
    ) -> None:
        bos, eos, pad = self.roles = roles
        self.table = table
        self.split, self.ignore_merges = split, ignore_merges
        self.special = with_canonical_names(specials)
        self.whole = dict(whole)
        self.vocab_size = 1 + max(table.num_ids - 1, *self.special.values(), *whole.values(), 0)
        self._special_ids = frozenset(self.special.values())
        self._whole_bytes = {id: token.encode() for token, id in whole.items()}
        self._byte_ids = [_required(table, bytes([byte])) for byte in range(256)]
        self._splitter = Split(Regex(split), behavior="isolated")
        self._merged = lru_cache(maxsize=_CACHED_PIECES)(self._merge)
        self._machine: Tokenizer | None = None
        self._building = threading.Lock()
        self.bos_id = self.special.get(bos or BEGIN_OF_TEXT)
        self.eos_ids = pick(self.special, (eos or END_OF_TEXT, END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN))
        self.pad_id = self.special.get(pad or RIGHT_PAD)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no BOS, and spelled control tokens stay text."""
        text = well_formed(text)
        if self._machine is None and not self.whole and len(text) <= SHORT_CHARS:
            pieces = [piece for piece, _ in self._splitter.pre_tokenize_str(text)]
            if all(len(piece) <= SHORT_CHARS // 64 for piece in pieces):
                return [id for piece in pieces for id in self._merged(piece)]
        machine = self._whole_machine()
        ids: list[int] = []
        for piece in guarded_pieces(text):
            ids += machine.encode(piece, add_special_tokens=False).ids
        return ids

    def encode_continuation(self, text: str) -> list[int]:
        """The same: byte-level BPE puts nothing in front of a text."""
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control tokens are omitted, bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one token; empty for control tokens and for ids the vocabulary does not have."""
        if token_id in self._whole_bytes:
            return self._whole_bytes[token_id]
        return self.table.token(token_id) if 0 <= token_id < self.table.num_ids else b""

    def is_special(self, token_id: int) -> bool:
        """Whether `token_id` is a control token."""
        return token_id in self._special_ids

    def merges(self) -> list[tuple[str, str]]:
        """The merge table in order, spelled in the byte alphabet, for export."""
        names = {id: token for token, id in self.whole.items()} | {
            id: spell(token) for token, id in self.table.tokens()
        }
        return [(names[left], names[right]) for left, right in self.table.merges()]

    def _merge(self, piece: str) -> tuple[int, ...]:
        data = piece.encode()
        if self.ignore_merges and (known := self.table.id_of(data)) is not None:
            return (known,)
        return tuple(self.table.merge([self._byte_ids[byte] for byte in data]))

    def _whole_machine(self) -> Tokenizer:
        with self._building:
            if self._machine is None:
                vocab = {spell(token): id for token, id in self.table.tokens()}
                self._machine = _machine(vocab, self.merges(), self.whole, self.split, self.ignore_merges)
            return self._machine


def _table(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], whole: Mapping[str, int]) -> bytes:
    tokens = {unspell(token): id for token, id in vocab.items() if token not in whole}
    # A whole token that is new to the vocabulary is listed there, so that it keeps the id of the file.
    ids = {**vocab, **whole}
    try:
        lefts, rights = [ids[left] for left, _ in merges], [ids[right] for _, right in merges]
        return packed(tokens, lefts, rights, [ids[left + right] for left, right in merges])
    except KeyError as fault:
        raise TokenizerError(f"the merge table is inconsistent: {fault} is part of a merge and no token") from None


def _required(table: MergeTable, token: bytes) -> int:
    id = table.id_of(token)
    if id is None:
        raise TokenizerError(f"a byte-level vocabulary needs all 256 bytes; 0x{token.hex()} is missing")
    return id


def _machine(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    whole: Mapping[str, int],
    split: str,
    ignore_merges: bool,
) -> Tokenizer:
    machine = Tokenizer(BPE(vocab={**vocab, **whole}, merges=list(merges), ignore_merges=ignore_merges))
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
