"""`/v1/inference/*`: Llama Stack's own inference, whole, streamed and in batches."""

from __future__ import annotations

import dataclasses

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
from llamakit.api.inference import EmbeddingRequest, TokenizeRequest
from llamakit.api.llama_stack_answer import (
    ChatEvents,
    CompletionPieces,
    LlamaStackChat,
    LlamaStackChatBatch,
    LlamaStackChatChunk,
    LlamaStackCompletion,
    LlamaStackCompletionBatch,
    LlamaStackCompletionChunk,
    LlamaStackEmbeddings,
    to_chat_body,
    to_completion_body,
    to_embeddings_body,
)
from llamakit.api.llama_stack_inference import (
    LlamaStackChatBatchRequest,
    LlamaStackChatRequest,
    LlamaStackCompletionBatchRequest,
    LlamaStackCompletionRequest,
    LlamaStackEmbeddingsRequest,
    embedding_hints,
    set_aside,
    to_chat,
    to_chats,
    to_completion,
    to_completions,
    to_embedding,
)
from llamakit.server.ceiling import answer_within
from llamakit.server.dialects import PLAIN_EVENTS
from llamakit.server.exchange import exchange_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service

TAG = "llama stack inference"


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def chat(http: Request) -> Response:
        wire = await service.read(http, LlamaStackChatRequest, set_aside)
        request = to_chat(wire, request_id=new_id("chat"), salt=begin(http, wire.model_id))
        stream = answer_within(service.inference, request)
        with_logprobs = wire.logprobs is not None
        if wire.stream:
            events = ChatEvents(with_logprobs=with_logprobs)
            return service.streamed(http, wire.model_id, [stream], lambda _, event: events.push(event), PLAIN_EVENTS)
        (answer,) = await service.whole(http, wire.model_id, [stream])
        return json_response(to_chat_body(answer, with_logprobs=with_logprobs))

    async def chat_batch(http: Request) -> Response:
        wire = await service.read(http, LlamaStackChatBatchRequest, set_aside)
        requests = to_chats(wire, request_id=new_id("chat"), salt=begin(http, wire.model_id))
        streams = [answer_within(service.inference, request) for request in requests]
        answers = await service.whole(http, wire.model_id, streams)
        with_logprobs = wire.logprobs is not None
        return json_response({"batch": [to_chat_body(answer, with_logprobs=with_logprobs) for answer in answers]})

    async def completion(http: Request) -> Response:
        wire = await service.read(http, LlamaStackCompletionRequest)
        request = to_completion(wire, request_id=new_id("cmpl"), salt=begin(http, wire.model_id))
        stream = answer_within(service.inference, request)
        with_logprobs = wire.logprobs is not None
        if wire.stream:
            pieces = CompletionPieces(with_logprobs=with_logprobs)
            return service.streamed(http, wire.model_id, [stream], lambda _, event: pieces.push(event), PLAIN_EVENTS)
        (answer,) = await service.whole(http, wire.model_id, [stream])
        return json_response(to_completion_body(answer, with_logprobs=with_logprobs))

    async def completion_batch(http: Request) -> Response:
        wire = await service.read(http, LlamaStackCompletionBatchRequest)
        requests = to_completions(wire, request_id=new_id("cmpl"), salt=begin(http, wire.model_id))
        streams = [answer_within(service.inference, request) for request in requests]
        answers = await service.whole(http, wire.model_id, streams)
        with_logprobs = wire.logprobs is not None
        return json_response({"batch": [to_completion_body(answer, with_logprobs=with_logprobs) for answer in answers]})

    async def embeddings(http: Request) -> Response:
        wire = await service.read(http, LlamaStackEmbeddingsRequest, embedding_hints)
        request = to_embedding(wire, request_id=new_id("embd"), salt=begin(http, wire.model_id))
        if wire.text_truncation in ("start", "end"):
            request = await cut(request, from_start=wire.text_truncation == "start")
        made = await service.wanted(http, service.inference.embed(request))
        exchange_of(http).prompt_tokens = made.prompt_tokens
        return json_response(to_embeddings_body(made))

    def begin(http: Request, model: str) -> str:
        """Note the model on the request's books; the salt of who asks."""
        exchange = exchange_of(http)
        exchange.model = model
        return exchange.principal.salt

    async def cut(request: EmbeddingRequest, *, from_start: bool) -> EmbeddingRequest:
        """The same, each text as many tokens of its beginning or end as the model holds."""
        room = (await service.inference.tokenizer_info(request.model)).context_length
        inputs: list[str | tuple[int, ...]] = []
        for text in request.inputs:
            inputs.append(text)
            if isinstance(text, str) and len(text.encode()) > room:
                asked = TokenizeRequest(model=request.model, prompt=text)
                ids = (await service.inference.tokenize(asked)).ids
                if len(ids) > room:
                    inputs[-1] = ids[-room:] if from_start else ids[:room]
        return dataclasses.replace(request, inputs=tuple(inputs))

    return [
        Operation(
            name="llamaStackChat",
            method="POST",
            path="/v1/inference/chat-completion",
            about="Answer a conversation, in Llama Stack's form.",
            endpoint=chat,
            tag=TAG,
            body=LlamaStackChatRequest,
            answer=LlamaStackChat,
            chunk=LlamaStackChatChunk,
            framing=PLAIN_EVENTS,
        ),
        Operation(
            name="llamaStackChatBatch",
            method="POST",
            path="/v1/inference/batch-chat-completion",
            about="Answer several conversations, in Llama Stack's form.",
            endpoint=chat_batch,
            tag=TAG,
            body=LlamaStackChatBatchRequest,
            answer=LlamaStackChatBatch,
        ),
        Operation(
            name="llamaStackCompletion",
            method="POST",
            path="/v1/inference/completion",
            about="Continue a text, in Llama Stack's form.",
            endpoint=completion,
            tag=TAG,
            body=LlamaStackCompletionRequest,
            answer=LlamaStackCompletion,
            chunk=LlamaStackCompletionChunk,
            framing=PLAIN_EVENTS,
        ),
        Operation(
            name="llamaStackCompletionBatch",
            method="POST",
            path="/v1/inference/batch-completion",
            about="Continue several texts, in Llama Stack's form.",
            endpoint=completion_batch,
            tag=TAG,
            body=LlamaStackCompletionBatchRequest,
            answer=LlamaStackCompletionBatch,
        ),
        Operation(
            name="llamaStackEmbeddings",
            method="POST",
            path="/v1/inference/embeddings",
            about="Vectors of texts, in Llama Stack's form.",
            endpoint=embeddings,
            tag=TAG,
            body=LlamaStackEmbeddingsRequest,
            answer=LlamaStackEmbeddings,
        ),
    ]
