"""The sampling fields that chats and completions share -> `SamplingParams` and `RequestContext`.

OpenAI's published ranges hold for OpenAI's fields. The extensions carry the names that vLLM gave them,
because tools already send those. Several ways to constrain the output are known on the wire; one request
uses one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llamakit.api.inference import MAX_PRIORITY, RequestContext, read_keep_alive
from llamakit.api.limits import LIMITS
from llamakit.api.wire import LIST, TEXT, TEXT_OR_LIST, ModelName, Texts, TokenIds, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import Constraint, SamplingParams

Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Choices = Annotated[int, Field(ge=1, le=128)]
NumLogprobs = Annotated[int, Field(ge=0, le=20)]
Stop = Annotated[Annotated[str, TEXT] | Annotated[Texts, LIST], TEXT_OR_LIST]


Bias = Annotated[float, Field(ge=-100, le=100)]


def _few(bias: Any) -> Any:
    """Refuse a table before its entries are looked at: a report of every bad one would take long to write."""
    if isinstance(bias, dict) and len(bias) > LIMITS.biases:
        raise ValueError(f"must hold at most {LIMITS.biases} tokens")
    return bias


class StreamOptions(Wire):
    """What a stream carries beside the answer."""

    include_usage: bool | None = None
    """Send one more chunk with the token counts and no choices."""
    include_obfuscation: bool | None = None
    """Pad the pieces of a response, so that their lengths tell little; chunks of chats are never padded."""


class ResponseFormatText(Wire):
    """Free text."""

    type: Literal["text"]


class ResponseFormatJsonObject(Wire):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Wire):
    """A JSON Schema with a name."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """Accepted; output always follows the schema exactly."""


class ResponseFormatJsonSchema(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class ResponseFormatRegex(Wire):
    """Text that matches a regular expression (extension)."""

    type: Literal["regex"]
    regex: str


class ResponseFormatGrammar(Wire):
    """Text that a Lark grammar derives (extension)."""

    type: Literal["grammar"]
    grammar: str


class ResponseFormatChoice(Wire):
    """One of some strings (extension)."""

    type: Literal["choice"]
    choice: Texts


ResponseFormat = Annotated[
    ResponseFormatText
    | ResponseFormatJsonObject
    | ResponseFormatJsonSchema
    | ResponseFormatRegex
    | ResponseFormatGrammar
    | ResponseFormatChoice,
    Field(discriminator="type"),
]


class StructuredOutputs(Wire):
    """What the output must match; exactly one field is set."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    """A JSON Schema, as an object or as text."""
    regex: str | None = None
    choice: Texts | None = None
    grammar: str | None = None
    json_object: bool | None = None


class SamplingFields(Wire):
    """Fields of every request that generates text."""

    model: ModelName
    """Name of the model, as `GET /v1/models` lists it."""
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], BeforeValidator(_few)] | None = None
    """Token id, as text, to what is added to its logit."""
    max_tokens: Count | None = None
    n: Choices | None = None
    presence_penalty: Penalty | None = None
    response_format: ResponseFormat | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: PositiveShare | None = None
    user: str | None = None

    # Extensions.
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """Keep the k most likely tokens; 0 and -1 keep all."""
    min_p: Share | None = None
    typical_p: PositiveShare | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    """Go on past the model's own end tokens."""
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: bool | None = None
    prompt_logprobs: NumLogprobs | None = None
    """Return logprobs of the prompt's tokens with this many alternatives."""
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Texts | None = None
    guided_grammar: str | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    """Lower goes first."""
    cache_salt: Annotated[str, Field(max_length=256)] | None = None
    """Share cached prefixes only with requests of the same salt."""
    keep_alive: str | float | None = None
    """How long the model stays loaded afterwards: seconds, or text such as 5m; below zero is for ever."""
    return_progress: bool | None = None
    """Stream how much of the prompt is computed before the first token."""


def to_sampling(wire: SamplingFields, **own: object) -> dict[str, Any]:
    """The fields of `SamplingParams` that were sent, with the route's `own`; None means not sent.

    They are checked together; raises `InvalidRequest` naming the field.
    """
    asked = {
        "min_tokens": wire.min_tokens,
        "temperature": wire.temperature,
        "top_k": None if wire.top_k is None else max(0, wire.top_k),
        "top_p": wire.top_p,
        "min_p": wire.min_p,
        "typical_p": wire.typical_p,
        "repetition_penalty": wire.repetition_penalty,
        "presence_penalty": wire.presence_penalty,
        "frequency_penalty": wire.frequency_penalty,
        "logit_bias": _logit_bias(wire.logit_bias) if wire.logit_bias else None,
        "seed": wire.seed,
        "n": wire.n,
        "stop": _stop(wire.stop),
        "stop_ids": tuple(wire.stop_token_ids) if wire.stop_token_ids else None,
        "include_stop": wire.include_stop_str_in_output,
        "ignore_eos": wire.ignore_eos,
        "constraint": _constraint(wire),
        **own,
    }
    sampling = {name: value for name, value in asked.items() if value is not None}
    SamplingParams(**sampling)
    return sampling


def to_context(wire: SamplingFields, *, request_id: str, salt: str) -> RequestContext:
    """What the request carries besides its question; `salt` is the tenant's own and never the client's choice."""
    return RequestContext(
        id=request_id,
        salt=f"{salt}/{wire.cache_salt}" if wire.cache_salt else salt,
        priority=wire.priority or 0,
        keep_alive=None if wire.keep_alive is None else read_keep_alive(wire.keep_alive),
        wants_progress=bool(wire.return_progress and wire.stream),
    )


def set_aside(wire: SamplingFields) -> tuple[str, ...]:
    """Known fields that ask for something which has no effect here, or not in this request."""
    options = wire.stream_options
    hints = {
        "stream_options.include_obfuscation": options is not None and options.include_obfuscation is True,
        "return_progress": wire.return_progress is True and not wire.stream,
    }
    return tuple(name for name, is_asked in hints.items() if is_asked)


def check_stream_options(wire: SamplingFields) -> None:
    """Refuse options that only a stream can honour where none is asked for."""
    if wire.stream_options is not None and not wire.stream:
        raise InvalidRequest("stream_options is only allowed when stream is true", param="stream_options")
    if wire.stream and wire.prompt_logprobs is not None:
        raise InvalidRequest(
            "prompt_logprobs comes with whole answers only; set stream to false", param="prompt_logprobs"
        )


def _stop(stop: str | list[str] | None) -> tuple[str, ...] | None:
    if not stop:
        return None
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _logit_bias(bias: Mapping[str, float]) -> dict[int, float]:
    made: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequest(f"logit_bias keys must be token ids, got {found(key)}", param="logit_bias")
        made[int(key)] = value
    return made


def _constraint(wire: SamplingFields) -> Constraint | None:
    made: dict[str, Constraint] = {}
    for param, constraint in (
        ("response_format", format_constraint(wire.response_format)),
        ("structured_outputs", _from_structured(wire.structured_outputs)),
        ("guided_json", schema_constraint(wire.guided_json, "guided_json")),
        ("guided_regex", _text("regex", wire.guided_regex, "guided_regex")),
        ("guided_choice", _choice(wire.guided_choice, "guided_choice")),
        ("guided_grammar", _text("grammar", wire.guided_grammar, "guided_grammar")),
    ):
        if constraint is not None:
            made[param] = constraint
    if len(made) > 1:
        raise InvalidRequest(f"{' and '.join(made)} exclude each other; send one", param=list(made)[1])
    return next(iter(made.values()), None)


def format_constraint(wanted: ResponseFormat | None, param: str = "response_format") -> Constraint | None:
    """What a format asks of the output; None for free text."""
    match wanted:
        case None | ResponseFormatText():
            return None
        case ResponseFormatJsonObject():
            return Constraint(kind="json_object")
        case ResponseFormatJsonSchema():
            return schema_constraint(wanted.json_schema.schema_ or {}, f"{param}.json_schema.schema")
        case ResponseFormatRegex():
            return _text("regex", wanted.regex, f"{param}.regex")
        case ResponseFormatGrammar():
            return _text("grammar", wanted.grammar, f"{param}.grammar")
        case ResponseFormatChoice():
            return _choice(wanted.choice, f"{param}.choice")


def _from_structured(wanted: StructuredOutputs | None) -> Constraint | None:
    if wanted is None:
        return None
    param = "structured_outputs"
    made = [
        constraint
        for constraint in (
            schema_constraint(wanted.json_, f"{param}.json"),
            _text("regex", wanted.regex, f"{param}.regex"),
            _choice(wanted.choice, f"{param}.choice"),
            _text("grammar", wanted.grammar, f"{param}.grammar"),
            Constraint(kind="json_object") if wanted.json_object else None,
        )
        if constraint is not None
    ]
    if len(made) != 1:
        raise InvalidRequest(f"{param} takes exactly one of json, regex, choice, grammar, json_object", param=param)
    return made[0]


def schema_constraint(schema: dict[str, Any] | str | None, param: str) -> Constraint | None:
    """What a JSON Schema, as an object or as text, asks of the output."""
    if schema is None:
        return None
    if isinstance(schema, str):
        try:
            value = json.loads(schema)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{param} is not JSON: {found(schema)}", param=param) from None
        if not isinstance(value, dict):
            raise InvalidRequest(f"{param} must be a JSON Schema object, got {found(value)}", param=param)
    else:
        schema = json.dumps(schema, ensure_ascii=False)
    return Constraint(kind="json_schema", source=_limited(schema, param))


def _text(kind: Literal["regex", "grammar"], source: str | None, param: str) -> Constraint | None:
    if source is None:
        return None
    if not source:
        raise InvalidRequest(f"{param} must not be empty", param=param)
    return Constraint(kind=kind, source=_limited(source, param))


def _choice(choice: Texts | None, param: str) -> Constraint | None:
    if choice is None:
        return None
    if not choice or not all(choice):
        raise InvalidRequest(f"{param} must hold at least one string, and none that is empty", param=param)
    return Constraint(kind="choice", source=_limited(json.dumps(choice, ensure_ascii=False), param))


def _limited(source: str, param: str) -> str:
    if len(source.encode()) > LIMITS.schema_bytes:
        raise InvalidRequest(f"{param} has more than {LIMITS.schema_bytes} bytes", param=param)
    return source
