"""`POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.tokenize import (
    WireDetokenized,
    WireDetokenizeRequest,
    WireTokenizeRequest,
    WireTokenizerInfo,
    WireTokens,
    from_info,
    from_tokens,
    to_request,
)
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def tokenize(http: Request) -> Response:
        wire = await service.read(http, WireTokenizeRequest)
        model = await service.stack.model_or_default(wire.model)
        tokens = await service.inference.tokenize(to_request(wire, model))
        info = await service.inference.tokenizer_info(model)
        return json_response(from_tokens(wire, model, tokens, info.context_length))

    async def detokenize(http: Request) -> Response:
        wire = await service.read(http, WireDetokenizeRequest)
        model = await service.stack.model_or_default(wire.model)
        return json_response({"prompt": await service.inference.detokenize(model, wire.tokens)})

    async def tokenizer_info(http: Request) -> Response:
        model = await service.stack.model_or_default(http.query_params.get("model"))
        return json_response(from_info(await service.inference.tokenizer_info(model)))

    return [
        Operation(
            name="tokenize",
            method="POST",
            path="/tokenize",
            about="Token ids of a prompt or of messages as the model sees them.",
            endpoint=tokenize,
            tag="tokens",
            body=WireTokenizeRequest,
            answer=WireTokens,
        ),
        Operation(
            name="detokenize",
            method="POST",
            path="/detokenize",
            about="Text of token ids, special tokens by name.",
            endpoint=detokenize,
            tag="tokens",
            body=WireDetokenizeRequest,
            answer=WireDetokenized,
        ),
        Operation(
            name="tokenizerInfo",
            method="GET",
            path="/tokenizer_info",
            about="Vocabulary, special tokens and context of a model.",
            endpoint=tokenizer_info,
            tag="tokens",
            answer=WireTokenizerInfo,
            query=(Query(name="model", about="May be left out where one model is served."),),
        ),
    ]
