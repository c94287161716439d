"""Lines that a person types into the chat: history, completion, and several lines between triple quotes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from llamakit.cli.terminal import is_terminal

FENCE = '"""'
PROMPT = ">>> "
MORE = "... "

ReadLine = Callable[[str], str]
"""Asks with a prompt and returns the line; raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""


def read_message(read: ReadLine) -> str:
    """One message: a line, or everything from one `\"\"\"` to the next."""
    line = read(PROMPT)
    stripped = line.strip()
    head, opened, body = stripped.partition(FENCE)
    # A fence opens at the start of a message, or behind a command such as `/set system`.
    if not opened or (head and not head.startswith("/")):
        return line
    parts = [body]
    while FENCE not in parts[-1]:
        parts.append(read(MORE))
    text = "\n".join(parts).partition(FENCE)[0]
    return head + text


def line_reader(history: Path | None, words: Sequence[str]) -> ReadLine:
    """Reads from the terminal with history and completion of `words`; plainly where there is no terminal."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        return _read_plainly
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if history is not None:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(mode=0o600)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history is not None and history.is_file() else InMemoryHistory(),
        completer=WordCompleter(list(words), sentence=True),
        complete_while_typing=False,
        enable_open_in_editor=True,
    )
    return session.prompt


def _read_plainly(prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")
