"""The name of a model -> an embedder for retrieval, through the inference door.

A text longer than the model's context is halved until it fits, and the vectors of its parts are averaged, so
nothing of it is left out. How long a model's vectors are is asked of the model once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from llamakit.api.ids import new_id
from llamakit.api.inference import EmbeddingRequest, Inference, RequestContext
from llamakit.core.errors import InvalidRequest
from llamakit.rag.embed import MAX_DIMENSION, CallableEmbedder, Embedder, Purpose, Vectors

BATCH = 32
"""Texts of one request to a model."""
BEHIND = 10
"""Priority of documents: whoever waits for an answer goes first."""


class Embedders:
    """Every model that can embed, by name."""

    def __init__(self, inference: Inference, default: Callable[[], Awaitable[str]]) -> None:
        self._inference = inference
        self._default = default
        self._known: dict[str, Embedder] = {}
        self._lock = asyncio.Lock()

    async def default(self) -> str:
        """The model that embeds where none is named: the first made for it, else the default model itself."""
        for model in await self._inference.models():
            if model.kind == "embedding":
                return model.name
        return await self._default()

    async def __call__(self, name: str) -> Embedder:
        """The embedder of a model; raises what the model raises: `UnknownModel`, or that it does not embed."""
        if name not in self._known:
            async with self._lock:
                if name not in self._known:
                    self._known[name] = await self._opened(name)
        return self._known[name]

    async def _opened(self, name: str) -> Embedder:
        dimension = len((await self._vectors(name, ["length"], "query"))[0])
        if not 0 < dimension <= MAX_DIMENSION:
            raise InvalidRequest(
                f"vectors of {name} have {dimension} numbers, at most {MAX_DIMENSION} are kept", param="embedding_model"
            )

        async def embed(texts: Sequence[str], purpose: Purpose) -> Vectors:
            return await self._whole(name, texts, purpose)

        return CallableEmbedder(name, dimension, embed, batch=BATCH)

    async def _whole(self, name: str, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """One vector a text, however long; one by one where the batch holds one that is too long."""
        try:
            return await self._vectors(name, texts, purpose)
        except InvalidRequest as error:
            if error.code != "context_length_exceeded":
                raise
            if len(texts) > 1:
                rows = [await self._whole(name, [text], purpose) for text in texts]
                return np.concatenate(rows)
            middle = len(texts[0]) // 2
            if middle == 0:
                raise
            # Halves weigh the same, being the same length; the sum is brought to length one afterwards.
            halves = [await self._whole(name, [half], purpose) for half in (texts[0][:middle], texts[0][middle:])]
            return halves[0] + halves[1]

    async def _vectors(self, name: str, texts: Sequence[str], purpose: Purpose) -> Vectors:
        context = RequestContext(id=new_id("embd"), priority=BEHIND if purpose == "document" else 0)
        made = await self._inference.embed(EmbeddingRequest(model=name, inputs=tuple(texts), context=context))
        return np.array([np.asarray(vector, np.float32) for vector in made.vectors])
