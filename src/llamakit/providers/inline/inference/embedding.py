"""An inference provider of one model that embeds in process and does nothing else.

Knows when to open the encoder and what to refuse; what an encoder is, the modules beside say.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NoReturn, Protocol

from llamakit.api.inference import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    Health,
    LoadedModel,
    ModelInfo,
    ModelStats,
    TokenizeRequest,
    TokenizerInfo,
    Tokens,
)
from llamakit.core.config import Duration
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.core.messages import AnswerEvent
from llamakit.rag.embed import Vectors


class Encoder(Protocol):
    """Makes vectors; may be used from several threads."""

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        ...

    @property
    def context(self) -> int | None:
        """Tokens of a text at most; None for any number."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What it takes."""
        ...

    def encode(self, inputs: Sequence[str | Sequence[int]]) -> tuple[Vectors, int]:
        """One vector of length one an input, and the tokens of all."""
        ...


class EmbeddingInference:
    """Fulfils `Inference`."""

    def __init__(
        self, model: str, opening: Callable[[], Encoder], *, is_there: Callable[[], bool] = lambda: True
    ) -> None:
        self._model = model
        self._opening = opening
        self._is_there = is_there
        self._encoder: Encoder | None = None
        self._lock = asyncio.Lock()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors of unit length; `PromptTooLong` beyond the encoder's context."""
        self._check(request.model)
        encoder = await self._opened()
        if request.dimensions not in (None, encoder.width):
            raise InvalidRequest(
                f"dimensions: vectors of {self._model} have {encoder.width} and cannot be shortened, "
                f"got {request.dimensions}",
                param="dimensions",
            )
        vectors, num_tokens = await asyncio.to_thread(encoder.encode, request.inputs)
        return Embeddings(vectors=tuple(array("f", row) for row in vectors.tolist()), prompt_tokens=num_tokens)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Refused."""
        self._refuse(request.model, "chat")
        yield

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Refused."""
        self._refuse(request.model, "continue a text")
        yield

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Refused."""
        self._refuse(request.model, "show its tokens")

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Refused."""
        self._refuse(model, "show its tokens")

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Refused."""
        self._refuse(model, "show its tokens")

    async def models(self) -> Sequence[ModelInfo]:
        """The one model, where its files are there."""
        return [await self.model(self._model)] if self._is_there() else []

    async def model(self, name: str) -> ModelInfo:
        """The one model; raises `UnknownModel` for another."""
        self._check(name)
        context = None if self._encoder is None else self._encoder.context
        return ModelInfo(name=name, context_length=context, kind="embedding")

    async def loaded(self) -> Sequence[LoadedModel]:
        """The model, once it was used."""
        encoder = self._encoder
        if encoder is None:
            return []
        return [
            LoadedModel(
                name=self._model,
                memory_bytes=encoder.memory_bytes,
                context_length=encoder.context or 0,
                device="cpu",
            )
        ]

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Open the encoder."""
        self._check(model)
        await self._opened()
        return (await self.loaded())[0]

    async def unload(self, model: str) -> bool:
        """Let the encoder go; whether there was one."""
        self._check(model)
        was, self._encoder = self._encoder is not None, None
        return was

    def stats(self) -> Sequence[ModelStats]:
        """None: nothing waits and nothing is cached."""
        return []

    async def health(self) -> Health:
        """Ready at once."""
        return Health(ready=True)

    async def aclose(self) -> None:
        """Let the encoder go; a second call does nothing."""
        self._encoder = None

    async def _opened(self) -> Encoder:
        async with self._lock:
            if self._encoder is None:
                self._encoder = await asyncio.to_thread(self._opening)
            return self._encoder

    def _check(self, model: str) -> None:
        if model != self._model:
            raise UnknownModel(f"no model {model!r} here; there is {self._model}", name=model)

    def _refuse(self, model: str, what: str) -> NoReturn:
        self._check(model)
        raise InvalidRequest(f"{self._model} makes embeddings and cannot {what}; name another model", param="model")
