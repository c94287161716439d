"""`POST /api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`: Ollama's API, line by line by default."""

from __future__ import annotations

import dataclasses
import time

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.ids import new_id
from llamakit.api.inference import ChatRequest, CompletionRequest, TokenizeRequest
from llamakit.api.ollama import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    is_question,
    thoughts,
    to_chat,
    to_prompt,
)
from llamakit.api.ollama_answer import AnswerLines, OllamaChat, OllamaGenerated, loaded_body, to_body
from llamakit.api.ollama_models import (
    OllamaEmbedding,
    OllamaEmbeddings,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    embed_hints,
    from_embeddings,
    to_embedding,
)
from llamakit.api.ollama_options import plain_name, set_aside, to_keep_alive
from llamakit.server.ceiling import answer_within
from llamakit.server.dialects import JSON_LINES
from llamakit.server.exchange import exchange_of
from llamakit.server.gone import while_wanted
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""

    async def chat(http: Request) -> Response:
        wire = await service.read(http, OllamaChatRequest, lambda wire: (*set_aside(wire), *thoughts(wire)))
        exchange = exchange_of(http)
        exchange.model = wire.model
        if not is_question(wire):
            return await load_or_unload(wire)
        return await answer(http, wire, to_chat(wire, request_id=new_id("chat"), salt=exchange.principal.salt))

    async def generate(http: Request) -> Response:
        wire = await service.read(http, OllamaGenerateRequest, set_aside)
        exchange = exchange_of(http)
        exchange.model = wire.model
        if not is_question(wire):
            return await load_or_unload(wire)
        request = to_prompt(wire, request_id=new_id("gen"), salt=exchange.principal.salt)
        if isinstance(request, CompletionRequest) and request.suffix is None:
            request = await with_specials(request)
        return await answer(http, wire, request)

    async def answer(
        http: Request, wire: OllamaChatRequest | OllamaGenerateRequest, request: ChatRequest | CompletionRequest
    ) -> Response:
        is_chat, started = isinstance(wire, OllamaChatRequest), time.monotonic()
        stream = answer_within(service.inference, request)
        if wire.stream is not False:
            lines = AnswerLines(wire.model, is_chat=is_chat)
            return service.streamed(http, request.model, [stream], lambda _, event: lines.push(event), JSON_LINES)
        (made,) = await service.whole(http, request.model, [stream])
        return json_response(to_body(wire.model, made, time.monotonic() - started, is_chat=is_chat))

    async def with_specials(request: CompletionRequest) -> CompletionRequest:
        """A raw prompt spells its special tokens, and may begin with the one that begins a text."""
        if not isinstance(request.prompt, str):
            return request
        info = await service.inference.tokenizer_info(request.model)
        begins = info.bos is not None and request.prompt.startswith(info.bos[1])
        asked = TokenizeRequest(
            model=request.model, prompt=request.prompt, add_special_tokens=not begins, parse_special=True
        )
        return dataclasses.replace(request, prompt=(await service.inference.tokenize(asked)).ids)

    async def load_or_unload(wire: OllamaChatRequest | OllamaGenerateRequest) -> Response:
        model, keep_alive = plain_name(wire.model), to_keep_alive(wire.keep_alive)
        is_unload = keep_alive == 0
        if is_unload:
            await service.inference.unload(model)
        else:
            await service.inference.load(model, keep_alive)
        is_chat = isinstance(wire, OllamaChatRequest)
        return json_response(loaded_body(wire.model, is_chat=is_chat, is_unload=is_unload))

    async def embed(http: Request) -> Response:
        wire = await service.read(http, OllamaEmbedRequest, embed_hints)
        return json_response(await vectors(http, wire))

    async def embeddings(http: Request) -> Response:
        wire = await service.read(http, OllamaEmbeddingsRequest, embed_hints)
        if not wire.prompt:
            return json_response({"embedding": []})
        asked = OllamaEmbedRequest(model=wire.model, input=wire.prompt, keep_alive=wire.keep_alive)
        return json_response({"embedding": (await vectors(http, asked))["embeddings"][0]})

    async def vectors(http: Request, wire: OllamaEmbedRequest) -> dict:
        exchange, started = exchange_of(http), time.monotonic()
        exchange.model = wire.model
        request = to_embedding(wire, request_id=new_id("embd"), salt=exchange.principal.salt)
        made = await while_wanted(service.inference.embed(request), http.receive, service.drain)
        exchange.prompt_tokens = made.prompt_tokens
        return from_embeddings(wire.model, made, time.monotonic() - started)

    return [
        Operation(
            name="ollamaChat",
            method="POST",
            path="/api/chat",
            about="Answer a conversation, in Ollama's form.",
            endpoint=chat,
            tag="ollama",
            body=OllamaChatRequest,
            answer=OllamaChat,
            chunk=OllamaChat,
            framing=JSON_LINES,
        ),
        Operation(
            name="ollamaGenerate",
            method="POST",
            path="/api/generate",
            about="Answer a prompt, continue a raw one, or fill in before a suffix, in Ollama's form.",
            endpoint=generate,
            tag="ollama",
            body=OllamaGenerateRequest,
            answer=OllamaGenerated,
            chunk=OllamaGenerated,
            framing=JSON_LINES,
        ),
        Operation(
            name="ollamaEmbed",
            method="POST",
            path="/api/embed",
            about="Vectors of texts, in Ollama's form.",
            endpoint=embed,
            tag="ollama",
            body=OllamaEmbedRequest,
            answer=OllamaEmbeddings,
        ),
        Operation(
            name="ollamaEmbeddings",
            method="POST",
            path="/api/embeddings",
            about="The vector of one text, in Ollama's older form.",
            endpoint=embeddings,
            tag="ollama",
            body=OllamaEmbeddingsRequest,
            answer=OllamaEmbedding,
        ),
    ]
