"""The contract of every tokenizer, and how a path or a record becomes one.

Which file is what is decided by content, never by name alone: HF's `tokenizer.json`, Llama 3's
tiktoken lines and SentencePiece's protobuf all turn up as "the tokenizer".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from llamakit.core.errors import TokenizerError
from llamakit.text.gguf_tokenizer import load_fields
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.hf_tokenizer import load_hf, looks_like_hf
from llamakit.text.spm_file import load_spm, looks_like_spm
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

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of text that goes on from other text: without the space SentencePiece puts in front."""
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
# `tokenizer.json` comes first: only it lists tokens that were added to a published vocabulary.
_FILES = ("tokenizer.json", "tokenizer.model")


def load_tokenizer(source: str | Path | TokenizerFields) -> Tokenizer:
    """The tokenizer of a file, of a directory that holds one, or of a GGUF file's fields.

    TokenizerError names the file and the fault; UnsupportedFormat a kind this build cannot run.
    """
    if isinstance(source, TokenizerFields):
        return load_fields(source)
    path = find_tokenizer(Path(source))
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if looks_like_tiktoken(head):
        return load_tiktoken(path)
    if looks_like_hf(head):
        return load_hf(path)
    if looks_like_spm(head):
        return load_spm(path)
    raise TokenizerError(
        f"{path}: not a tokenizer; wanted Llama 3's tiktoken lines, a SentencePiece model or HF's tokenizer.json"
    )


def find_tokenizer(path: Path) -> Path:
    """The tokenizer file that `path` is or, as a directory, holds."""
    if not path.is_dir():
        if path.is_file():
            return path
        raise TokenizerError(f"{path}: no such file; wanted a tokenizer file or a directory that holds one")
    found = next((path / name for name in _FILES if (path / name).is_file()), None)
    if found is None:
        raise TokenizerError(f"{path}: holds no tokenizer; wanted {' or '.join(_FILES)} in it")
    return found
