"""What OpenAI's stored objects share: metadata, pages of a list, and the answer to a deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llamakit.api.wire import Wire, found
from llamakit.core.errors import InvalidRequest

MAX_ENTRIES = 16
MAX_LIMIT = 100


def _few(metadata: Any) -> Any:
    """The published limits of keys, checked before the entries are."""
    if isinstance(metadata, dict):
        if len(metadata) > MAX_ENTRIES:
            raise ValueError(f"must hold at most {MAX_ENTRIES} entries")
        if any(isinstance(key, str) and len(key) > 64 for key in metadata):
            raise ValueError("must have keys of at most 64 characters")
    return metadata


Metadata = Annotated[dict[str, Annotated[str, Field(max_length=512)]], BeforeValidator(_few)]
"""At most 16 entries; keys of at most 64 and values of at most 512 characters."""


class WireMetadataUpdate(Wire):
    """New metadata for a stored object."""

    metadata: Metadata | None
    """Takes the place of the old; null empties it."""


class WireDeleted(Wire):
    """What became of a deleted object."""

    id: str
    object: str
    deleted: Literal[True]


@dataclass(frozen=True, kw_only=True, slots=True)
class PageQuery:
    """Which stretch of a list is wanted."""

    after: str | None = None
    """Id of the last object the client has."""
    before: str | None = None
    """Id of the first object the client has, where it goes back."""
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"


def read_page(
    query: Mapping[str, str],
    *,
    order: Literal["asc", "desc"] = "desc",
    limit: int = 20,
    most: int = MAX_LIMIT,
    both_ways: bool = False,
) -> PageQuery:
    """The page that a query string asks for; raises `InvalidRequest` naming the parameter.

    `both_ways`: the list takes `before` too.
    """
    asked = query.get("order", order)
    if asked not in ("asc", "desc"):
        raise InvalidRequest(f"order must be asc or desc, got {found(asked)}", param="order")
    return PageQuery(
        after=query.get("after"),
        before=query.get("before") if both_ways else None,
        limit=read_count(query, "limit", limit, low=1, high=most) or limit,
        order=asked,
    )


def read_count(query: Mapping[str, str], name: str, default: int | None, *, low: int, high: int) -> int | None:
    """A whole number of a query string."""
    text = query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise InvalidRequest(f"{name} must be a whole number in [{low}, {high}], got {found(text)}", param=name)
    return int(text)


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """A truth of a query string; absent is false."""
    text = query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidRequest(f"{name} must be true or false, got {found(text)}", param=name)
    return text in ("true", "1")


def list_body(data: Sequence[Mapping[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page as OpenAI spells it; an empty one has empty ids, because clients want text there."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": has_more,
    }


def deleted_body(kind: str, id: str) -> dict[str, Any]:
    """The answer to a deletion of an object of `kind`."""
    return {"id": id, "object": kind, "deleted": True}
