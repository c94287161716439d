"""Finds where a bracket that was opened closes again, in text that comes in pieces.

Knows strings in either quote, single or triple, and their escapes; knows nothing of what is inside. Each
character is looked at once.
"""

from __future__ import annotations

import re
from typing import Final

from llamakit.text.calls.literals import MAX_DEPTH

_CLOSER: Final = {"{": "}", "[": "]", "(": ")"}
_OUTSIDE = re.compile(r"""["'{}\[\]()]""")
_INSIDE = {"'": re.compile(r"['\\]"), '"': re.compile(r'["\\]')}
# One value, its wrapper and the brackets of a call around the deepest literal that can be read.
_MAX_OPEN: Final = MAX_DEPTH + 4


class Brackets:
    """State between pieces. `closed` and `broken` say that it is over, and how."""

    def __init__(self) -> None:
        self.closed = False
        self.broken = False
        self._open: list[str] = []
        self._quote = ""
        self._opening = 0  # quotes seen of a string that may turn out triple
        self._triple = False
        self._run = 0  # quotes in a row inside a triple string
        self._escaped = False

    def feed(self, text: str, at: int) -> int:
        """Go on from `at`; returns the place after the last character that was taken."""
        while at < len(text) and not (self.closed or self.broken):
            at = self._in_string(text, at) if self._quote else self._outside(text, at)
        return at

    def _outside(self, text: str, at: int) -> int:
        found = _OUTSIDE.search(text, at)
        if not found:
            return len(text)
        char = found.group()
        if char in "\"'":
            self._quote, self._opening, self._triple, self._run = char, 1, False, 0
        elif char in _CLOSER:
            self._open.append(_CLOSER[char])
            self.broken = len(self._open) > _MAX_OPEN
        elif self._open and self._open[-1] == char:
            self._open.pop()
            self.closed = not self._open
        else:
            self.broken = True
        return found.end()

    def _in_string(self, text: str, at: int) -> int:
        char = text[at]
        if self._opening:
            return self._open_string(char, at)
        if self._escaped:
            self._escaped = False
            return at + 1
        if char == self._quote:
            self._run += 1
            if not self._triple or self._run == 3:
                self._quote = ""
            return at + 1
        self._run = 0
        if char == "\\":
            self._escaped = True
            return at + 1
        found = _INSIDE[self._quote].search(text, at)
        return found.start() if found else len(text)

    def _open_string(self, char: str, at: int) -> int:
        """Decide between `'`, the empty string `''` and `'''`."""
        if char == self._quote:
            self._opening += 1
            if self._opening == 3:
                self._opening, self._triple = 0, True
            return at + 1
        if self._opening == 2:
            self._quote = ""
        self._opening = 0
        return at
