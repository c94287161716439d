"""Text of strangers made fit for a model to read: one line, no mark-up, no hidden characters, bounded."""

from __future__ import annotations

import html
import re
import unicodedata

_INLINE_TAG = re.compile(r"</?(?:b|i|em|strong|mark|span|u|a|code)(?:\s[^<>]{0,500})?>", re.IGNORECASE)
"""Stands inside of words, such as what services mark their hits with."""
_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,500}>")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Categories of characters that nobody sees: controls, formats (which turn text around), surrogates, private ones."""
_KEPT = frozenset({"\u200c", "\u200d"})
"""Joiners that Persian, Hindi and others spell words with."""


def plain(text: object, most: int) -> str:
    """At most `most` characters of the text in one line; an empty text for what is none."""
    if not isinstance(text, str):
        return ""
    # Twice: what was escaped may have been mark-up of its own.
    text = _without_tags(html.unescape(_without_tags(text[: 8 * most])))
    shown = (char if _is_shown(char) else " " for char in text)
    line = " ".join("".join(shown).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _without_tags(text: str) -> str:
    return _TAG.sub(" ", _INLINE_TAG.sub("", text))


def _is_shown(char: str) -> bool:
    return char in _KEPT or unicodedata.category(char) not in _HIDDEN
