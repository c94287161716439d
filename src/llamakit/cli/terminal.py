"""What is shown to a person: tables, sizes, progress; colour on a terminal, plain text everywhere else.

Data goes to standard output, talk to standard error, so that a pipe carries only what was asked for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from llamakit.hub.download import Progress

Tone = Literal["plain", "strong", "faint", "good", "bad", "warn"]
_CODES: dict[Tone, str] = {"strong": "1", "faint": "2", "good": "32", "bad": "31", "warn": "33"}
_LINE_EVERY_S = 5.0


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads `stream`."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` gets colour: NO_COLOR forbids it, FORCE_COLOR asks for it, else a terminal has it."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def paint(text: str, tone: Tone, stream: TextIO) -> str:
    """`text` in a tone, where the stream has colour."""
    return f"\x1b[{_CODES[tone]}m{text}\x1b[0m" if tone in _CODES and has_colour(stream) else text


def say(text: str = "", tone: Tone = "plain") -> None:
    """Talk to the person, beside the data."""
    print(paint(text, tone, sys.stderr), file=sys.stderr, flush=True)


def put(text: str = "") -> None:
    """Data, one line."""
    print(text, flush=True)


def put_json(value: Any) -> None:
    """Data for programs."""
    put(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def put_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Data as aligned columns; the header stands out on a terminal, and lines are cut to its width."""
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.table import Table

        table = Table(
            box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold" if has_colour(sys.stdout) else ""
        )
        for place, name in enumerate(header):
            table.add_column(name, overflow="fold" if place == 0 else "ellipsis", no_wrap=place != 0)
        for row in rows:
            table.add_row(*(_plain(cell) for cell in row))
        Console(highlight=False).print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def put_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Data as `name  value` lines; a value of several lines is indented under its name."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        first, *more = value.splitlines() or [""]
        put(f"{paint(name.ljust(width), 'faint', sys.stdout)}  {first}".rstrip())
        for line in more:
            put(f"{' ' * width}  {line}".rstrip())


def size(count: int) -> str:
    """Bytes in a unit that people read."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 99.95 or unit == "B" else f"{value:.1f} {unit}"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long since `moment`."""
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def confirm(question: str, *, default: bool = True) -> bool:
    """Ask the person; Enter means `default`, no terminal and no line mean no."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    print(f"{question} {'[Y/n]' if default else '[y/N]'} ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() in (("", "y", "yes") if default else ("y", "yes"))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something takes a while, on a terminal only."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


class Transfer:
    """Shows a download: a bar on a terminal, a line every few seconds elsewhere. Use as a context manager."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None
        self._task: Any = None
        self._said = float("-inf")

    def __enter__(self) -> Transfer:
        if is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._bar.start()
        return self

    def __call__(self, progress: Progress) -> None:
        """Take news of the download."""
        if self._bar is not None:
            if self._task is None:
                # What an earlier attempt left counts as done, not as speed.
                self._task = self._bar.add_task(self._what, total=progress.total, completed=progress.done)
            self._bar.update(self._task, completed=progress.done, description=_plain(progress.file))
        elif time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            share = progress.done / max(progress.total, 1)
            say(f"{self._what}: {share:4.0%}  {size(progress.done)} of {size(progress.total)}  {_plain(progress.file)}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _plain(text: str) -> str:
    """Text in which nothing is taken for markup or for control of the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text).replace("[", "\\[")
