"""OpenAI's embeddings: wire request -> `EmbeddingRequest`, and vectors -> body, as numbers or base64."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.inference import EmbeddingRequest, Embeddings, RequestContext, read_keep_alive
from llamakit.api.limits import LIMITS
from llamakit.api.texts_or_ids import TextsOrIds, to_items
from llamakit.api.wire import ModelName, Wire
from llamakit.core.errors import InvalidRequest


class WireEmbeddingRequest(Wire):
    """Body of `POST /v1/embeddings`."""

    input: TextsOrIds
    """Text, token ids, or several of either, each with a vector of its own."""
    model: ModelName
    dimensions: Annotated[int, Field(ge=1, lt=2**20)] | None = None
    """Length of the vectors, where the model can shorten them."""
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    keep_alive: str | float | None = None
    """How long the model stays loaded afterwards (extension)."""


class WireEmbedding(Wire):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Wire):
    """Token counts of the inputs."""

    prompt_tokens: int
    total_tokens: int


class WireEmbeddings(Wire):
    """All vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[WireEmbedding]
    model: str
    usage: EmbeddingUsage


def to_request(wire: WireEmbeddingRequest, *, request_id: str, salt: str = "") -> EmbeddingRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    inputs = tuple(to_items(wire.input, "input"))
    if len(inputs) > LIMITS.inputs:
        raise InvalidRequest(f"input holds {len(inputs)} items, at most {LIMITS.inputs}", param="input")
    for index, item in enumerate(inputs):
        if not item:
            param = "input" if len(inputs) == 1 else f"input[{index}]"
            raise InvalidRequest(f"{param} must not be empty", param=param)
    keep_alive = None if wire.keep_alive is None else read_keep_alive(wire.keep_alive)
    return EmbeddingRequest(
        model=wire.model,
        inputs=inputs,
        context=RequestContext(id=request_id, salt=salt, keep_alive=keep_alive),
        dimensions=wire.dimensions,
    )


def to_body(wire: WireEmbeddingRequest, made: Embeddings) -> dict[str, Any]:
    """The body, in the encoding that was asked for; numbers by default, as published."""
    encode = encode_base64 if wire.encoding_format == "base64" else array.tolist
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(made.vectors)
        ],
        "model": wire.model,
        "usage": {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens},
    }


def encode_base64(vector: array[float]) -> str:
    """Base64 of little-endian float32, the form the official clients read."""
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
