"""What all wire types share: strict fields, unknown keys kept and named, one error that names the field.

A known key with a bad value is `InvalidRequest` with the path of the field as `param`. An unknown key is
never an error here: `read` hands back its path, and who reads decides whether to set it aside or refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, ValidationError

from llamakit.core.errors import InvalidRequest

FOUND_CHARS = 80
"""Characters of a refused value that an error message repeats."""

TEXT = Tag("<text>")
LIST = Tag("<list>")


def _text_or_list(value: Any) -> Literal["<text>", "<list>"] | None:
    if isinstance(value, str):
        return "<text>"
    return "<list>" if isinstance(value, list) else None


TEXT_OR_LIST = Discriminator(
    _text_or_list, custom_error_type="text_or_list", custom_error_message="must be a string or an array"
)
"""Tells `Annotated[str, TEXT] | Annotated[list[...], LIST]` apart, so that errors speak of the form chosen."""

FIRST = Field(fail_fast=True)
"""On every list: the first bad item is the error. A report of each of a million would take seconds to write."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], FIRST]
Texts = Annotated[list[str], FIRST]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]


class Wire(BaseModel):
    """A type on the wire. Strict: a number is not spelled as text, nor is true a number."""

    # A type is built when the first value of it is read: a server that starts reads none. For the same reason the
    # line under each field is left to who makes the OpenAPI document.
    model_config = ConfigDict(
        extra="allow",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )


T = TypeVar("T")


class WireRoot(RootModel[T], Generic[T]):
    """A type on the wire that is one of several, or a list of them, and has no fields of its own."""

    model_config = ConfigDict(defer_build=True)


W = TypeVar("W", bound=Wire)


def read(kind: type[W], value: object) -> tuple[W, tuple[str, ...]]:
    """`value` as `kind`, and the paths of keys nobody knows; raises `InvalidRequest` naming the field."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"the request body must be a JSON object, got {found(value)}")
    try:
        wire = kind.model_validate(value)
    except ValidationError as fault:
        raise _invalid(fault, value) from None
    return wire, tuple(_unknown(wire, ""))


def found(value: object) -> str:
    """A short, safe picture of a refused value for an error message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > 256:
            return f"an integer of {value.bit_length()} bits"
        case dict():
            return "an object"
        case list():
            return f"an array of {len(value)}" if value else "an empty array"
    text = repr(value)
    return text if len(text) <= FOUND_CHARS else f"{text[:FOUND_CHARS]}…"


def _unknown(wire: Wire, path: str) -> Iterator[str]:
    for key in wire.__pydantic_extra__ or ():
        yield f"{path}{key}"
    for name, value in wire.__dict__.items():
        if isinstance(value, Wire):
            yield from _unknown(value, f"{path}{name}.")
        elif isinstance(value, list) and value and not isinstance(value[0], int | float):  # ids and vectors are long
            for index, item in enumerate(value):
                if isinstance(item, Wire):
                    yield from _unknown(item, f"{path}{name}[{index}].")


def _invalid(fault: ValidationError, value: object) -> InvalidRequest:
    """The first fault, said with the path as the client wrote it: tags of unions are no part of it."""
    first = fault.errors(include_url=False)[0]
    path = ""
    node: Any = value
    location = first["loc"]
    for position, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step}]"
            node = node[step] if isinstance(node, list) and step < len(node) else None
        elif isinstance(node, dict) and step in node:
            path += f".{step}" if path else step
            node = node[step]
        elif first["type"] == "missing" and position == len(location) - 1:
            path += f".{step}" if path else step
    if first["type"] == "missing":
        return InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _invalid_tag(path, first.get("ctx", {}), node)
    wanted = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return InvalidRequest(f"{path}: {wanted}, got {found(first['input'])}", param=path or None)


def _invalid_tag(path: str, context: dict[str, Any], node: Any) -> InvalidRequest:
    """A union told apart by one key: the key is missing or names no member."""
    key = str(context.get("discriminator", "type")).strip("'")
    param = f"{path}.{key}" if path else key
    if not isinstance(node, dict):
        return InvalidRequest(f"{path} must be an object, got {found(node)}", param=path or None)
    if key not in node:
        return InvalidRequest(f"{param} is required", param=param, code="missing_required_parameter")
    known = context.get("expected_tags", "")
    return InvalidRequest(f"{param} must be one of {known}, got {found(node[key])}", param=param)
