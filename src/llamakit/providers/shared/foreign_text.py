"""Text of strangers made fit for a model to read: one line, no mark-up, no hidden characters, bounded."""

from __future__ import annotations

import html
import re
import unicodedata

_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,500}>")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Categories of characters that nobody sees: controls, formats (which turn text around), surrogates, private ones."""
_KEPT = frozenset({"\u200c", "\u200d"})
"""Joiners that Persian, Hindi and others spell words with."""


def plain(text: object, most: int) -> str:
    """At most `most` characters of the text in one line; an empty text for what is none."""
    if not isinstance(text, str):
        return ""
    text = html.unescape(_TAG.sub(" ", text[: 8 * most]))
    # Once more: what was escaped may have been mark-up of its own.
    shown = (char if _is_shown(char) else " " for char in _TAG.sub(" ", text))
    line = " ".join("".join(shown).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _is_shown(char: str) -> bool:
    return char in _KEPT or unicodedata.category(char) not in _HIDDEN
