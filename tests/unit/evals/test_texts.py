from __future__ import annotations

import pytest
from tests.tiny import ByteTokenizer

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.evals.texts import held_out, windows_of_text


class Chatty:
    """A prompt format in which every message is its text."""

    def render_training(self, messages, tools=(), options=None) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        trained: list[bool] = []
        for message in messages:
            text = list(message.text.encode())
            ids += text
            trained += [message.role == "assistant"] * len(text)
        return ids, trained


class Silent:
    """A format without words for conversations."""

    def render_training(self, messages, tools=(), options=None) -> tuple[list[int], list[bool]]:
        raise InvalidRequest("no conversations")


def test_windows_cover_a_text_once() -> None:
    found = windows_of_text("abcdefghij", ByteTokenizer(), length=5, limit=100)
    assert [window.ids for window in found] == [(256, *b"abcd"), (256, *b"efgh"), (256, *b"ij")]
    assert [window.places for window in found] == [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1)]
    short = windows_of_text("abcdefghij", ByteTokenizer(), length=5, limit=6)
    assert sum(len(window.places) for window in short) == 6
    for length, limit in ((1, 5), (5, 0)):
        with pytest.raises(ConfigError, match="a window wants"):
            windows_of_text("ab", ByteTokenizer(), length=length, limit=limit)


def test_what_the_assistant_says_is_scored_and_always_the_same() -> None:
    first, second = (held_out(Chatty(), ByteTokenizer(), length=400, limit=700) for _ in range(2))
    assert first == second
    assert sum(len(window.places) for window in first) == 700
    assert all(len(window.ids) <= 400 for window in first)
    ids, trained = Chatty().render_training(())
    assert (ids, trained) == ([], [])
    # A window begins with what the user says, which is read and not scored.
    assert first[0].places[0] > 0


def test_without_words_for_conversations_text_is_read_plainly() -> None:
    found = held_out(Silent(), ByteTokenizer(), length=300, limit=500)
    assert sum(len(window.places) for window in found) == 500
    assert found[0].ids[0] == 256
