"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
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
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def create_chat_completion(http: Request) -> Response:
        wire = await service.read(http, ChatCompletionRequest, set_aside)
        exchange = exchange_of(http)
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
        if wire.stream:
            chunks = ChatChunks(wire, head, echo=echo)
            return service.streamed(http, wire.model, [stream], lambda _, event: chunks.push(event))
        (answer,) = await service.whole(http, wire.model, [stream])
        return json_response(to_body(wire, head, answer, echo=echo))

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
