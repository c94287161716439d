"""OpenAI's Responses on the wire: the request, the resource, and what lies between request and sampling.

Field-complete against the published API and against Open Responses, whose readers want every field of the
resource present. The stream's events are next door, in `openai_response_events.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_answer import LOWEST_LOGPROB
from llamakit.api.openai_lists import Metadata
from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT
from llamakit.api.openai_response_items import InputItem, InputItems, InputText
from llamakit.api.openai_response_tools import ResponseToolChoice, ResponseTools, choice_body, tools_body
from llamakit.api.openai_sampling import (
    NumLogprobs,
    Penalty,
    PositiveShare,
    ResponseFormatChoice,
    ResponseFormatGrammar,
    ResponseFormatJsonObject,
    ResponseFormatRegex,
    ResponseFormatText,
    Stop,
    StreamOptions,
    format_constraint,
    schema_constraint,
)
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, ModelName, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import TokenLogprob, Usage
from llamakit.core.sampling import Constraint, SamplingParams

ResponseStatus = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
LOGPROBS = "message.output_text.logprobs"
SERVED_INCLUDES = (
    LOGPROBS,
    "file_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
)


class TextFormatJsonSchema(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(max_length=64)]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None
    """Accepted; output always follows the schema exactly."""


TextFormat = Annotated[
    ResponseFormatText
    | TextFormatJsonSchema
    | ResponseFormatJsonObject
    | ResponseFormatRegex
    | ResponseFormatGrammar
    | ResponseFormatChoice,
    Field(discriminator="type"),
]


class TextConfig(Wire):
    """What the answer's text is like."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Wire):
    """How a model is to reason; passed on and shown, without effect on models that do not."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    mode: str | None = None


PromptVariable = Annotated[Annotated[str, TEXT] | Annotated[InputText, OBJECT], WORD_OR_OBJECT]


class PromptReference(Wire):
    """A stored prompt with values for its variables."""

    id: str
    variables: dict[str, PromptVariable] | None = None
    version: str | None = None
    """A number; the default version when left out."""


class ConversationReference(Wire):
    """A stored conversation."""

    id: str


ConversationChoice = Annotated[
    Annotated[str, TEXT] | Annotated[ConversationReference, OBJECT],
    WORD_OR_OBJECT,
]
ResponseInput = Annotated[Annotated[str, TEXT] | Annotated[InputItems, LIST], TEXT_OR_LIST]


class ResponseContext(Wire):
    """What every operation takes that looks at a conversation as a model would."""

    model: ModelName | None = None
    """Name of the model, as `GET /v1/models` lists it; the server's default when left out."""
    input: ResponseInput | None = None
    instructions: str | None = None
    """Stands first as a system message; a previous response's instructions are not carried over."""
    previous_response_id: str | None = None
    conversation: ConversationChoice | None = None
    tools: ResponseTools | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    """`auto` leaves out the oldest items where all do not fit; `disabled` refuses instead."""
    prompt_cache_key: str | None = None
    """Accepted; prefixes are found without a key."""
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: str | None = None
    image: dict[str, Any] | None = None
    """A hint, set aside: images are not compressed."""


class ResponseRequest(ResponseContext):
    """Body of `POST /v1/responses`."""

    access_programs: dict[str, Any] | None = None
    background: bool | None = None
    """Answer at once, and go on computing; what becomes of it is read, or streamed, later."""
    context_management: Annotated[list[dict[str, Any]], FIRST] | None = None
    """A hint, set aside: conversations are made short by `POST /v1/responses/compact`."""
    include: Annotated[list[str], FIRST] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Most calls of the server's own tools; further ones are not made."""
    metadata: Metadata | None = None
    moderation: dict[str, Any] | None = None
    """Refused: answers are not moderated by this route."""
    prompt: PromptReference | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    store: bool | None = None
    """Keep the response, so that it can be read and gone on from; true by default."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_logprobs: NumLogprobs | None = None
    top_p: PositiveShare | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None

    # Extensions.
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None


class ResponseTokensRequest(ResponseContext):
    """Body of `POST /v1/responses/input_tokens`."""

    personality: str | None = None
    """A hint, set aside."""


class ResponseTokens(Wire):
    """How many tokens a request's input has."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class CompactRequest(Wire):
    """Body of `POST /v1/responses/compact`."""

    model: ModelName
    input: ResponseInput | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: str | None = None
    image: dict[str, Any] | None = None


class InputTokensDetails(Wire):
    """Breakdown of the input's tokens."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Wire):
    """Breakdown of the output's tokens."""

    reasoning_tokens: int


class ResponseUsage(Wire):
    """Token counts of one response, all its turns together."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFault(Wire):
    """Why a response failed."""

    code: str
    message: str
    param: str | None = None
    type: str | None = None


class IncompleteDetails(Wire):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter"]


class WireResponse(Wire):
    """A response."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    background: bool
    conversation: ConversationReference | None
    error: ResponseFault | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: Annotated[list[InputItem], FIRST]
    parallel_tool_calls: bool
    presence_penalty: float
    frequency_penalty: float
    previous_response_id: str | None
    prompt: PromptReference | None
    prompt_cache_key: str | None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    reasoning: Reasoning
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: TextConfig
    tool_choice: ResponseToolChoice
    tools: ResponseTools
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None
    left_out_items: int | None = None
    """Items of the conversation that did not fit and were left out (extension, with `truncation: auto`)."""


class ListedResponse(WireResponse):
    """A response in a list."""

    input: Annotated[list[InputItem], FIRST]
    """The items that it brought, without those of the responses before (Llama Stack)."""


class WireResponses(Wire):
    """A page of responses."""

    object: Literal["list"]
    data: Annotated[list[ListedResponse], FIRST]
    first_id: str
    last_id: str
    has_more: bool


class CompactedResponse(Wire):
    """A conversation made short: what users said, and a summary of the rest."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: Annotated[list[InputItem], FIRST]
    usage: ResponseUsage


def conversation_id(wire: ResponseContext) -> str | None:
    """The conversation that a request names; raises `InvalidRequest` where it also names a previous response."""
    named = wire.conversation
    if named is not None and wire.previous_response_id is not None:
        raise InvalidRequest(
            "conversation and previous_response_id are two ways to go on; send one", param="previous_response_id"
        )
    return named.id if isinstance(named, ConversationReference) else named


def check(wire: ResponseRequest) -> None:
    """Refuse what nothing here can give, and wishes that contradict one another."""
    for param, is_asked, instead in (
        ("moderation", wire.moderation is not None, "answers are not moderated by this route; leave it out"),
        ("background", bool(wire.background) and wire.store is False, "needs store: true, or nobody could read it"),
        ("stream_options", wire.stream_options is not None and not wire.stream, "needs stream: true"),
    ):
        if is_asked:
            raise InvalidRequest(f"{param}: {instead}", param=param)


def set_aside(wire: Wire) -> tuple[str, ...]:
    """Known fields that ask for something which is accepted and has no effect here."""
    made: list[str] = []
    for name, harmless in (
        ("access_programs", (None,)),
        ("context_management", (None, [])),
        ("image", (None,)),
        ("personality", (None,)),
        ("prompt_cache_options", (None,)),
        ("prompt_cache_retention", (None,)),
        ("service_tier", (None, "auto", "default")),
    ):
        if wire.__dict__.get(name) not in harmless:
            made.append(name)
    match wire.__dict__.get("reasoning"):
        case Reasoning() as reasoning if reasoning.effort not in (None, "none") or reasoning.summary is not None:
            made.append("reasoning")
    match wire.__dict__.get("text"):
        case TextConfig(verbosity="low" | "high"):
            made.append("text.verbosity")
    match wire.__dict__.get("stream_options"):
        case StreamOptions(include_obfuscation=True):
            made.append("stream_options.include_obfuscation")
    included = wire.__dict__.get("include") or ()
    made += [f"include[{index}]" for index, name in enumerate(included) if name not in SERVED_INCLUDES]
    return tuple(made)


def sampling_of(wire: ResponseRequest) -> dict[str, Any]:
    """The fields of `SamplingParams` that were asked for, checked; raises `InvalidRequest` naming the field."""
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    asked = {
        "max_tokens": wire.max_output_tokens,
        "temperature": wire.temperature,
        "top_p": wire.top_p,
        "top_k": None if wire.top_k is None else max(0, wire.top_k),
        "presence_penalty": wire.presence_penalty,
        "frequency_penalty": wire.frequency_penalty,
        "seed": wire.seed,
        "stop": stop or None,
        "logprobs": (wire.top_logprobs or 0) if wants_logprobs(wire) else None,
        "constraint": _constraint(wire.text),
    }
    sampling = {name: value for name, value in asked.items() if value is not None}
    SamplingParams(**sampling)
    return sampling


def wants_logprobs(wire: ResponseRequest) -> bool:
    """Whether the parts of the answer carry the probabilities of their tokens."""
    return LOGPROBS in (wire.include or ()) or bool(wire.top_logprobs)


def resource_of(
    wire: ResponseRequest,
    *,
    id: str,
    created_at: int,
    model: str,
    defaults: Mapping[str, Any],
    status: ResponseStatus,
) -> dict[str, Any]:
    """A response before it has an answer, every field filled; `defaults` are the model's own sampling fields."""
    conversation = conversation_id(wire)
    return {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": status,
        "background": bool(wire.background),
        "conversation": None if conversation is None else {"id": conversation},
        "error": None,
        "incomplete_details": None,
        "instructions": wire.instructions,
        "max_output_tokens": wire.max_output_tokens,
        "max_tool_calls": wire.max_tool_calls,
        "metadata": wire.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": wire.parallel_tool_calls is not False,
        "presence_penalty": wire.presence_penalty or 0.0,
        "frequency_penalty": wire.frequency_penalty or 0.0,
        "previous_response_id": wire.previous_response_id,
        "prompt": None if wire.prompt is None else wire.prompt.model_dump(exclude_none=True),
        "prompt_cache_key": wire.prompt_cache_key,
        "prompt_cache_options": wire.prompt_cache_options,
        "prompt_cache_retention": wire.prompt_cache_retention,
        "reasoning": {"effort": None, "summary": None}
        | ({} if wire.reasoning is None else wire.reasoning.model_dump(exclude_none=True)),
        "safety_identifier": wire.safety_identifier,
        "service_tier": "default",
        "store": wire.store is not False,
        "temperature": _applied(wire.temperature, defaults, "temperature"),
        "text": _text_body(wire.text),
        "tool_choice": choice_body(wire.tool_choice),
        "tools": tools_body(wire.tools or ()),
        "top_logprobs": wire.top_logprobs or 0,
        "top_p": _applied(wire.top_p, defaults, "top_p"),
        "truncation": wire.truncation or "disabled",
        "usage": None,
        "user": wire.user,
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    """The wire form of token counts."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def logprob_bodies(tokens: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
    """The wire form of an answer's tokens with their probabilities."""
    return [_token(token) | {"top_logprobs": [_token(other) for other in token.top]} for token in tokens]


def prompt_values(prompt: PromptReference) -> dict[str, str]:
    """The values of a stored prompt's variables."""
    given = prompt.variables or {}
    return {name: value if isinstance(value, str) else value.text for name, value in given.items()}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": max(token.logprob, LOWEST_LOGPROB), "bytes": list(token.bytes)}


def _applied(asked: float | None, defaults: Mapping[str, Any], name: str) -> float:
    return float(defaults.get(name, 1.0)) if asked is None else asked


def _constraint(text: TextConfig | None) -> Constraint | None:
    wanted = None if text is None else text.format
    if isinstance(wanted, TextFormatJsonSchema):
        return schema_constraint(wanted.schema_ or {}, "text.format.schema")
    return format_constraint(wanted, "text.format")  # pyright: ignore[reportArgumentType]


def _text_body(text: TextConfig | None) -> dict[str, Any]:
    wanted = None if text is None else text.format
    body = {"type": "text"} if wanted is None else wanted.model_dump(exclude_none=True, by_alias=True)
    if isinstance(wanted, TextFormatJsonSchema):
        body = {"description": None, "schema": {}, "strict": False} | body
    return {"format": body, "verbosity": (text and text.verbosity) or "medium"}
