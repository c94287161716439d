"""Text on standard input: read whole when it is piped, without waiting for ever on a pipe nobody writes to."""

from __future__ import annotations

import io
import os
import select
import stat
import sys

from llamakit.cli.terminal import is_terminal, say
from llamakit.core.errors import InvalidRequest

MAX_CHARS = 64 << 20
NOTICE_S = 2.0
PATIENCE_S = 10.0
"""How long a silent pipe is waited for when there is something to answer without it."""


def read_piped(*, is_needed: bool) -> str | None:
    """What is piped in; None on a terminal, or when nothing came in time and it is not needed.

    Programs that start this one often leave it an open pipe and never write: then the words alone are answered, and
    that is said. Raises `InvalidRequest` for more than any context holds.
    """
    if sys.stdin is None or sys.stdin.closed:
        return ""
    if is_terminal(sys.stdin):
        return None
    if not _has_something(None if is_needed else PATIENCE_S):
        say(f"note: nothing came on standard input within {PATIENCE_S:g} s; answering the words alone", "warn")
        return None
    text = sys.stdin.read(MAX_CHARS + 1)
    if len(text) > MAX_CHARS:
        raise InvalidRequest(f"standard input holds more than {MAX_CHARS:,} characters; no context is that long")
    return text


def _has_something(patience_s: float | None) -> bool:
    """Whether a byte or the end arrives in time; True at once for what cannot be waited for."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, io.UnsupportedOperation):
        return True
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return True
    first = NOTICE_S if patience_s is None else min(NOTICE_S, patience_s)
    if select.select([descriptor], [], [], first)[0]:
        return True
    say("waiting for standard input ...", "faint")
    rest = None if patience_s is None else patience_s - first
    return bool(select.select([descriptor], [], [], rest)[0])
