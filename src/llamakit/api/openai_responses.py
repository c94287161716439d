"""OpenAI's Responses on the wire: the requests, and what lies between a request and sampling.

Field-complete against the published API. The resource is next door, in `openai_response_resource.py`, and the
stream's events in `openai_response_events.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_lists import Metadata
from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT
from llamakit.api.openai_response_choice import ResponseToolChoice
from llamakit.api.openai_response_items import InputItems
from llamakit.api.openai_response_options import (
    AccessPrograms,
    ContextManagement,
    ConversationReference,
    ImageOptions,
    ModerationOptions,
    PromptCacheOptions,
    PromptReference,
    Reasoning,
    TextConfig,
    TextFormatJsonSchema,
)
from llamakit.api.openai_response_tools import ResponseTools
from llamakit.api.openai_sampling import (
    NumLogprobs,
    Penalty,
    PositiveShare,
    Stop,
    StreamOptions,
    format_constraint,
    schema_constraint,
)
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, ModelName, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import Constraint, SamplingParams

LOGPROBS = "message.output_text.logprobs"
SERVED_INCLUDES = (
    LOGPROBS,
    "file_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
)


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
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: str | None = None
    image: ImageOptions | None = None


class ResponseRequest(ResponseContext):
    """Body of `POST /v1/responses`."""

    access_programs: AccessPrograms | None = None
    background: bool | None = None
    """Answer at once, and go on computing; what becomes of it is read, or streamed, later."""
    context_management: Annotated[list[ContextManagement], FIRST] | None = None
    include: Annotated[list[str], FIRST] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Most calls of the server's own tools; further ones are not made."""
    metadata: Metadata | None = None
    moderation: ModerationOptions | None = None
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
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: str | None = None
    image: ImageOptions | None = None


def conversation_id(wire: ResponseContext) -> str | None:
    """The conversation that a request names; raises `InvalidRequest` where it also names a previous response."""
    named = wire.conversation
    if named is not None and wire.previous_response_id is not None:
        raise InvalidRequest(
            "conversation and previous_response_id are two ways to go on; send one", param="previous_response_id"
        )
    return named.id if isinstance(named, ConversationReference) else named


def configured(wire: ResponseRequest, update: Mapping[str, Any]) -> ResponseRequest:
    """The request under the configuration that its conversation came to, where it says nothing itself."""
    changes: dict[str, Any] = {}
    if "text" in update and (wire.text is None or wire.text.format is None):
        text = TextConfig.model_validate(update["text"])
        changes["text"] = text.model_copy(update={"verbosity": wire.text and wire.text.verbosity})
    if "reasoning" in update and wire.reasoning is None:
        changes["reasoning"] = Reasoning.model_validate(update["reasoning"])
    return wire.model_copy(update=changes) if changes else wire


def check(wire: ResponseRequest) -> None:
    """Refuse what nothing here can give, and wishes that contradict one another."""
    for param, is_asked, instead in (
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
        ("image", (None,)),
        ("personality", (None,)),
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
    match wire.__dict__.get("prompt_cache_options"):
        case PromptCacheOptions() as options:
            wishes = options.model_dump(exclude_none=True, exclude={"comparison_response_id"})
            made += [f"prompt_cache_options.{name}" for name in wishes if wishes[name] not in (False, "implicit")]
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


def _constraint(text: TextConfig | None) -> Constraint | None:
    wanted = None if text is None else text.format
    if isinstance(wanted, TextFormatJsonSchema):
        return schema_constraint(wanted.schema_ or {}, "text.format.schema")
    return format_constraint(wanted, "text.format")  # pyright: ignore[reportArgumentType]
