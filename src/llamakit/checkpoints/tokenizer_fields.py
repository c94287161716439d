"""The tokenizer files of a directory -> the fields a GGUF file embeds; the inverse is `tokenizer_files`."""

from __future__ import annotations

import json
from pathlib import Path

from llamakit.core.errors import TokenizerError
from llamakit.text.byte_bpe import ByteBpeTokenizer, spell
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.specials import BEGIN_OF_TEXT, END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN
from llamakit.text.spm import SentencePieceTokenizer
from llamakit.text.tiktoken_file import merges_of
from llamakit.text.tokenizer import load_tokenizer
from llamakit.text.tokenizer_files import read_limited

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def read_fields(directory: Path) -> TokenizerFields:
    """Load and check the directory's tokenizer, then spell it as GGUF does; raises `TokenizerError`."""
    tokenizer = load_tokenizer(directory)
    if isinstance(tokenizer, ByteBpeTokenizer):
        return _byte_bpe(tokenizer, _merges(directory))
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _sentencepiece(tokenizer)
    raise TokenizerError(f"{directory}: a tokenizer of kind {tokenizer.kind!r} has no GGUF form")


def _merges(directory: Path) -> list[str] | None:
    """The merges a tokenizer.json lists; None where ranks alone order them."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    merges = json.loads(read_limited(path))["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _byte_bpe(tokenizer: ByteBpeTokenizer, merges: list[str] | None) -> TokenizerFields:
    tokens, kinds = [], []
    by_id = {token: name for name, token in reversed(tokenizer.special.items())}
    for token in range(tokenizer.vocab_size):
        plain = spell(tokenizer.token_bytes(token))
        tokens.append(by_id.get(token) or plain or f"[unused{token}]")
        kinds.append(_CONTROL if token in by_id else _NORMAL if plain else _UNUSED)
    if merges is None:
        vocab = {text: token for token, text in enumerate(tokens) if kinds[token] == _NORMAL}
        merges = [" ".join(pair) for pair in merges_of(vocab)]
    special = tokenizer.special
    # Published instruct files name the end of turn as the end; the base models' end stays reachable beside it.
    eos = special.get(END_OF_TURN, special.get(END_OF_TEXT))
    return TokenizerFields(
        model="gpt2",
        pre="llama-bpe",
        tokens=tokens,
        token_types=kinds,
        merges=merges,
        bos_id=special.get(BEGIN_OF_TEXT),
        eos_id=eos,
        eot_id=special.get(END_OF_TURN),
        eom_id=special.get(END_OF_MESSAGE),
        add_bos=True,
    )


def _sentencepiece(tokenizer: SentencePieceTokenizer) -> TokenizerFields:
    return TokenizerFields(
        model="llama",
        pre="default",
        tokens=[piece.text for piece in tokenizer.pieces],
        scores=[piece.score for piece in tokenizer.pieces],
        token_types=[piece.kind for piece in tokenizer.pieces],
        bos_id=tokenizer.bos_id,
        eos_id=next(iter(tokenizer.eos_ids), None),
        unk_id=tokenizer.unk_id,
        pad_id=tokenizer.pad_id,
        add_bos=True,
        add_space_prefix=tokenizer.strips_leading_space,
    )
