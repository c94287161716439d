"""JSON and Python literals as a model writes them, read leniently into JSON values, and written back.

A parser of our own: model text is never evaluated. It takes the union of both notations (either quotes,
`true` or `True`, tuples, trailing commas, bare keys), because models mix them. Time is linear in the
text, depth is limited, and the only error is LiteralFault. Values that JSON cannot carry are refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 4000
"""Python itself refuses to convert integers much longer than this, in either direction."""

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<int>\d[\d_]*)(?![\d_.eE])|(?P<float>(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))"
)
_PLAIN = {"'": re.compile(r"[^'\\]*"), '"': re.compile(r'[^"\\]*')}
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_SIMPLE_ESCAPES: Final = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a",
    "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": "",
}  # fmt: skip
_WORDS: Final = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


class LiteralFault(ValueError):
    """The text at this place is no literal that JSON can carry."""


def skip_space(text: str, at: int) -> int:
    """Place of the next character that is not whitespace."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def read_name(text: str, at: int) -> tuple[str, int]:
    """The identifier at `at` and the place after it."""
    found = _NAME.match(text, at)
    if not found:
        raise LiteralFault(f"wanted a name at {at}")
    return found.group(), found.end()


def read_literal(text: str, at: int = 0, depth: int = 0) -> tuple[Any, int]:
    """The value at `at` (whitespace before it is skipped) and the place after it."""
    if depth > MAX_DEPTH:
        raise LiteralFault(f"nested deeper than {MAX_DEPTH}")
    at = skip_space(text, at)
    first = text[at : at + 1]
    if first in ("'", '"'):
        return _read_string(text, at)
    if first == "{":
        return _read_object(text, at + 1, depth + 1)
    if first in ("[", "("):
        return _read_list(text, at + 1, "]" if first == "[" else ")", depth + 1)
    word = _NAME.match(text, at)
    if word:
        if word.group() not in _WORDS:
            raise LiteralFault(f"{word.group()[:40]!r} is not a literal")
        return _WORDS[word.group()], word.end()
    return _read_number(text, at)


def _read_string(text: str, at: int) -> tuple[str, int]:
    quote = text[at]
    fence = quote * 3 if text.startswith(quote * 3, at) else quote
    at += len(fence)
    parts: list[str] = []
    while True:
        plain = _PLAIN[quote].match(text, at)
        if plain:
            parts.append(plain.group())
            at = plain.end()
        if text.startswith(fence, at):
            return _joined(parts), at + len(fence)
        if at >= len(text):
            raise LiteralFault("the string has no end")
        if text[at] == quote:
            parts.append(quote)
            at += 1
            continue
        escape = _ESCAPE.match(text, at)
        if not escape:
            raise LiteralFault("the string ends in a backslash")
        parts.append(_unescape(escape.group()))
        at = escape.end()


def _unescape(escape: str) -> str:
    body = escape[1:]
    if body in _SIMPLE_ESCAPES:
        return _SIMPLE_ESCAPES[body]
    if len(body) > 1 and body[0] in "xuU":
        code = int(body[1:], 16)
        return chr(code) if code < 0x110000 else escape
    if body[0] in "01234567":
        return chr(int(body, 8))
    return escape


def _joined(parts: list[str]) -> str:
    """The string, with escaped surrogate pairs joined and lone ones replaced by U+FFFD."""
    text = "".join(parts)
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_number(text: str, at: int) -> tuple[int | float, int]:
    found = _NUMBER.match(text, at)
    if not found:
        raise LiteralFault(f"wanted a value at {at}")
    digits = found.group().replace("_", "")
    if len(digits) > MAX_DIGITS:
        raise LiteralFault(f"a number of {len(digits)} digits")
    if found["hex"]:
        return int(digits, 16), found.end()
    if found["int"]:
        return int(digits), found.end()
    value = float(digits)
    if not math.isfinite(value):
        raise LiteralFault(f"{digits[:40]} is beyond JSON's numbers")
    return value, found.end()


def _read_list(text: str, at: int, close: str, depth: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    while True:
        at = skip_space(text, at)
        if text.startswith(close, at):
            return values, at + 1
        value, at = read_literal(text, at, depth)
        values.append(value)
        at = _separator(text, at, close)


def _read_object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    members: dict[str, Any] = {}
    while True:
        at = skip_space(text, at)
        if text.startswith("}", at):
            return members, at + 1
        key, at = _read_key(text, at)
        at = skip_space(text, at)
        if text[at : at + 1] not in (":", "="):
            raise LiteralFault(f"wanted ':' after a key at {at}")
        members[key], at = read_literal(text, at + 1, depth)
        at = _separator(text, at, "}")


def _read_key(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] in ("'", '"'):
        return _read_string(text, at)
    name = _NAME.match(text, at)
    if name:
        return name.group(), name.end()
    value, at = _read_number(text, at)
    return json.dumps(value), at


def _separator(text: str, at: int, close: str) -> int:
    at = skip_space(text, at)
    if text.startswith(",", at):
        return at + 1
    if text.startswith(close, at):
        return at
    raise LiteralFault(f"wanted ',' or {close!r} at {at}")


def to_json(value: Any) -> str:
    """JSON text of a value that `read_literal` gave; other scripts stay readable."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_literal(value: Any) -> str:
    """A JSON value as a Python literal; strings in double quotes with escapes both notations share."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_json(key)}: {write_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_literal, value)) + "]"
    return to_json(value)
