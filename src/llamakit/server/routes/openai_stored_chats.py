"""Chat completions that were kept with `store: true`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_lists import WireDeleted, WireMetadataUpdate, read_page
from llamakit.api.openai_stored_chats import (
    StoredChatCompletion,
    WireStoredChats,
    WireStoredMessages,
    read_metadata_filter,
)
from llamakit.server.exchange import exchange_of
from llamakit.server.routes.openai_responses import PAGE
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    chats = service.stack.chats

    async def list_chats(http: Request) -> Response:
        page = read_page(http.query_params, order="asc")
        metadata = read_metadata_filter(http.query_params)
        owner = exchange_of(http).principal.name
        return json_response(await chats.list(owner, page, model=http.query_params.get("model"), metadata=metadata))

    async def get_chat(http: Request) -> Response:
        return json_response(await chats.get(*_which(http)))

    async def update_chat(http: Request) -> Response:
        wire = await service.read(http, WireMetadataUpdate)
        return json_response(await chats.update(*_which(http), wire.metadata or {}))

    async def delete_chat(http: Request) -> Response:
        return json_response(await chats.delete(*_which(http)))

    async def list_messages(http: Request) -> Response:
        return json_response(await chats.messages(*_which(http), read_page(http.query_params, order="asc")))

    one = "/v1/chat/completions/{completion_id}"
    return [
        Operation(
            name="listChatCompletions",
            method="GET",
            path="/v1/chat/completions",
            about="Kept chat completions.",
            endpoint=list_chats,
            tag="stored chat",
            answer=WireStoredChats,
            query=(
                *PAGE,
                Query(name="model", about="Only those of this model."),
                Query(name="metadata", about="Only those with these entries, each as metadata[name]=value."),
            ),
        ),
        Operation(
            name="getChatCompletion",
            method="GET",
            path=one,
            about="A kept chat completion.",
            endpoint=get_chat,
            tag="stored chat",
            answer=StoredChatCompletion,
        ),
        Operation(
            name="updateChatCompletion",
            method="POST",
            path=one,
            about="Give a kept chat completion new metadata.",
            endpoint=update_chat,
            tag="stored chat",
            body=WireMetadataUpdate,
            answer=StoredChatCompletion,
        ),
        Operation(
            name="deleteChatCompletion",
            method="DELETE",
            path=one,
            about="Delete a kept chat completion.",
            endpoint=delete_chat,
            tag="stored chat",
            answer=WireDeleted,
        ),
        Operation(
            name="getChatCompletionMessages",
            method="GET",
            path=f"{one}/messages",
            about="The messages that a kept chat completion answers.",
            endpoint=list_messages,
            tag="stored chat",
            answer=WireStoredMessages,
            query=PAGE,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params["completion_id"]
