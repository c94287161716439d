"""`/v1/conversations` and their items."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_conversations import (
    WireConversation,
    WireConversationItemsRequest,
    WireConversationRequest,
    WireItemList,
)
from llamakit.api.openai_lists import WireDeleted, WireMetadataUpdate, read_page
from llamakit.api.openai_response_items import WireItem
from llamakit.server.exchange import exchange_of
from llamakit.server.routes.openai_responses import INCLUDE, PAGE
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    conversations = service.stack.conversations

    async def create_conversation(http: Request) -> Response:
        wire = await service.read(http, WireConversationRequest)
        return json_response(await conversations.create(exchange_of(http).principal.name, wire))

    async def get_conversation(http: Request) -> Response:
        return json_response(await conversations.get(*_which(http)))

    async def update_conversation(http: Request) -> Response:
        wire = await service.read(http, WireMetadataUpdate)
        return json_response(await conversations.update(*_which(http), wire.metadata or {}))

    async def delete_conversation(http: Request) -> Response:
        return json_response(await conversations.delete(*_which(http)))

    async def create_items(http: Request) -> Response:
        wire = await service.read(http, WireConversationItemsRequest)
        return json_response(await conversations.add_items(*_which(http), wire.items))

    async def list_items(http: Request) -> Response:
        return json_response(await conversations.list_items(*_which(http), read_page(http.query_params)))

    async def get_item(http: Request) -> Response:
        return json_response(await conversations.item(*_which(http), http.path_params["item_id"]))

    async def delete_item(http: Request) -> Response:
        return json_response(await conversations.delete_item(*_which(http), http.path_params["item_id"]))

    one = "/v1/conversations/{conversation_id}"
    return [
        Operation(
            name="createConversation",
            method="POST",
            path="/v1/conversations",
            about="A new conversation.",
            endpoint=create_conversation,
            tag="conversations",
            body=WireConversationRequest,
            answer=WireConversation,
        ),
        Operation(
            name="getConversation",
            method="GET",
            path=one,
            about="A conversation.",
            endpoint=get_conversation,
            tag="conversations",
            answer=WireConversation,
        ),
        Operation(
            name="updateConversation",
            method="POST",
            path=one,
            about="Give a conversation new metadata.",
            endpoint=update_conversation,
            tag="conversations",
            body=WireMetadataUpdate,
            answer=WireConversation,
        ),
        Operation(
            name="deleteConversation",
            method="DELETE",
            path=one,
            about="Delete a conversation; its items stay with the responses that made them.",
            endpoint=delete_conversation,
            tag="conversations",
            answer=WireDeleted,
        ),
        Operation(
            name="createConversationItems",
            method="POST",
            path=f"{one}/items",
            about="Put items at the end of a conversation.",
            endpoint=create_items,
            tag="conversations",
            body=WireConversationItemsRequest,
            answer=WireItemList,
            query=(INCLUDE,),
        ),
        Operation(
            name="listConversationItems",
            method="GET",
            path=f"{one}/items",
            about="The items of a conversation.",
            endpoint=list_items,
            tag="conversations",
            answer=WireItemList,
            query=(*PAGE, INCLUDE),
        ),
        Operation(
            name="getConversationItem",
            method="GET",
            path=f"{one}/items/{{item_id}}",
            about="One of them.",
            endpoint=get_item,
            tag="conversations",
            answer=WireItem,
            query=(INCLUDE,),
        ),
        Operation(
            name="deleteConversationItem",
            method="DELETE",
            path=f"{one}/items/{{item_id}}",
            about="Take an item out of a conversation.",
            endpoint=delete_item,
            tag="conversations",
            answer=WireConversation,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params["conversation_id"]
