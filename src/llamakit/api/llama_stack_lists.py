"""Llama Stack's lists: everything at once as `{data}`, or a stretch as `{data, has_more, url}` by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from llamakit.api.openai_lists import read_count
from llamakit.api.wire import FIRST, Wire

MAX_STRETCH = 1000


class LlamaStackStretch(Wire):
    """Some rows of a list."""

    data: Annotated[list[dict[str, Any]], FIRST]
    has_more: bool
    url: str | None = None
    """Where the list is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Which rows of a list are wanted."""

    start: int = 0
    """Index of the first."""
    limit: int | None = None
    """How many at most; None is all there are."""


def read_stretch(query: Mapping[str, str]) -> Stretch:
    """What `start_index` and `limit` ask for; raises `InvalidRequest` naming the parameter."""
    start = read_count(query, "start_index", 0, low=0, high=999_999_999)
    return Stretch(start=start or 0, limit=read_count(query, "limit", None, low=1, high=MAX_STRETCH))


def data_body(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A whole list."""
    return {"data": list(data)}


def stretch_body(data: Sequence[Mapping[str, Any]], stretch: Stretch, url: str | None = None) -> dict[str, Any]:
    """The stretch that was asked for of a list that is at hand."""
    end = None if stretch.limit is None else stretch.start + stretch.limit
    return {
        "data": list(data[stretch.start : end]),
        "has_more": end is not None and end < len(data),
        "url": url,
    }
