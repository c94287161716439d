"""What people see: sizes, ages, tables, colour only where it belongs, and nothing that controls the terminal."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest

from llamakit.cli import terminal
from llamakit.cli.speaking import shower
from llamakit.hub.download import Progress


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (99_500, "99.5 KB"), (2_471_645_608, "2.5 GB"), (10**13, "10.0 TB"),
     (123_456_789, "123 MB"), (999_600, "1.0 MB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert terminal.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (86400 * 3, "3 days ago"), (-5, "just now")],
)
def test_ages(seconds: float, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert terminal.ago(now - timedelta(seconds=seconds), now) == text


def test_colour_is_for_terminals_and_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.paint("x", "bad", Screen()) == "\x1b[31mx\x1b[0m"
    assert terminal.paint("x", "bad", io.StringIO()) == "x"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal.paint("x", "bad", io.StringIO()) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("x", "bad", Screen()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.paint("x", "bad", Screen()) == "x"


def test_tables_are_aligned_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.put_table(("A", "LONGER"), [("xyz", "1"), ("q", "")])
    assert capsys.readouterr().out == "A    LONGER\nxyz  1\nq\n"


def test_tables_on_a_terminal_take_names_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen)
    terminal.put_table(("NAME", "X"), [("[red]evil\x1b[2J[/red]", "y")])
    assert "[red]evil�[2J[/red]" in screen.getvalue() and "\x1b[2J" not in screen.getvalue()


def test_a_transfer_in_a_pipe_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Transfer("x") as transfer:
        for done in range(0, 1001, 100):
            transfer(Progress(file="model.safetensors", done=done, total=1000))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "0 B of 1.0 KB" in lines[0]


def test_a_transfer_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.Transfer("x") as transfer:
        transfer(Progress(file="a[b]\x1b", done=500, total=1000))
        transfer(Progress(file="a[b]\x1b", done=1000, total=1000))
    assert "1.0/1.0 kB" in screen.getvalue() and "a[b]�" in screen.getvalue()


def test_questions_without_a_terminal_are_answered_no() -> None:
    assert terminal.confirm("Really?") is False


@pytest.mark.parametrize(
    ("typed", "agreed"), [("\n", True), ("y\n", True), ("n\n", False), ("", False), ("what\n", False)]
)
def test_questions(monkeypatch: pytest.MonkeyPatch, typed: str, agreed: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdin", Screen(typed))
    monkeypatch.setattr(sys, "stderr", Screen())
    assert terminal.confirm("Really?") is agreed


def test_answers_cannot_control_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen, pipe = Screen(), io.StringIO()
    for stream in (screen, pipe):
        shower(stream)("a\x1b]0;title\x07\tb\né\x9b\u00a0क\u094d\u200dष")
    assert screen.getvalue() == "a�]0;title�\tb\né�\u00a0क\u094d\u200dष", "joiners of scripts stay"
    assert pipe.getvalue() == "a\x1b]0;title\x07\tb\né\x9b\u00a0क\u094d\u200dष", "a pipe gets what was said"
