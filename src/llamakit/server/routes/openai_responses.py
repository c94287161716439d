"""`/v1/responses`: made, read, streamed, listed, cancelled, deleted, measured and made short."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_answer import to_json
from llamakit.api.openai_conversations import WireItemList
from llamakit.api.openai_lists import WireDeleted, read_count, read_flag, read_page
from llamakit.api.openai_response_events import ResponseEvent, obfuscated
from llamakit.api.openai_response_resource import CompactedResponse, WireResponse, WireResponses
from llamakit.api.openai_responses import (
    CompactRequest,
    ResponseRequest,
    ResponseTokens,
    ResponseTokensRequest,
    set_aside,
)
from llamakit.server.dialects import RESPONSE_EVENTS
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service
from llamakit.server.sse import EventStream, Pieces
from llamakit.stack.response_events import Event

INCLUDE = Query(name="include[]", about="Accepted; what a response includes is decided when it is made.")
PAGE = (
    Query(name="after", about="Id of the last object the client has."),
    Query(name="limit", about="At most so many, 1 to 100; 20 when left out."),
    Query(name="order", about="asc or desc, by time; desc when left out."),
)
MAX_NUMBER = 2**31 - 1


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    responses = service.stack.responses

    def streamed(http: Request, events: AsyncGenerator[Event, None], padded: bool) -> EventStream:
        return service.sent(http, _pieces(events, padded), RESPONSE_EVENTS)

    async def create_response(http: Request) -> Response:
        wire = await service.read(http, ResponseRequest, set_aside)
        exchange = exchange_of(http)
        owner = exchange.principal.name
        plan = await responses.prepare(owner, wire, exchange.principal.salt)
        exchange.model = plan.resource["model"]
        if wire.background:
            resource = await responses.background.enqueue(owner, plan)
            if not wire.stream:
                return json_response(resource)
            return streamed(http, responses.background.tail(owner, plan.id, -1), is_padded(wire))
        chat = service.metered(http)
        if wire.stream:
            return streamed(http, responses.stream(owner, plan, chat), is_padded(wire))
        return json_response(await service.wanted(http, responses.whole(owner, plan, chat)))

    async def retrieve_response(http: Request) -> Response:
        owner, id = exchange_of(http).principal.name, http.path_params["response_id"]
        if not read_flag(http.query_params, "stream"):
            return json_response(await responses.get(owner, id))
        after = read_count(http.query_params, "starting_after", None, low=0, high=MAX_NUMBER)
        await responses.background.check_streamable(owner, id)
        padded = read_flag(http.query_params, "include_obfuscation")
        return streamed(http, responses.background.tail(owner, id, -1 if after is None else after), padded)

    async def list_responses(http: Request) -> Response:
        page = read_page(http.query_params)
        owner = exchange_of(http).principal.name
        return json_response(await responses.list(owner, page, model=http.query_params.get("model")))

    async def delete_response(http: Request) -> Response:
        return json_response(await responses.delete(exchange_of(http).principal.name, http.path_params["response_id"]))

    async def cancel_response(http: Request) -> Response:
        owner, id = exchange_of(http).principal.name, http.path_params["response_id"]
        return json_response(await responses.background.cancel(owner, id))

    async def list_input_items(http: Request) -> Response:
        page = read_page(http.query_params)
        owner, id = exchange_of(http).principal.name, http.path_params["response_id"]
        return json_response(await responses.input_items(owner, id, page))

    async def count_input_tokens(http: Request) -> Response:
        wire = await service.read(http, ResponseTokensRequest, set_aside)
        return json_response(await responses.compaction.count(exchange_of(http).principal.name, wire))

    async def compact_response(http: Request) -> Response:
        wire = await service.read(http, CompactRequest, set_aside)
        exchange = exchange_of(http)
        exchange.model = wire.model
        principal = exchange.principal
        work = responses.compaction.compact(principal.name, wire, principal.salt, service.metered(http))
        return json_response(await service.wanted(http, work))

    return [
        Operation(
            name="createResponse",
            method="POST",
            path="/v1/responses",
            about="Answer an input, with tools and over several turns; kept unless store is false.",
            endpoint=create_response,
            tag="responses",
            body=ResponseRequest,
            answer=WireResponse,
            chunk=ResponseEvent,
            framing=RESPONSE_EVENTS,
        ),
        Operation(
            name="listResponses",
            method="GET",
            path="/v1/responses",
            about="Kept responses.",
            endpoint=list_responses,
            tag="responses",
            answer=WireResponses,
            query=(*PAGE, Query(name="model", about="Only those of this model.")),
        ),
        Operation(
            name="countResponseInputTokens",
            method="POST",
            path="/v1/responses/input_tokens",
            about="How many tokens a request's input has.",
            endpoint=count_input_tokens,
            tag="responses",
            body=ResponseTokensRequest,
            answer=ResponseTokens,
        ),
        Operation(
            name="compactResponse",
            method="POST",
            path="/v1/responses/compact",
            about="Make a conversation short: what users said, and a summary of the rest.",
            endpoint=compact_response,
            tag="responses",
            body=CompactRequest,
            answer=CompactedResponse,
        ),
        Operation(
            name="getResponse",
            method="GET",
            path="/v1/responses/{response_id}",
            about="A kept response; one made in the background also as a stream, from any event on.",
            endpoint=retrieve_response,
            tag="responses",
            answer=WireResponse,
            chunk=ResponseEvent,
            framing=RESPONSE_EVENTS,
            query=(
                Query(name="stream", about="true for its events."),
                Query(name="starting_after", about="Only events after this sequence number."),
                Query(name="include_obfuscation", about="true pads pieces of text, so that their lengths tell little."),
                INCLUDE,
            ),
        ),
        Operation(
            name="deleteResponse",
            method="DELETE",
            path="/v1/responses/{response_id}",
            about="Delete a response; one that still runs is stopped.",
            endpoint=delete_response,
            tag="responses",
            answer=WireDeleted,
        ),
        Operation(
            name="cancelResponse",
            method="POST",
            path="/v1/responses/{response_id}/cancel",
            about="Stop a response that runs in the background.",
            endpoint=cancel_response,
            tag="responses",
            answer=WireResponse,
        ),
        Operation(
            name="listInputItems",
            method="GET",
            path="/v1/responses/{response_id}/input_items",
            about="What the model was given.",
            endpoint=list_input_items,
            tag="responses",
            answer=WireItemList,
            query=(*PAGE, INCLUDE),
        ),
    ]


def is_padded(wire: ResponseRequest) -> bool:
    """Whether the pieces of a stream are to look alike in length."""
    return wire.stream_options is not None and wire.stream_options.include_obfuscation is True


async def _pieces(events: AsyncGenerator[Event, None], padded: bool) -> Pieces:
    async with aclosing(events) as each:
        async for event in each:
            shown = obfuscated(event) if padded else event
            yield f"event: {event['type']}\ndata: {to_json(shown)}"
