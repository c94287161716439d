"""The tokenizer fields that a GGUF file carries, as plain data; knows no file and no tensor.

The checkpoint reader fills this record from `tokenizer.ggml.*` metadata, the tokenizer is built from
it, and the GGUF writer stores it back. Nothing here is trusted: who builds a tokenizer checks ids
against the number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFields:
    """One field per `tokenizer.ggml.*` key; None where the file does not have it."""

    model: str
    """`llama` is SentencePiece BPE with scores, `gpt2` is byte-level BPE with merges."""
    tokens: list[str]
    """Text of each id; byte-level BPE spells bytes in the GPT-2 alphabet ("Ġ" is a space)."""
    pre: str | None = None
    """Which split expression comes before BPE: `llama-bpe` for Llama 3, else `default`."""
    scores: list[float] | None = None
    token_types: list[int] | None = None
    """1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""
    merges: list[str] | None = None
    """Byte-level BPE merges, best first, two token texts parted by one space."""
    bos_id: int | None = None
    eos_id: int | None = None
    eot_id: int | None = None
    eom_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    add_bos: bool | None = None
    add_space_prefix: bool | None = None
    chat_template: str | None = None
    """Jinja source, kept only to recognise the prompt format; it is never executed."""
