"""The contract of every tokenizer, and how a path or a record becomes one.

Which file is what is decided by content, never by name alone: HF's `tokenizer.json`, Llama 3's
tiktoken lines and SentencePiece's protobuf all turn up as "the tokenizer".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from llamakit.core.errors import TokenizerError
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.tiktoken_file import load_tiktoken, looks_like_tiktoken


class Tokenizer(Protocol):
    """Text to ids and back. Control tokens are reached by name through `special`, never by text."""

    @property
    def kind(self) -> str:
        """`byte_bpe` (Llama 3) or `sentencepiece` (Llama 1 and 2, Code Llama)."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        ...

    @property
    def special(self) -> Mapping[str, int]:
        """Control tokens by name; Meta's names are always among them where the ids exist."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Begins every text; the prompt format adds it, `encode` does not."""
        ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every id that can end a text or a turn."""
        ...

    @property
    def pad_id(self) -> int | None:
        """Fills a batch to equal lengths, where the vocabulary has an id for that."""
        ...

    @property
    def strips_leading_space(self) -> bool:
        """Whether `decode` drops the one space that encoding put in front of a text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no BOS, and text that spells a control token stays text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control tokens are omitted, bytes that are not UTF-8 become U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one token; empty for control tokens and for ids the vocabulary does not have."""
        ...

    def is_special(self, token_id: int) -> bool:
        """Whether `token_id` is a control token."""
        ...


_HEAD_BYTES = 4096


def load_tokenizer(source: str | Path | TokenizerFields) -> Tokenizer:
    """The tokenizer of a file, of a directory that holds one, or of a GGUF file's fields."""
    if isinstance(source, TokenizerFields):
        raise TokenizerError(f"a vocabulary of kind {source.model!r} cannot be read")
    path = Path(source)
    if not path.exists():
        raise TokenizerError(f"{path}: no such file; wanted a tokenizer file or a directory that holds one")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if looks_like_tiktoken(head):
        return load_tiktoken(path)
    raise TokenizerError(f"{path}: not a tokenizer")
