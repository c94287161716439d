"""OpenAI's conversations on the wire: lists of items that outlive the responses which wrote them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_lists import Metadata
from llamakit.api.openai_response_items import InputItem, InputItems
from llamakit.api.wire import FIRST, Wire


class WireConversationRequest(Wire):
    """Body of `POST /v1/conversations`."""

    items: InputItems | None = None
    metadata: Metadata | None = None


class WireConversationItemsRequest(Wire):
    """Body of `POST /v1/conversations/{conversation_id}/items`."""

    items: Annotated[list[InputItem], FIRST, Field(min_length=1)]


class WireConversation(Wire):
    """A conversation, without its items."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class WireItemList(Wire):
    """A page of items."""

    object: Literal["list"]
    data: Annotated[list[InputItem], FIRST]
    first_id: str
    last_id: str
    has_more: bool


def conversation_body(id: str, created_at: int, metadata: dict[str, str]) -> dict[str, Any]:
    """A conversation as plain values."""
    return {"id": id, "object": "conversation", "created_at": created_at, "metadata": metadata}
