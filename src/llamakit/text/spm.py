"""SentencePiece BPE, the tokenizer of Llama 1, Llama 2 and Code Llama.

A text is one piece of work: spaces become "▁", one is put in front, and characters merge by score; what the
vocabulary cannot spell falls back to bytes. The merging runs in the `tokenizers` library. Control tokens,
and the infilling tokens of Code Llama, are kept out of it, so text that spells one stays text. Knows no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from typing import Final, NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE

from llamakit.core.errors import TokenizerError
from llamakit.text.byte_bpe import well_formed
from llamakit.text.specials import CODE_LLAMA_SPECIALS, SPM_BEGIN, SPM_END, SPM_UNKNOWN
from llamakit.text.tokenizer_files import MAX_ENTRIES, MAX_TOKEN_BYTES

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

SPACE_MARK: Final = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class SpmPiece(NamedTuple):
    """One entry of the vocabulary; its place is its id."""

    text: str
    score: float
    kind: int


class SentencePieceTokenizer:
    """Text to ids and back by SentencePiece BPE; see `tokenizer.Tokenizer` for the contract."""

    kind = "sentencepiece"

    def __init__(
        self,
        pieces: Sequence[SpmPiece],
        *,
        unk_id: int | None,
        bos_id: int | None,
        eos_id: int | None,
        pad_id: int | None = None,
        dummy_prefix: bool = True,
        merges: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """`merges` in order, where a file lists them; otherwise they follow from the scores."""
        _check(pieces)
        self.pieces = tuple(pieces)
        self.vocab_size = len(pieces)
        self.strips_leading_space = dummy_prefix
        self.unk_id, self.bos_id, self.pad_id = (_present(id, len(pieces)) for id in (unk_id, bos_id, pad_id))
        self.eos_ids = tuple(id for id in (_present(eos_id, len(pieces)),) if id is not None)
        self.special = self._specials()
        self._special_ids = frozenset(self.special.values())
        self._bytes = [self._bytes_of(id, piece) for id, piece in enumerate(pieces)]
        self._bpe = self._machine(merges)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text with the leading space SentencePiece adds: no BOS, spelled control tokens stay text."""
        return self._encode(text, prefix=SPACE_MARK if self.strips_leading_space else "")

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of text that goes on from other text: no leading space is added."""
        return self._encode(text, prefix="")

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without the added leading space; bytes that are not UTF-8 become U+FFFD."""
        data = b"".join(map(self.token_bytes, ids))
        return (data.removeprefix(b" ") if self.strips_leading_space else data).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one token, its space included; empty for control tokens and unknown ids."""
        return self._bytes[token_id] if 0 <= token_id < self.vocab_size else b""

    def is_special(self, token_id: int) -> bool:
        """Whether `token_id` is a control token."""
        return token_id in self._special_ids

    def _encode(self, text: str, *, prefix: str) -> list[int]:
        text = well_formed(text)
        if not text:
            return []
        return self._bpe.encode(prefix + text.replace(" ", SPACE_MARK), add_special_tokens=False).ids

    def _specials(self) -> dict[str, int]:
        named = {
            piece.text: id
            for id, piece in enumerate(self.pieces)
            if piece.kind in (CONTROL, UNKNOWN) or piece.text in CODE_LLAMA_SPECIALS
        }
        eos_id = self.eos_ids[0] if self.eos_ids else None
        for name, id in ((SPM_UNKNOWN, self.unk_id), (SPM_BEGIN, self.bos_id), (SPM_END, eos_id)):
            if id is not None:
                named.setdefault(name, id)
        return named

    def _bytes_of(self, id: int, piece: SpmPiece) -> bytes:
        if id in self._special_ids:
            return b""
        if piece.kind == BYTE:
            found = _BYTE_PIECE.fullmatch(piece.text)
            if not found:
                raise TokenizerError(f"byte piece {piece.text[:40]!r} is not of the form <0x00>")
            return bytes([int(found[1], 16)])
        return piece.text.replace(SPACE_MARK, " ").encode("utf-8")

    def _machine(self, merges: Sequence[tuple[str, str]] | None) -> Tokenizer:
        plain = [(id, piece) for id, piece in enumerate(self.pieces) if id not in self._special_ids]
        vocab = {piece.text: id for id, piece in plain if piece.kind in (NORMAL, BYTE, USER_DEFINED)}
        unknown = None
        if self.unk_id is not None:
            unknown = self.pieces[self.unk_id].text
            vocab[unknown] = self.unk_id
        ranked = sorted((piece for _, piece in plain if piece.kind == NORMAL), key=lambda piece: -piece.score)
        mergeable = {piece.text for piece in ranked}
        pairs = _splits(ranked, mergeable) if merges is None else [p for p in merges if "".join(p) in mergeable]
        try:
            bpe = BPE(vocab=vocab, merges=pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True)
        except Exception as fault:  # noqa: BLE001 - the library raises bare Exception for every kind of fault
            raise TokenizerError(f"the merge table is inconsistent: {fault}") from None
        machine = Tokenizer(bpe)
        whole = [AddedToken(p.text, normalized=False, special=False) for _, p in plain if p.kind == USER_DEFINED]
        machine.add_tokens(whole)
        return machine


def _splits(ranked: Sequence[SpmPiece], mergeable: Set[str]) -> list[tuple[str, str]]:
    """Every split of every piece into two pieces, best score first."""
    return [
        (piece.text[:i], piece.text[i:])
        for piece in ranked
        for i in range(1, len(piece.text))
        if piece.text[:i] in mergeable and piece.text[i:] in mergeable
    ]


def _check(pieces: Sequence[SpmPiece]) -> None:
    if not 0 < len(pieces) <= MAX_ENTRIES:
        raise TokenizerError(f"{len(pieces)} pieces; wanted 1 to {MAX_ENTRIES}")
    seen: set[str] = set()
    for id, piece in enumerate(pieces):
        if not piece.text or len(piece.text) > MAX_TOKEN_BYTES:
            raise TokenizerError(f"piece {id} has {len(piece.text)} characters; wanted 1 to {MAX_TOKEN_BYTES}")
        if piece.score != piece.score:
            raise TokenizerError(f"piece {id} has no number for a score")
        if piece.text in seen:
            raise TokenizerError(f"piece {id} repeats {piece.text[:40]!r}")
        seen.add(piece.text)


def _present(id: int | None, size: int) -> int | None:
    return id if id is not None and 0 <= id < size else None
