"""What an answer comes down to: the letter of a choice, or the result of a calculation."""

from __future__ import annotations

import re
from fractions import Fraction

CHOICE_PATTERNS = (
    r"(?i)(?:final|correct|best)?\s*answer\s*(?:is|:)?\s*\**\s*\(?([A-J])\b\)?",
    r"(?i)\\boxed\{\s*(?:\\text\{)?\s*\(?([A-J])\b",
    r"(?m)^\s*\(?([A-J])\)?\s*[.:)]?\s*$",
)
"""How models name the choice they made; the last match of the first pattern that matches counts."""

_BOXED = "\\boxed{"
_SAID = re.compile(r"(?:answer|result)\s*(?:is|:|=)\s*([^\n]{1,200})", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}")
_WORDS = re.compile(r"\\(?:text|mathrm|mbox)\{([^{}]{0,80})\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:/-?\d+(?:\.\d+)?)?")


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}`, its braces balanced; None where there is none."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, begin = 1, start + len(_BOXED)
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return None


def result_of(text: str) -> str:
    """The result that a worked answer ends with: boxed, or said to be it, or the last line."""
    found = boxed(text)
    if found is None:
        said = _SAID.findall(text)
        lines = [line for line in text.splitlines() if line.strip()]
        found = said[-1] if said else (lines[-1] if lines else "")
    return found.strip().rstrip(".").strip()


def same_result(first: str, second: str) -> bool:
    """Whether two results are one: as numbers where both are, else as they are written, spaces aside."""
    one, other = _plain(first), _plain(second)
    left, right = _value(one), _value(other)
    if left is not None and right is not None:
        return left == right
    return one == other


def _plain(text: str) -> str:
    text = _WORDS.sub(r"\1", _FRACTION.sub(r"\1/\2", text))
    for gone in ("$", "\\left", "\\right", "\\!", "\\,", "\\%", "%", "^\\circ", "\\degree", "€", "£"):
        text = text.replace(gone, "")
    return _THOUSANDS.sub("", re.sub(r"\s+", "", text)).rstrip(".").lower()


def _value(text: str) -> Fraction | None:
    text = text.rpartition("=")[2]
    if _NUMBER.fullmatch(text) is None or len(text) > 100:
        return None
    above, _, below = text.partition("/")
    try:
        return Fraction(above) / Fraction(below or 1)
    except ZeroDivisionError:
        return None
