"""Arguments against a JSON Schema: the part of the standard that tools use, with errors a model can act on.

Checked are type, enum, const, properties, required, additionalProperties, items, prefixItems, the
bounds of numbers, texts and arrays, uniqueItems, anyOf, oneOf, allOf, not, and references within
the schema. `pattern` and `format` are left to the tool: a foreign regular expression can run for ever.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_DEPTH = 64
MAX_STEPS = 100_000
"""Comparisons of one check; a schema that multiplies itself ends there."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problems(value: Any, schema: Any, *, most: int = 5) -> list[str]:
    """What is wrong with `value`, each with its place; empty when it fits."""
    found = []
    for problem in _Checker(schema).check(value, schema, "arguments", 0):
        found.append(problem)
        if len(found) == most:
            break
    return found


class _Checker:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def check(self, value: Any, schema: Any, place: str, depth: int) -> Iterator[str]:
        self._steps += 1
        if depth > MAX_DEPTH or self._steps > MAX_STEPS:
            yield f"{place} is nested too deeply to check"
            return
        if schema is False:
            yield f"{place} is not allowed"
            return
        if not isinstance(schema, Mapping):
            return  # `true` allows everything
        if "$ref" in schema:
            yield from self.check(value, self._resolved(schema["$ref"]), place, depth + 1)
        yield from self._shape(value, schema, place)
        yield from self._combined(value, schema, place, depth)
        if isinstance(value, dict):
            yield from self._object(value, schema, place, depth)
        elif isinstance(value, list):
            yield from self._array(value, schema, place, depth)

    def _resolved(self, reference: Any) -> Any:
        """The part of this schema a reference names; a reference elsewhere fits nothing."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return False
        node = self._root
        for part in filter(None, reference.removeprefix("#").split("/")):
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or part not in node:
                return False
            node = node[part]
        return node

    def _shape(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[str]:
        wanted = schema.get("type")
        kinds = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, Sequence) else []
        if kinds and not any(_is(value, kind) for kind in kinds):
            yield f"{place} must be {' or '.join(map(str, kinds))}, got {_shown(value)}"
        if "enum" in schema and not any(_same(value, choice) for choice in _list(schema["enum"])):
            yield f"{place} must be one of {_shown(schema['enum'])}, got {_shown(value)}"
        if "const" in schema and not _same(value, schema["const"]):
            yield f"{place} must be {_shown(schema['const'])}, got {_shown(value)}"
        if isinstance(value, str):
            yield from _bounded(len(value), schema, "minLength", "maxLength", f"{place} must have", "characters")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _bounded(value, schema, "minimum", "maximum", f"{place} must be", "")
            yield from _numbers(value, schema, place)

    def _combined(self, value: Any, schema: Mapping[str, Any], place: str, depth: int) -> Iterator[str]:
        for part in _list(schema.get("allOf")):
            yield from self.check(value, part, place, depth + 1)
        fitting = [self._fits(value, part, place, depth) for part in _list(schema.get("anyOf"))]
        if fitting and not any(fitting):
            yield f"{place} fits none of the {len(fitting)} forms allowed, got {_shown(value)}"
        fitting = [self._fits(value, part, place, depth) for part in _list(schema.get("oneOf"))]
        if fitting and sum(fitting) != 1:
            yield f"{place} must fit exactly one of {len(fitting)} forms, fits {sum(fitting)}"
        if "not" in schema and self._fits(value, schema["not"], place, depth):
            yield f"{place} has a form that is not allowed"

    def _fits(self, value: Any, schema: Any, place: str, depth: int) -> bool:
        return next(self.check(value, schema, place, depth + 1), None) is None

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], place: str, depth: int) -> Iterator[str]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        for name in _list(schema.get("required")):
            if isinstance(name, str) and name not in value:
                yield f"{place} lacks {name!r}"
        more = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in properties:
                yield from self.check(item, properties[name], f"{place}.{name}", depth + 1)
            elif more is False:
                yield f"{place} has an unknown {name!r}; known are {', '.join(properties) or 'none'}"
            else:
                yield from self.check(item, more, f"{place}.{name}", depth + 1)
        yield from _bounded(len(value), schema, "minProperties", "maxProperties", f"{place} must have", "entries")

    def _array(self, value: list[Any], schema: Mapping[str, Any], place: str, depth: int) -> Iterator[str]:
        first = _list(schema.get("prefixItems"))
        for n, item in enumerate(value):
            part = first[n] if n < len(first) else schema.get("items", True)
            yield from self.check(item, part, f"{place}[{n}]", depth + 1)
        yield from _bounded(len(value), schema, "minItems", "maxItems", f"{place} must have", "items")
        if schema.get("uniqueItems") is True:
            spelled = [json.dumps(item, sort_keys=True) for item in value]
            if len(set(spelled)) < len(spelled):
                yield f"{place} must not repeat an item"


def _is(value: Any, kind: Any) -> bool:
    if kind not in _TYPES or (isinstance(value, bool) and kind in ("number", "integer")):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _same(value: Any, wanted: Any) -> bool:
    """JSON's equality: 1 is 1.0 and neither is true."""
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _bounded(size: float, schema: Mapping[str, Any], low: str, high: str, subject: str, unit: str) -> Iterator[str]:
    least, most = schema.get(low), schema.get(high)
    if isinstance(least, int | float) and size < least:
        yield f"{subject} at least {least} {unit}".rstrip() + f", got {size}"
    if isinstance(most, int | float) and size > most:
        yield f"{subject} at most {most} {unit}".rstrip() + f", got {size}"


def _numbers(value: float, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    above, below, step = (schema.get(name) for name in ("exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
    if isinstance(above, int | float) and not isinstance(above, bool) and value <= above:
        yield f"{place} must be above {above}, got {value}"
    if isinstance(below, int | float) and not isinstance(below, bool) and value >= below:
        yield f"{place} must be below {below}, got {value}"
    if isinstance(step, int | float) and step > 0:
        parts = value / step
        if not math.isclose(parts, round(parts), rel_tol=0, abs_tol=1e-9):
            yield f"{place} must be a multiple of {step}, got {value}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
