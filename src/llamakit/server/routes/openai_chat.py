"""`POST /v1/chat/completions`."""

from __future__ import annotations

import logging
import time
from contextlib import aclosing

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
from llamakit.core.messages import AnswerFold, Done
from llamakit.server.exchange import Exchange, exchange_of
from llamakit.server.routing import Operation
from llamakit.server.service import Call, Service, Write

log = logging.getLogger(__name__)


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
    if wire.store:
        stream = _kept(service, exchange, wire, head, echo, stream)

    def write() -> Write:
        chunks = ChatChunks(wire, head, echo=echo)
        return lambda _, event: chunks.push(event)

    return Call(
        model=wire.model,
        streams=[stream],
        write=write,
        body=lambda answers: to_body(wire, head, answers[0], echo=echo),
    )


async def _kept(
    service: Service, exchange: Exchange, wire: ChatCompletionRequest, head: AnswerHead, echo: str, stream: AnswerStream
) -> AnswerStream:
    """The same events; the answer is kept before its last one, with which it is acknowledged.

    An answer that was computed is never lost because it could not be kept: `store` then counts as set aside.
    """
    fold = AnswerFold()
    async with aclosing(stream) as events:
        async for event in events:
            fold.add(event)
            if isinstance(event, Done):
                body = to_body(wire, head, fold.answer(), echo=echo)
                messages = to_stored_messages(wire, head.id)
                chats = service.stack.chats
                try:
                    keeping = await chats.keeping(exchange.principal.name, body, messages, wire.metadata)
                    if exchange.deferred is None:
                        await chats.keep(keeping)
                    else:
                        exchange.deferred.append(keeping)
                except (StorageError, Overloaded) as fault:
                    log.warning("chat completion %s is answered and not kept: %s", head.id, fault)
                    exchange.ignored = (*exchange.ignored, "store")
            yield event
