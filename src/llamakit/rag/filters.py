"""Filters over the attributes of documents: from JSON to a small tree, from the tree to SQL.

Names and values of a filter are always parameters, so nothing a caller writes is ever read as SQL.
The table is the same in SQLite and PostgreSQL: `attributes (document, name, text, number)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.core.errors import InvalidRequest
from llamakit.storage.sql import Value

MAX_DEPTH = 8
MAX_TERMS = 64
MAX_ATTRIBUTES = 64
MAX_NAME_CHARS = 256
MAX_TEXT_CHARS = 4096

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
AttributeValue = str | int | float | bool

_SIGNS = {"eq": "=", "ne": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "in": "IN", "nin": "IN"}


@dataclass(frozen=True, slots=True)
class Compare:
    """One attribute against one value, or a list of them."""

    operator: Operator
    name: str
    values: tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class Combine:
    """All or any of several filters."""

    operator: Literal["and", "or"]
    filters: tuple[Filter, ...]


Filter = Compare | Combine


def parse_filter(tree: Any) -> Filter:
    """The filter of a wire object `{type, key, value}` or `{type: and|or, filters}`; `InvalidRequest` otherwise."""
    return _parsed(tree, MAX_DEPTH, [MAX_TERMS])


def _parsed(tree: Any, depth: int, terms: list[int]) -> Filter:
    terms[0] -= 1
    if depth == 0 or terms[0] < 0:
        raise _wrong(f"is deeper than {MAX_DEPTH} or longer than {MAX_TERMS} terms")
    match tree:
        case {"type": "and" | "or" as operator, "filters": list(parts), **rest} if parts and not rest:
            return Combine(operator, tuple(_parsed(part, depth - 1, terms) for part in parts))
        case {"type": "in" | "nin" as operator, "key": str(name), "value": list(values), **rest} if not rest:
            if not 0 < len(values) <= MAX_TERMS:
                raise _wrong(f"lists 1 to {MAX_TERMS} values, got {len(values)}")
            return Compare(operator, _name(name), tuple(_value(value) for value in values))
        case {"type": str(operator), "key": str(name), "value": value, **rest} if (
            operator in ("eq", "ne", "gt", "gte", "lt", "lte") and not rest
        ):
            if operator not in ("eq", "ne") and isinstance(value, bool):
                raise _wrong(f"cannot order true and false ({operator})")
            return Compare(operator, _name(name), (_value(value),))
        case _:
            raise _wrong("is {type: eq|ne|gt|gte|lt|lte|in|nin, key, value} or {type: and|or, filters}")


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"a filter {what}", param="filters")


def _name(name: str) -> str:
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise _wrong(f"names an attribute of 1 to {MAX_NAME_CHARS} characters")
    return name


def _value(value: Any) -> AttributeValue:
    if isinstance(value, bool | str):
        if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
            raise _wrong(f"compares texts of at most {MAX_TEXT_CHARS} characters")
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**63:
        return value
    raise _wrong(f"compares texts, finite numbers and booleans, got {type(value).__name__}")


def check_attributes(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """The attributes of a document, if they can be kept and compared."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"a document has at most {MAX_ATTRIBUTES} attributes", param="attributes")
    try:
        return {_name(name): _value(value) for name, value in attributes.items()}
    except InvalidRequest as error:
        raise InvalidRequest(str(error).replace("a filter", "an attribute", 1), param="attributes") from error


def columns(value: AttributeValue) -> tuple[str | None, float | None]:
    """A value as the columns (text, number) hold it; true and false are the numbers 1 and 0."""
    return (value, None) if isinstance(value, str) else (None, float(value))


def to_sql(
    filter: Filter,
    args: list[Value],
    *,
    document: str,
    table: str = "attributes",
    scope: Mapping[str, Value] | None = None,
) -> str:
    """The condition on `document` (a column in code); values are added to `args`, numbers follow from its length.

    `scope` holds columns of the table that must equal, such as the collection.
    """
    if isinstance(filter, Combine):
        parts = [to_sql(part, args, document=document, table=table, scope=scope) for part in filter.filters]
        return "(" + f" {filter.operator.upper()} ".join(parts) + ")"
    conditions = [f"a.name = {_add(args, filter.name)}"]
    conditions += [f"a.{column} = {_add(args, value)}" for column, value in (scope or {}).items()]
    conditions.append(_comparison(filter, args))
    # The documents are looked for once, not anew for each chunk.
    sign = "NOT IN" if filter.operator in ("ne", "nin") else "IN"
    return f"{document} {sign} (SELECT a.document FROM {table} a WHERE {' AND '.join(conditions)})"


def _comparison(filter: Compare, args: list[Value]) -> str:
    sign = _SIGNS[filter.operator]
    if sign != "IN":
        return _one(sign, filter.values[0], args)
    return "(" + " OR ".join(_one("=", value, args) for value in filter.values) + ")"


def _one(sign: str, value: AttributeValue, args: list[Value]) -> str:
    text, number = columns(value)
    return f"a.text {sign} {_add(args, text)}" if text is not None else f"a.number {sign} {_add(args, number)}"


def _add(args: list[Value], value: Value) -> str:
    args.append(value)
    return f"?{len(args)}"


def matches(filter: Filter, attributes: Mapping[str, AttributeValue]) -> bool:
    """The same decision without a database; what the SQL is tested against."""
    if isinstance(filter, Combine):
        decide = all if filter.operator == "and" else any
        return decide(matches(part, attributes) for part in filter.filters)
    mine = attributes.get(filter.name)
    found = mine is not None and any(_holds(filter.operator, mine, value) for value in filter.values)
    return not found if filter.operator in ("ne", "nin") else found


def _holds(operator: Operator, mine: AttributeValue, wanted: AttributeValue) -> bool:
    if isinstance(mine, str) != isinstance(wanted, str):
        return False
    left: Any = mine if isinstance(mine, str) else float(mine)
    right: Any = wanted if isinstance(wanted, str) else float(wanted)
    match operator:
        case "gt":
            return left > right
        case "gte":
            return left >= right
        case "lt":
            return left < right
        case "lte":
            return left <= right
        case _:
            return left == right


def sequence_sql(values: Sequence[Value], args: list[Value]) -> str:
    """`(?n, ?n+1, ...)` for an IN over values."""
    return "(" + ", ".join(_add(args, value) for value in values) + ")"
