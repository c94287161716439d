"""Llama Stack's sampling, response format and logprobs -> the sampling fields that were asked for.

Without `sampling_params` an answer is greedy: that is this API's published default, and callers rely on it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.limits import LIMITS
from llamakit.api.openai_sampling import schema_constraint
from llamakit.api.wire import Texts, Wire, found
from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import MAX_LOGPROBS, Constraint, SamplingParams

_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])+/[a-z]*|<?[A-Za-z_][A-Za-z0-9_-]*>?|\S')
_ROOTS = ("start", "root")


class LlamaStackGreedy(Wire):
    """Always the most likely token."""

    type: Literal["greedy"]


class LlamaStackTopP(Wire):
    """Draw from the likeliest tokens whose mass reaches `top_p`."""

    type: Literal["top_p"]
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """0.95 when left out."""


class LlamaStackTopK(Wire):
    """Draw from the `top_k` likeliest tokens."""

    type: Literal["top_k"]
    top_k: Annotated[int, Field(ge=1, lt=2**31)]


LlamaStackStrategy = Annotated[LlamaStackGreedy | LlamaStackTopP | LlamaStackTopK, Field(discriminator="type")]


class LlamaStackSampling(Wire):
    """How tokens are chosen and when they end."""

    strategy: LlamaStackStrategy | None = None
    """Greedy when left out."""
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Most tokens to generate; 0 and none fill the context."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop: Texts | None = None


class LlamaStackJsonFormat(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any]


class LlamaStackGrammarFormat(Wire):
    """Text that a grammar derives."""

    type: Literal["grammar"]
    bnf: dict[str, Any]
    """Name of a rule to its right-hand side, beginning at `root` or `start`; names stand bare or in `<>`."""


LlamaStackFormat = Annotated[LlamaStackJsonFormat | LlamaStackGrammarFormat, Field(discriminator="type")]


class LlamaStackLogprobs(Wire):
    """How many alternatives are wanted at every token."""

    top_k: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """0 when left out: the token's own probability."""


def to_sampling(
    sampling: LlamaStackSampling | None, format: LlamaStackFormat | None, logprobs: LlamaStackLogprobs | None
) -> dict[str, Any]:
    """The fields of `SamplingParams`; raises `InvalidRequest` naming the field."""
    sampling = sampling or LlamaStackSampling()
    asked: dict[str, Any] = {
        **_strategy(sampling.strategy),
        "max_tokens": sampling.max_tokens or None,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": tuple(sampling.stop) if sampling.stop else None,
        "constraint": _constraint(format),
        "logprobs": None if logprobs is None else logprobs.top_k or 0,
    }
    made = {name: value for name, value in asked.items() if value is not None}
    try:
        SamplingParams(**made)
    except InvalidRequest as fault:
        raise InvalidRequest(f"sampling_params: {fault}", param=f"sampling_params.{fault.param}") from None
    return made


def _strategy(strategy: LlamaStackStrategy | None) -> dict[str, Any]:
    match strategy:
        case None | LlamaStackGreedy():
            return {"temperature": 0.0}
        case LlamaStackTopP():
            return {
                "temperature": strategy.temperature,
                "top_p": 0.95 if strategy.top_p is None else strategy.top_p,
            }
        case LlamaStackTopK():
            return {"top_k": strategy.top_k}


def _constraint(format: LlamaStackFormat | None) -> Constraint | None:
    match format:
        case None:
            return None
        case LlamaStackJsonFormat():
            return schema_constraint(format.json_schema, "response_format.json_schema")
        case LlamaStackGrammarFormat():
            return Constraint(kind="grammar", source=_grammar(format.bnf))


def _grammar(rules: dict[str, Any]) -> str:
    """The rules in the notation of our grammars, which spells names in lower case and begins at `start`."""
    param = "response_format.bnf"
    root = next((name for name in _ROOTS if name in rules), None)
    if root is None:
        raise InvalidRequest(f"{param} must have a rule {' or '.join(map(repr, _ROOTS))} to begin at", param=param)
    lines = [] if root == "start" else [f"start: {_name(root)}"]
    for name, body in rules.items():
        if _RULE.fullmatch(name) is None or not isinstance(body, str) or not body.strip():
            raise InvalidRequest(
                f"{param}.{name[:64]} must be a rule's name with its right-hand side as text, got {found(body)}",
                param=param,
            )
        lines.append(f"{_name(name) if name != 'start' else name}: {_body(body, rules, param)}")
    source = "\n".join(lines)
    if len(source.encode()) > LIMITS.schema_bytes:
        raise InvalidRequest(f"{param} has more than {LIMITS.schema_bytes} bytes", param=param)
    return source


def _body(body: str, rules: dict[str, Any], param: str) -> str:
    made: list[str] = []
    for token in _TOKEN.findall(body):
        name = token.strip("<>")
        if token[0] in '"/' or _RULE.fullmatch(name) is None:
            made.append(token)
        elif name in rules:
            made.append("start" if name == "start" else _name(name))
        else:
            raise InvalidRequest(f"{param} uses {json.dumps(name)}, which is not one of its rules", param=param)
    return " ".join(made)


def _name(rule: str) -> str:
    """A rule's name as our grammars take it; the prefix keeps it apart from their own words."""
    return "r_" + rule.lower().replace("-", "_")
