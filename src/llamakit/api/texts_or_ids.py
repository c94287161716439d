"""Text, token ids, or several of either: the form of prompts and of embedding inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from llamakit.api.wire import FIRST, TEXT, Texts, TokenIds
from llamakit.core.errors import InvalidRequest


def _form(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list):
        return None
    first = value[0] if value else None
    if isinstance(first, list):
        return "<ids of many>"
    return "<texts>" if isinstance(first, str) else "<ids>"


FORM = Discriminator(
    _form,
    custom_error_type="text_or_ids",
    custom_error_message="must be a string, an array of strings, an array of token ids, or an array of such arrays",
)
TextsOrIds = Annotated[
    Annotated[str, TEXT]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[TokenIds, Tag("<ids>")]
    | Annotated[list[TokenIds], FIRST, Tag("<ids of many>")],
    FORM,
]


def to_items(value: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], param: str) -> list[Any]:
    """Each item as `str` or `tuple[int, ...]`; raises `InvalidRequest` where there is none, or no ids in one."""
    if isinstance(value, str):
        return [value]
    if not value:
        raise InvalidRequest(f"{param} must not be an empty array", param=param)
    if isinstance(value[0], int):
        return [tuple(value)]
    items = [item if isinstance(item, str) else tuple(item) for item in value if not isinstance(item, int)]
    if () in items:
        path = f"{param}[{items.index(())}]"
        raise InvalidRequest(f"{path} must hold at least one token id", param=path)
    return items
