"""`POST /v1/completions`."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
from llamakit.api.inference import CompletionRequest, Inference, TokenizeRequest
from llamakit.api.openai_answer import AnswerHead
from llamakit.api.openai_completions import (
    CompletionChunks,
    Echo,
    WireCompletion,
    WireCompletionRequest,
    to_body,
    to_requests,
)
from llamakit.api.openai_sampling import set_aside
from llamakit.server.exchange import Exchange, exchange_of
from llamakit.server.routing import Operation
from llamakit.server.service import Call, Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def create_completion(http: Request) -> Response:
        wire = await service.read(http, WireCompletionRequest, set_aside)
        call = await begin(service, wire, exchange_of(http))
        return await service.answered(http, call, is_streamed=bool(wire.stream))

    return [
        Operation(
            name="createCompletion",
            method="POST",
            path="/v1/completions",
            about="Continue a text or token ids, or fill in before a suffix.",
            endpoint=create_completion,
            tag="completions",
            body=WireCompletionRequest,
            answer=WireCompletion,
            chunk=WireCompletion,
        )
    ]


async def begin(service: Service, wire: WireCompletionRequest, exchange: Exchange) -> Call:
    """The call that a request makes; nothing is generated yet. Raises `InvalidRequest`."""
    exchange.model = wire.model
    head = AnswerHead(id=new_id("cmpl"), created=int(time.time()), model=wire.model)
    requests = to_requests(wire, request_id=head.id, salt=exchange.principal.salt)
    echoes = [await _echo_of(service.inference, wire, request) if wire.echo else None for request in requests]
    return Call(
        model=wire.model,
        streams=[service.inference.complete(request) for request in requests],
        write=lambda: CompletionChunks(wire, head, echoes).push,
        body=lambda answers: to_body(wire, head, answers, echoes),
    )


async def _echo_of(inference: Inference, wire: WireCompletionRequest, request: CompletionRequest) -> Echo:
    """What the answers begin with; the first token's text is asked for only where it is shown."""
    shows_tokens = wire.logprobs is not None
    if not isinstance(request.prompt, str):
        text = await inference.detokenize(wire.model, request.prompt)
        first = await inference.detokenize(wire.model, request.prompt[:1]) if shows_tokens else ""
        return Echo(text=text, first_token=first, names_specials=True)
    if not shows_tokens:
        return Echo(text=request.prompt)
    tokens = await inference.tokenize(
        TokenizeRequest(model=wire.model, prompt=request.prompt, add_special_tokens=request.add_special_tokens)
    )
    return Echo(text=request.prompt, first_token=tokens.texts[0] if tokens.texts else "")
