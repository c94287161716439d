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

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
"""A string of JSON text; one that never ends reaches to the end of the body, so the search stays linear."""
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(body: bytes | bytearray, limits: Limits = LIMITS) -> Any:
    """The value that `body` spells; raises `InvalidRequest`."""
    if not body:
        raise InvalidRequest("the request body is empty; send a JSON object")
    _check_size(body, limits)
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


def _check_size(body: bytes | bytearray, limits: Limits) -> None:
    """Refuse what would take long to build. A quick count errs by what stands in strings; then it is done well."""
    if _is_small(body, limits):
        return
    structure = _STRING.sub(b"", body)
    if not _is_small(structure, limits):
        raise InvalidRequest(
            f"the JSON body holds more than {limits.json_values} values or {limits.json_containers} "
            "objects and arrays; split the request"
        )


def _is_small(text: bytes | bytearray, limits: Limits) -> bool:
    num_containers = text.count(b"{") + text.count(b"[")
    return text.count(b",") < limits.json_values and num_containers <= limits.json_containers


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
            try:
                node.encode()
            except UnicodeEncodeError:
                return True
        elif isinstance(node, dict):
            stack.extend(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False
