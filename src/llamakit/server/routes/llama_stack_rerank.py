"""`POST /v1/inference/rerank`: texts by how well they answer a question."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
from llamakit.api.inference import RequestContext
from llamakit.api.llama_stack_rerank import (
    LlamaStackRerank,
    LlamaStackRerankRequest,
    ranked_body,
    read_texts,
    score_of_answer,
    scores_of_vectors,
    to_embedding,
    to_questions,
)
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def rerank(http: Request) -> Response:
        wire = await service.read(http, LlamaStackRerankRequest)
        exchange = exchange_of(http)
        exchange.model = wire.model
        query, texts = read_texts(wire)
        id, salt = new_id("rank"), exchange.principal.salt
        if (await service.inference.model(wire.model)).kind == "embedding":
            request = to_embedding(wire.model, query, texts, RequestContext(id=id, salt=salt))
            made = await service.wanted(http, service.inference.embed(request))
            exchange.prompt_tokens = made.prompt_tokens
            scores = scores_of_vectors(made)
        else:
            questions = to_questions(wire.model, query, texts, request_id=id, salt=salt)
            streams = [service.inference.chat(question) for question in questions]
            scores = [score_of_answer(answer) for answer in await service.whole(http, wire.model, streams)]
        return json_response(ranked_body(scores, wire.max_num_results))

    return [
        Operation(
            name="rerank",
            method="POST",
            path="/v1/inference/rerank",
            about="Texts by how well they answer a question.",
            endpoint=rerank,
            tag="llama stack inference",
            body=LlamaStackRerankRequest,
            answer=LlamaStackRerank,
        )
    ]
