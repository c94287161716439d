"""Finds the first of several stop strings in text that comes in pieces.

One automaton for all strings (Aho and Corasick, 1975), so each character costs the same however many there
are. Text that could be the beginning of a stop string is held back until it is not.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence


class StopMatcher:
    """Matcher for one text. After a match, all that is pushed is swallowed."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._found: list[str | None] = [None]
        self._fail = [0]
        for stop in stops:
            self._add(stop)
        self._link()
        first = "".join(map(re.escape, self._next[0]))
        self._first = re.compile(f"[{first}]") if first else None
        self._state = 0
        self._held = ""
        self._stopped = self._found[0] is not None

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that is certainly before any stop string, and the stop string if this piece completes one.

        Where two end at the same character the longer one counts.
        """
        if self._stopped:
            return "", None
        at = 0
        while at < len(text):
            if self._state == 0:
                at = self._skip(text, at)
                if at == len(text):
                    break
            self._state = self._step(self._state, text[at])
            at += 1
            found = self._found[self._state]
            if found is not None:
                self._stopped = True
                whole = self._held + text[:at]
                self._held = ""
                return whole[: len(whole) - len(found)], found
        whole = self._held + text
        sure = len(whole) - self._depth[self._state]
        self._held = whole[sure:]
        return whole[:sure], None

    def flush(self) -> str:
        """What was held back, now that the text has ended."""
        held, self._held = self._held, ""
        return held

    def _skip(self, text: str, at: int) -> int:
        """Place of the next character with which a stop string begins."""
        found = self._first.search(text, at) if self._first else None
        return found.start() if found else len(text)

    def _step(self, state: int, char: str) -> int:
        while state and char not in self._next[state]:
            state = self._fail[state]
        return self._next[state].get(char, 0)

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
                self._fail.append(0)
            state = self._next[state][char]
        if state:
            self._found[state] = stop

    def _link(self) -> None:
        """Where to go on when a character does not fit: the longest other beginning that the text ends in."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for char, child in self._next[state].items():
                self._fail[child] = self._step(self._fail[state], char)
                self._found[child] = self._found[child] or self._found[self._fail[child]]
                waiting.append(child)
