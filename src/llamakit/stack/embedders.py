"""The name of a model -> an embedder for retrieval, through the inference door.

A text longer than the model's context is halved until it fits, and the vectors of its parts are averaged, so
nothing of it is left out. How long a model's vectors are is asked of the model once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llamakit.api.ids import new_id
from llamakit.api.inference import EmbeddingRequest, Inference, RequestContext
from llamakit.core.errors import InvalidRequest
from llamakit.providers.specs import Api
from llamakit.rag.embed import MAX_DIMENSION, CallableEmbedder, Embedder, Purpose, Vectors
from llamakit.stack.resolve import build_provider, resolve_spec

BATCH = 32
"""Texts of one request to a model."""
BEHIND = 10
"""Priority of documents: whoever waits for an answer goes first."""


IN_PROCESS = {"all-minilm-l6-v2": "inline::minilm", "ngrams": "inline::ngrams"}
"""Models that embed in this process though nobody serves them, with the providers they are of, the better first."""


class Embedders:
    """Every model that can embed, by name: those that are served, and those in process."""

    def __init__(self, inference: Inference, preferred: str | None = None) -> None:
        self._inference = inference
        self._preferred = preferred
        self._known: dict[str, Embedder] = {}
        self._own: dict[str, Inference] = {}
        self._lock = asyncio.Lock()

    async def default(self) -> str:
        """The model that embeds where none is named: the one the run config prefers, else one that is served to embed,
        else the best in process. A model made to chat embeds poorly, so it has to be named.
        """
        if self._preferred is not None:
            return self._preferred
        served = [model.name for model in await self._inference.models() if model.kind == "embedding"]
        if served:
            return served[0]
        there = [name for name in IN_PROCESS if await self._in_process(name).models()]
        return there[0]

    async def aclose(self) -> None:
        """Let go of the models in process; a second call does nothing."""
        for inference in self._own.values():
            await inference.aclose()

    async def __call__(self, name: str) -> Embedder:
        """The embedder of a model; raises what the model raises: `UnknownModel`, or that it does not embed."""
        if name not in self._known:
            async with self._lock:
                if name not in self._known:
                    self._known[name] = await self._opened(name)
        return self._known[name]

    async def _opened(self, name: str) -> Embedder:
        inference = await self._inference_of(name)
        dimension = len((await _vectors(inference, name, ["length"], "query"))[0])
        if not 0 < dimension <= MAX_DIMENSION:
            raise InvalidRequest(
                f"vectors of {name} have {dimension} numbers, at most {MAX_DIMENSION} are kept", param="embedding_model"
            )

        async def embed(texts: Sequence[str], purpose: Purpose) -> Vectors:
            return await _whole(inference, name, texts, purpose)

        return CallableEmbedder(name, dimension, embed, batch=BATCH)

    async def _inference_of(self, name: str) -> Inference:
        """Who embeds by that name; a served model goes before one in process of the same name."""
        if name in IN_PROCESS and name not in [model.name for model in await self._inference.models()]:
            return self._in_process(name)
        return self._inference

    def _in_process(self, name: str) -> Inference:
        if name not in self._own:
            self._own[name] = build_provider(resolve_spec(Api.inference, IN_PROCESS[name]), {}, {})
        return self._own[name]


async def _whole(inference: Inference, name: str, texts: Sequence[str], purpose: Purpose) -> Vectors:
    """One vector a text, however long; one by one where the batch holds one that is too long."""
    import numpy as np

    try:
        return await _vectors(inference, name, texts, purpose)
    except InvalidRequest as error:
        if error.code != "context_length_exceeded":
            raise
        if len(texts) > 1:
            import numpy as np

            rows = [await _whole(inference, name, [text], purpose) for text in texts]
            return np.concatenate(rows)
        middle = len(texts[0]) // 2
        if middle == 0:
            raise
        # Halves weigh the same, being the same length; the sum is brought to length one afterwards.
        halves = (texts[0][:middle], texts[0][middle:])
        first, second = [await _whole(inference, name, [half], purpose) for half in halves]
        return first + second


async def _vectors(inference: Inference, name: str, texts: Sequence[str], purpose: Purpose) -> Vectors:
    import numpy as np  # a server that embeds nothing does without

    context = RequestContext(id=new_id("embd"), priority=BEHIND if purpose == "document" else 0)

    made = await inference.embed(EmbeddingRequest(model=name, inputs=tuple(texts), context=context))
    return np.array([np.asarray(vector, np.float32) for vector in made.vectors])
