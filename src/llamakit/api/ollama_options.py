"""Ollama's options, format and keep_alive -> the sampling fields that were asked for.

Ollama loads a model anew for some options: its context, threads, layers on a device. Here these are chosen when
the server starts, so a request never makes it allocate; such options are named as set aside.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.inference import read_keep_alive
from llamakit.api.limits import LIMITS
from llamakit.api.openai_sampling import Count, Penalty, PositiveShare, Share, Stop
from llamakit.api.wire import ModelName, Wire
from llamakit.core.config import Duration
from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import Constraint, SamplingParams

_COMPOUND = re.compile(r"-?(?:\d+(?:\.\d+)?(?:h|ms|m|s))+")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")


class SamplingOptions(Wire):
    """Options that decide the next token and the end."""

    num_predict: Annotated[int, Field(ge=-2, lt=2**31)] | None = None
    """Most tokens to generate; below zero fills the context."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """Keep the k most likely tokens; 0 and -1 keep all."""
    top_p: PositiveShare | None = None
    min_p: Share | None = None
    typical_p: PositiveShare | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """-1 draws one."""
    stop: Stop | None = None


class OllamaOptions(SamplingOptions):
    """Those, and options of loading, which have no effect here."""

    num_ctx: Count | None = None
    """Set aside: the context is the model's own, as far as memory holds it."""
    num_keep: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    repeat_last_n: int | None = None
    tfs_z: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    penalize_newline: bool | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    vocab_only: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    embedding_only: bool | None = None


_IDLE = tuple(name for name in OllamaOptions.model_fields if name not in SamplingOptions.model_fields)
_OWN_NAMES = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}


def _form(value: Any) -> Literal["<word>", "<schema>"] | None:
    if isinstance(value, str):
        return "<word>"
    return "<schema>" if isinstance(value, dict) else None


Format = Annotated[
    Annotated[Literal["", "json"], Tag("<word>")] | Annotated[dict[str, Any], Tag("<schema>")],
    Discriminator(_form, custom_error_type="format", custom_error_message="must be 'json' or a JSON Schema"),
]
KeepAlive = str | float


class OllamaFields(Wire):
    """Fields of every request that generates text."""

    model: ModelName
    """Name of the model, as `GET /api/tags` lists it."""
    stream: bool | None = None
    """Answer line by line; true by default."""
    format: Format | None = None
    """`json`, or a JSON Schema that the answer follows."""
    options: OllamaOptions | None = None
    keep_alive: KeepAlive | None = None
    """How long the model stays loaded afterwards: seconds, or text such as 5m; below zero is for ever."""
    think: bool | str | None = None
    """A hint, set aside: Llama models do not think apart from their answer."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncate: bool | None = None
    """Set aside: a prompt that does not fit is refused, never cut."""
    shift: bool | None = None
    """Set aside: an answer ends where the context ends."""


def to_sampling(wire: OllamaFields) -> dict[str, Any]:
    """The fields of `SamplingParams` that were sent; raises `InvalidRequest` naming the option."""
    options = wire.options or OllamaOptions()
    if wire.top_logprobs and not wire.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    asked = {
        "max_tokens": None if options.num_predict is None or options.num_predict < 0 else options.num_predict,
        "temperature": options.temperature,
        "top_k": None if options.top_k is None else max(0, options.top_k),
        "top_p": options.top_p,
        "min_p": options.min_p,
        "typical_p": options.typical_p,
        "repetition_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "seed": None if options.seed == -1 else options.seed,
        "stop": _stop(options.stop),
        "constraint": _constraint(wire.format),
        "logprobs": (wire.top_logprobs or 0) if wire.logprobs else None,
    }
    sampling = {name: value for name, value in asked.items() if value is not None}
    try:
        SamplingParams(**sampling)
    except InvalidRequest as fault:
        name = _OWN_NAMES.get(fault.param or "", fault.param)
        raise InvalidRequest(f"options: {fault}", param=f"options.{name}") from None
    return sampling


def set_aside(wire: OllamaFields) -> tuple[str, ...]:
    """Known fields that ask for something which is accepted and has no effect here."""
    top = {"think": wire.think not in (None, False), "truncate": bool(wire.truncate), "shift": bool(wire.shift)}
    return (*(name for name, is_asked in top.items() if is_asked), *idle_options(wire.options))


def idle_options(options: OllamaOptions | None) -> tuple[str, ...]:
    """Options that were sent and have no effect here."""
    if options is None:
        return ()
    return tuple(f"options.{name}" for name in _IDLE if vars(options)[name] is not None)


def to_keep_alive(value: KeepAlive | None) -> Duration | None:
    """How long a model stays; also in the compound form that Go writes, such as 1h30m0s."""
    if isinstance(value, str) and _COMPOUND.fullmatch(value):
        unit_s = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
        seconds = sum(float(number) * unit_s[unit] for number, unit in _PIECE.findall(value))
        return read_keep_alive(-seconds if value.startswith("-") else seconds)
    return None if value is None else read_keep_alive(value)


def plain_name(name: str) -> str:
    """The name without the tag that Ollama's clients add where there is none."""
    return name.removesuffix(":latest") or name


def _stop(stop: str | list[str] | None) -> tuple[str, ...] | None:
    if not stop:
        return None
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _constraint(wanted: str | dict[str, Any] | None) -> Constraint | None:
    if not wanted:
        return None
    if isinstance(wanted, str):
        return Constraint(kind="json_object")
    source = json.dumps(wanted, ensure_ascii=False)
    if len(source.encode()) > LIMITS.schema_bytes:
        raise InvalidRequest(f"format has more than {LIMITS.schema_bytes} bytes", param="format")
    return Constraint(kind="json_schema", source=source)
