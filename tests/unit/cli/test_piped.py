"""Standard input: taken when something comes, and not waited for without end when nothing does."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest

from llamakit.cli import piped
from llamakit.core.errors import InvalidRequest


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of a pipe that is standard input."""
    reading, writing = os.pipe()
    stdin = os.fdopen(reading, "r")
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(piped, "NOTICE_S", 0.01)
    monkeypatch.setattr(piped, "PATIENCE_S", 0.05)
    yield writing
    stdin.close()


def test_what_comes_is_taken(pipe: int) -> None:
    os.write(pipe, b"hello\n")
    os.close(pipe)
    assert piped.read_piped(is_needed=False) == "hello\n"


def test_an_end_without_text_is_empty(pipe: int) -> None:
    os.close(pipe)
    assert piped.read_piped(is_needed=True) == ""


def test_silence_is_not_waited_for_where_there_are_words(pipe: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert piped.read_piped(is_needed=False) is None
    os.close(pipe)
    told = capsys.readouterr().err
    assert "waiting for standard input" in told and "answering the words alone" in told


def test_files_and_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    assert piped.read_piped(is_needed=False) == "text"
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert piped.read_piped(is_needed=False) == ""
    monkeypatch.setattr(sys, "stdin", None)
    assert piped.read_piped(is_needed=True) == ""


def test_more_than_any_context_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piped, "MAX_CHARS", 10)
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 11))
    with pytest.raises(InvalidRequest, match="more than 10 characters"):
        piped.read_piped(is_needed=True)
