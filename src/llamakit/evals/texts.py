"""Texts to measure models on, as windows of ids: a file of the user's, or conversations that this project generates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import Message
from llamakit.data.conversations import TrainingFormat, encode
from llamakit.data.world.world import examples
from llamakit.evals.divergence import Window
from llamakit.text.tokenizer import Tokenizer

SEED = 2026
"""Of the held-out conversations: the one that the embedded model's card was measured with."""
_MOST_CONVERSATIONS = 4000


def windows_of_text(text: str, tokenizer: Tokenizer, *, length: int, limit: int) -> list[Window]:
    """Consecutive windows of at most `length` ids, each after the token that begins a text; every id is scored.

    Stops after `limit` scored ids.
    """
    if length < 2 or limit < 1:
        raise ConfigError(f"a window wants at least 2 tokens and one to score, got {length} and {limit}")
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids, step = tokenizer.encode(text), length - len(begin)
    pieces = ([*begin, *ids[start : start + step]] for start in range(0, len(ids), step))
    return list(_limited((Window(ids=tuple(p), places=tuple(range(len(p) - 1))) for p in pieces), limit))


def held_out(format: TrainingFormat, tokenizer: Tokenizer, *, length: int, limit: int) -> list[Window]:
    """Generated conversations of the split that was kept out of training; what the assistant says is scored.

    Where the prompt format has no words for a conversation it is read as plain text. Stops after `limit` scored ids.
    """
    return list(_limited(_conversations(format, tokenizer, length), limit))


def _conversations(format: TrainingFormat, tokenizer: Tokenizer, length: int) -> Iterator[Window]:
    for one in examples(SEED, "held", _MOST_CONVERSATIONS):
        try:
            document = encode(format, one.messages, one.tools)
        except InvalidRequest:
            yield from windows_of_text(_plain(one.messages), tokenizer, length=length, limit=length)
            continue
        ids = document.ids[:length]
        yield Window(ids=tuple(ids), places=tuple(i for i in range(len(ids) - 1) if document.trained[i + 1]))


def _plain(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.text for message in messages if message.text)


def _limited(windows: Iterable[Window], limit: int) -> Iterator[Window]:
    for window in windows:
        if limit <= 0:
            return
        places = window.places[:limit]
        if places:
            yield Window(ids=window.ids, places=places)
        limit -= len(places)
