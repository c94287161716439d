"""`POST /v1/chat/completions`."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
from llamakit.api.inference import AnswerStream
from llamakit.api.openai_answer import AnswerHead
from llamakit.api.openai_chat import (
    ChatChunks,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    echoed_text,
    set_aside,
    to_body,
    to_request,
)
from llamakit.api.openai_stored_chats import to_stored_messages
from llamakit.core.errors import Overloaded, StorageError
from llamakit.core.messages import Answer, AnswerFold, Done
from llamakit.server.exchange import Exchange, exchange_of
from llamakit.server.routing import Operation
from llamakit.server.service import Call, Service, Write

log = logging.getLogger(__name__)

Body = Callable[[Sequence[Answer]], dict[str, Any]]
Keep = Callable[[dict[str, Any]], Awaitable[None]]


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def create_chat_completion(http: Request) -> Response:
        wire = await service.read(http, ChatCompletionRequest, set_aside)
        call = begin(service, wire, exchange_of(http))
        return await service.answered(http, call, is_streamed=bool(wire.stream))

    return [
        Operation(
            name="createChatCompletion",
            method="POST",
            path="/v1/chat/completions",
            about="Answer a conversation.",
            endpoint=create_chat_completion,
            tag="chat",
            body=ChatCompletionRequest,
            answer=ChatCompletion,
            chunk=ChatCompletionChunk,
        )
    ]


def begin(service: Service, wire: ChatCompletionRequest, exchange: Exchange) -> Call:
    """The call that a request makes; nothing is computed yet. Raises `InvalidRequest`."""
    exchange.model = wire.model
    head = AnswerHead(
        id=new_id("chatcmpl"),
        created=int(time.time()),
        model=wire.model,
        service_tier=None if wire.service_tier is None else "default",
    )
    request = to_request(wire, request_id=head.id, salt=exchange.principal.salt)
    echo = echoed_text(wire, request)
    stream = service.inference.chat(request)

    async def keep(body: dict[str, Any]) -> None:
        """An answer that was computed is never lost because it could not be kept: `store` then counts as set aside."""
        chats, messages = service.stack.chats, to_stored_messages(wire, head.id)
        try:
            keeping = await chats.keeping(exchange.principal.name, body, messages, wire.metadata)
            if exchange.deferred is None:
                await chats.keep(keeping)
            else:
                exchange.deferred.append(keeping)
        except (StorageError, Overloaded) as fault:
            log.warning("chat completion %s is answered and not kept: %s", head.id, fault)
            exchange.ignored = (*exchange.ignored, "store")

    def body(answers: Sequence[Answer]) -> dict[str, Any]:
        return to_body(wire, head, answers[0], echo=echo)

    def write() -> Write:
        chunks = ChatChunks(wire, head, echo=echo)
        return lambda _, event: chunks.push(event)

    is_kept_whole = wire.store and not wire.stream
    if wire.store and wire.stream:
        stream = _kept(stream, body, keep)
    return Call(model=wire.model, streams=[stream], write=write, body=body, keep=keep if is_kept_whole else None)


async def _kept(stream: AnswerStream, body: Body, keep: Keep) -> AnswerStream:
    """The same events; the answer is kept before its last one, with which it is acknowledged."""
    fold = AnswerFold()
    async with aclosing(stream) as events:
        async for event in events:
            fold.add(event)
            if isinstance(event, Done):
                await keep(body([fold.answer()]))
            yield event
