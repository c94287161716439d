"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.anthropic import CountTokensRequest, MessagesRequest, set_aside, to_request, to_tokenize
from llamakit.api.anthropic_answer import AnthropicMessage, MessageEvent, MessageEvents, TokenCount, to_body
from llamakit.api.ids import new_id
from llamakit.server.ceiling import answer_within
from llamakit.server.dialects import NAMED_EVENTS
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def create_message(http: Request) -> Response:
        wire = await service.read(http, MessagesRequest, set_aside)
        exchange = exchange_of(http)
        exchange.model = wire.model
        message_id = new_id("msg")
        request = to_request(wire, request_id=message_id, salt=exchange.principal.salt)
        stream = answer_within(service.inference, request)
        if wire.stream:
            events = MessageEvents(message_id, wire.model)
            return service.streamed(http, wire.model, [stream], lambda _, event: events.push(event), NAMED_EVENTS)
        (answer,) = await service.whole(http, wire.model, [stream])
        return json_response(to_body(message_id, wire.model, answer))

    async def count_tokens(http: Request) -> Response:
        wire = await service.read(http, CountTokensRequest, set_aside)
        exchange_of(http).model = wire.model
        tokens = await service.inference.tokenize(to_tokenize(wire))
        return json_response({"input_tokens": len(tokens.ids)})

    return [
        Operation(
            name="createMessage",
            method="POST",
            path="/v1/messages",
            about="Answer a conversation, in Anthropic's form.",
            endpoint=create_message,
            tag="anthropic",
            body=MessagesRequest,
            answer=AnthropicMessage,
            chunk=MessageEvent,
            framing=NAMED_EVENTS,
        ),
        Operation(
            name="countMessageTokens",
            method="POST",
            path="/v1/messages/count_tokens",
            about="How many tokens a conversation is for a model.",
            endpoint=count_tokens,
            tag="anthropic",
            body=CountTokensRequest,
            answer=TokenCount,
        ),
    ]
