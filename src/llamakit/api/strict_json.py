"""Bytes of a request body -> plain Python values, or `InvalidRequest`; nothing doubtful is let in.

The standard reader accepts repeated keys, `NaN`, half surrogates and any nesting. Each of these has been
an attack on a server behind it, so each is refused here, before any wire type sees the value.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from llamakit.api.limits import LIMITS, Limits
from llamakit.core.errors import InvalidRequest

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(body: bytes | bytearray, limits: Limits = LIMITS) -> Any:
    """The value that `body` spells; raises `InvalidRequest`."""
    if not body:
        raise InvalidRequest("the request body is empty; send a JSON object")
    if body.count(b",") >= limits.json_values:
        raise InvalidRequest(f"the JSON body holds more than {limits.json_values} values; split the request")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InvalidRequest(f"the JSON body is not UTF-8: {fault.reason} at byte {fault.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_Pairs(limits), parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep(limits) from None
    except InvalidRequest:
        raise
    except ValueError as fault:  # JSONDecodeError, and the interpreter's limit on the digits of an integer
        raise InvalidRequest(f"the request body is not valid JSON: {_reason(fault)}") from None
    if body.count(b"{") + body.count(b"[") > limits.json_depth and _is_deeper(value, limits.json_depth):
        raise _too_deep(limits)
    if _SURROGATE_ESCAPE.search(body) is not None and _has_lone_surrogate(value):
        raise InvalidRequest("the JSON body holds half of a surrogate pair, which is no character")
    return value


class _Pairs:
    """Builds objects, counting keys over the whole body and refusing a repeated one."""

    def __init__(self, limits: Limits) -> None:
        self._left = limits.json_keys
        self._limit = limits.json_keys

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._left -= len(pairs)
        if self._left < 0:
            raise InvalidRequest(f"the JSON body has more than {self._limit} keys")
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise InvalidRequest(f"the JSON body repeats the key {twice[:80]!r} in one object")
        return made


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the JSON body holds {name}, which is not a JSON number")


def _reason(fault: ValueError) -> str:
    if isinstance(fault, json.JSONDecodeError):
        return f"{fault.msg} at line {fault.lineno} column {fault.colno}"
    return "an integer has too many digits"


def _too_deep(limits: Limits) -> InvalidRequest:
    return InvalidRequest(f"the JSON body is nested deeper than {limits.json_depth} levels")


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _has_lone_surrogate(value: Any) -> bool:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            if any("\ud800" <= char <= "\udfff" for char in node):
                return True
        elif isinstance(node, dict):
            stack.extend(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False
