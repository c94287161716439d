"""Ollama's models: list, show, in memory, pull, create, copy, delete; and embeddings.

Older clients say `name` where newer ones say `model`; both are read.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.inference import EmbeddingRequest, Embeddings, LoadedModel, ModelInfo, RequestContext
from llamakit.api.limits import LIMITS
from llamakit.api.ollama_options import KeepAlive, OllamaOptions, idle_options, plain_name, to_keep_alive
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, ModelName, Texts, Wire
from llamakit.core.errors import InvalidRequest

FOREVER = "9999-12-31T23:59:59Z"
"""When a model expires that stays."""
EMBEDDED_TEXT = Annotated[Annotated[str, TEXT] | Annotated[Texts, LIST], TEXT_OR_LIST]


class NamedRequest(Wire):
    """A request about one model."""

    model: ModelName | None = None
    name: ModelName | None = None
    """Older form of `model`."""


class OllamaShowRequest(NamedRequest):
    """Body of `POST /api/show`."""

    verbose: bool | None = None


class OllamaDeleteRequest(NamedRequest):
    """Body of `DELETE /api/delete`."""


class OllamaPullRequest(NamedRequest):
    """Body of `POST /api/pull`."""

    stream: bool | None = None
    """Tell the progress line by line; true by default."""
    insecure: bool | None = None
    """Refused: every file is verified."""


class OllamaCopyRequest(Wire):
    """Body of `POST /api/copy`."""

    source: ModelName
    destination: ModelName


class OllamaTurn(Wire):
    """A turn every conversation begins with."""

    role: Literal["system", "user", "assistant"]
    content: str


class OllamaCreateRequest(NamedRequest):
    """Body of `POST /api/create`: the fields of a Modelfile, or its text."""

    from_: ModelName | None = Field(default=None, alias="from")
    """The model to build on."""
    modelfile: str | None = None
    """Older form: the text of a Modelfile."""
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: Annotated[list[OllamaTurn], FIRST] | None = None
    license: EMBEDDED_TEXT | None = None
    template: str | None = None
    """Refused: prompt formats here are tested code that the model chooses."""
    files: dict[str, str] | None = None
    """Refused: weights are pulled, or named on the server's machine."""
    adapters: dict[str, str] | None = None
    """Refused, like files."""
    quantize: str | None = None
    """Refused: `llama model` quantizes on the server's machine."""
    stream: bool | None = None


class OllamaEmbedRequest(Wire):
    """Body of `POST /api/embed`."""

    model: ModelName
    input: EMBEDDED_TEXT
    truncate: bool | None = None
    """Set aside: a text that does not fit is refused, never cut."""
    dimensions: Annotated[int, Field(ge=1, lt=2**20)] | None = None
    options: OllamaOptions | None = None
    keep_alive: KeepAlive | None = None


class OllamaEmbeddingsRequest(Wire):
    """Body of `POST /api/embeddings`, the older form."""

    model: ModelName
    prompt: str | None = None
    options: OllamaOptions | None = None
    keep_alive: KeepAlive | None = None


class OllamaDetails(Wire):
    """What kind of model."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(Wire):
    """A model that can be asked for."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    """Tells versions of a name apart on this server; not a digest of the weights."""
    details: OllamaDetails


class OllamaTags(Wire):
    """All of them."""

    models: list[OllamaModel]


class OllamaRunning(Wire):
    """A model in memory."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


class OllamaProcesses(Wire):
    """Every model in memory."""

    models: list[OllamaRunning]


class OllamaShown(Wire):
    """What a model is."""

    modelfile: str
    parameters: str
    template: str
    """Always empty: prompts are rendered by code, and `POST /tokenize` with messages shows the result."""
    system: str
    license: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaStatus(Wire):
    """How far a change is; `success` at last."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class OllamaDone(Wire):
    """Nothing more to say."""


class OllamaEmbeddings(Wire):
    """A vector of unit length per input."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbedding(Wire):
    """The vector."""

    embedding: list[float]


class OllamaVersion(Wire):
    """Which version of Ollama's API this speaks, and the version of what speaks it."""

    version: str
    llamakit: str


def named(wire: NamedRequest) -> str:
    """The model a request is about; raises `InvalidRequest` where it names none."""
    name = wire.model or wire.name
    if name is None:
        raise InvalidRequest("model is required", param="model", code="missing_required_parameter")
    return plain_name(name)


def to_embedding(wire: OllamaEmbedRequest, *, request_id: str, salt: str = "") -> EmbeddingRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    inputs = (wire.input,) if isinstance(wire.input, str) else tuple(wire.input)
    if len(inputs) > LIMITS.inputs:
        raise InvalidRequest(f"input holds {len(inputs)} items, at most {LIMITS.inputs}", param="input")
    if not all(inputs):
        raise InvalidRequest("input must hold texts, and none that is empty", param="input")
    return EmbeddingRequest(
        model=plain_name(wire.model),
        inputs=inputs,
        context=RequestContext(id=request_id, salt=salt, keep_alive=to_keep_alive(wire.keep_alive)),
        dimensions=wire.dimensions,
    )


def embed_hints(wire: OllamaEmbedRequest | OllamaEmbeddingsRequest) -> tuple[str, ...]:
    """Known fields that ask for something which is accepted and has no effect here."""
    truncates = isinstance(wire, OllamaEmbedRequest) and bool(wire.truncate)
    return (*(("truncate",) if truncates else ()), *idle_options(wire.options))


def from_embeddings(model: str, made: Embeddings, elapsed_s: float) -> dict[str, Any]:
    """The wire form of vectors."""
    return {
        "model": model,
        "embeddings": [array.tolist(vector) for vector in made.vectors],
        "total_duration": int(elapsed_s * 1e9),
        "load_duration": 0,
        "prompt_eval_count": made.prompt_tokens,
    }


def from_models(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """The wire form of the list."""
    return {"models": [_from_model(model) for model in models]}


def from_loaded(models: Sequence[LoadedModel], moment: datetime | None = None) -> dict[str, Any]:
    """The wire form of what is in memory."""
    moment = moment or datetime.now(UTC)
    return {"models": [_from_loaded(model, moment) for model in models]}


def from_shown(
    model: ModelInfo,
    *,
    modelfile: str | None = None,
    parent: str = "",
    system: str | None = None,
    parameters: Sequence[tuple[str, int | float | str]] = (),
) -> dict[str, Any]:
    """The wire form of what a model is; the rest is what a recipe adds."""
    facts = model.details
    licence = " ".join(str(facts[name]) for name in ("licence", "licence_url") if name in facts)
    return {
        "modelfile": modelfile or f"FROM {model.name}\n",
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in parameters),
        "template": "",
        "system": system or "",
        "license": licence,
        "details": _details(facts, parent),
        "model_info": _model_info(model),
        "capabilities": _capabilities(model),
        "modified_at": _time(model.created),
    }


def _from_model(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _time(model.created),
        "size": _count(model.details, "size_bytes"),
        "digest": _digest(model.name, model.created, model.details.get("size_bytes", 0)),
        "details": _details(model.details),
    }


def _from_loaded(model: LoadedModel, moment: datetime) -> dict[str, Any]:
    stays = math.isinf(model.expires_in_s)
    expires = FOREVER if stays else (moment + timedelta(seconds=model.expires_in_s)).isoformat().replace("+00:00", "Z")
    return {
        "name": model.name,
        "model": model.name,
        "size": model.memory_bytes,
        "digest": _digest(model.name, model.context_length, model.memory_bytes),
        "details": _details({}),
        "expires_at": expires,
        "size_vram": 0 if model.device in ("cpu", "none") else model.memory_bytes,
        "context_length": model.context_length,
    }


def _details(facts: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    family = str(facts.get("architecture", facts.get("family", "llama")))
    return {
        "parent_model": parent,
        "format": str(facts.get("format", "")),
        "family": family,
        "families": [family],
        "parameter_size": _size(_count(facts, "parameters")),
        "quantization_level": str(facts.get("quantization", "")),
    }


def _model_info(model: ModelInfo) -> dict[str, Any]:
    """Facts under the names that GGUF files give them; what is unknown is absent."""
    facts = model.details
    known = {
        "general.architecture": facts.get("architecture", "llama"),
        "general.basename": facts.get("family"),
        "general.parameter_count": facts.get("parameters"),
        "llama.context_length": model.context_length,
        "llama.embedding_length": facts.get("dim"),
        "llama.block_count": facts.get("layers"),
        "llama.feed_forward_length": facts.get("ffn_dim"),
        "llama.attention.head_count": facts.get("heads"),
        "llama.attention.head_count_kv": facts.get("kv_heads"),
        "llama.rope.dimension_count": facts.get("head_dim"),
        "llama.rope.freq_base": facts.get("rope_theta"),
        "llama.vocab_size": facts.get("vocab_size"),
    }
    return {name: value for name, value in known.items() if value is not None}


def _capabilities(model: ModelInfo) -> list[str]:
    if model.kind == "embedding":
        return ["embedding"]
    return ["completion", *(["tools"] if model.details.get("tools") else [])]


def _size(parameters: int) -> str:
    """1.2B, 135.0M: as people say it; nothing where it is not known."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.1f}M" if parameters else ""


def _count(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name, 0)
    return value if isinstance(value, int) else 0


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _time(created: int) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
