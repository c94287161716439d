"""Searches of vector stores on the wire: question, filters, ranking, and the results.

Fields marked as extensions are not OpenAI's; clients of OpenAI pass over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.vector_stores import WireText
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, Wire

MAX_RESULTS = 50
MAX_QUERIES = 32
MAX_QUERY_CHARS = 16_384

SearchMode = Literal["vector", "keyword", "hybrid"]


class WireComparison(Wire):
    """An attribute against a value, or against a list of them."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: str | bool | int | float | list[str | int | float]


class WireCompound(Wire):
    """All or any of several filters."""

    type: Literal["and", "or"]
    filters: Annotated[list[WireFilter], FIRST, Field(min_length=1)]
    """Filters of either kind."""


WireFilter = Annotated[WireComparison | WireCompound, Field(discriminator="type")]
WireCompound.model_rebuild()


class WireHybrid(Wire):
    """How much each list counts."""

    embedding_weight: Annotated[float, Field(ge=0, le=1e6)]
    text_weight: Annotated[float, Field(ge=0, le=1e6)]


class WireRanking(Wire):
    """How results are ranked."""

    ranker: Literal["none", "auto", "default-2024-11-15", "rrf", "weighted"] | None = None
    """`rrf`, which the first three mean too, adds up ranks; `weighted` adds up scores."""
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Results below are left out."""
    hybrid_search: WireHybrid | None = None
    """Weights of meaning and of words; with them the ranker is `weighted`."""
    impact_factor: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Of `rrf` (extension)."""
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of `weighted`: the share of the vectors (extension)."""


Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
Queries = Annotated[list[Query], FIRST, Field(min_length=1, max_length=MAX_QUERIES)]


class WireSearchRequest(Wire):
    """Body of `POST /v1/vector_stores/{vector_store_id}/search`."""

    query: Annotated[Annotated[Query, TEXT] | Annotated[Queries, LIST], TEXT_OR_LIST]
    filters: WireFilter | None = None
    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] | None = None
    ranking_options: WireRanking | None = None
    rewrite_query: bool | None = None
    """True is set aside: what is searched is what was asked, as `search_query` of the answer says."""
    search_mode: SearchMode | None = None
    """By meaning, by words, or both (extension)."""


class WireFound(Wire):
    """A chunk that answers."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | bool | int | float] | None
    content: list[WireText]
    page: int | None
    """Page, slide or sheet it stands on (extension)."""
    span: Annotated[list[int], Field(min_length=2, max_length=2)]
    """First character, and one past the last, counted within the page (extension)."""


class WireSearchResults(Wire):
    """What a search found, best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[WireFound]
    has_more: bool
    next_page: str | None


def set_aside(wire: WireSearchRequest) -> tuple[str, ...]:
    """Fields that are known and have no effect."""
    return ("rewrite_query",) if wire.rewrite_query else ()


def results_body(queries: Sequence[str], data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a search found."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(queries),
        "data": list(data),
        "has_more": False,
        "next_page": None,
    }
