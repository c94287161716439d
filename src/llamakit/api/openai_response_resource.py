"""A response as clients see it: the resource with every field, before and after there is an answer.

Open Responses' readers want every field of the resource present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_answer import LOWEST_LOGPROB
from llamakit.api.openai_response_choice import ResponseToolChoice, choice_body
from llamakit.api.openai_response_items import InputItem
from llamakit.api.openai_response_options import (
    AccessPrograms,
    ConversationReference,
    PromptCacheOptions,
    PromptReference,
    Reasoning,
    TextConfig,
    TextFormatJsonSchema,
)
from llamakit.api.openai_response_tools import ResponseTools, tools_body
from llamakit.api.openai_responses import ResponseRequest, conversation_id
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, Wire
from llamakit.core.messages import TokenLogprob, Usage

ResponseStatus = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]


class CacheWriteDetails(Wire):
    """Tokens by how long they are cached."""

    ttl_12h_tokens: int
    ttl_30m_tokens: int


class InputTokensDetails(Wire):
    """Breakdown of the input's tokens."""

    cached_tokens: int
    cache_write_tokens: int
    cache_write_tokens_details: CacheWriteDetails | None = None


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


class Steer(Wire):
    """What a model was told instead."""

    message: str


class Misalignment(Wire):
    """What a model was stopped for, where another server tells."""

    detailed_explanation: str | None = None
    error_type: str | None = None
    review_target: str | None = None
    steer: Steer | None = None


class ResponseFault(Wire):
    """Why a response failed."""

    code: str
    message: str
    param: str | None = None
    type: str | None = None
    misalignment: Misalignment | None = None


class IncompleteDetails(Wire):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "max_messages", "content_filter", "steered"]


class AppliedImages(Wire):
    """How images of old turns were treated."""

    context_compression: Literal["enabled", "disabled"]


class InputTransformation(Wire):
    """An item that a model was not shown."""

    id: str | None = None
    type: Literal["reasoning"]
    action: Literal["removed"]
    reason: Literal["organization_mismatch", "end_user_mismatch", "model_mismatch", "prefix_mismatch", "turn_boundary"]


class ModerationFound(Wire):
    """What was found in words."""

    type: Literal["moderation_result"]
    model: str
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text", "image"]]]


class ModerationFailed(Wire):
    """Why words were not judged."""

    type: Literal["error"]
    code: str
    message: str


Judged = Annotated[ModerationFound | ModerationFailed, Field(discriminator="type")]


class ResponseModeration(Wire):
    """What was found in the input and in the output."""

    input: Judged
    output: Judged


class CacheMiss(Wire):
    """The prompt did not go on from the other response's."""

    type: Literal["cache_miss"]
    cache_missed_tokens: int
    reason: str
    comparison_reusable_tokens: int | None = None


class CacheVerdict(Wire):
    """What the comparison with the other response gave."""

    type: Literal["cache_hit", "comparison_response_not_found", "unavailable"]


class ImageTokens(Wire):
    """Tokens of images and of text."""

    image_tokens: int
    text_tokens: int


class CachedImageTokens(Wire):
    """Those of them that were cached."""

    cached_image_tokens: int
    cached_text_tokens: int


class ImageUse(Wire):
    """What drawing took."""

    input_tokens: int
    input_tokens_details: ImageTokens
    output_tokens: int
    total_tokens: int
    cached_tokens: int | None = None
    cached_tokens_details: CachedImageTokens | None = None
    output_tokens_details: ImageTokens | None = None


class WebSearchUse(Wire):
    """What searching took."""

    num_requests: int


class ToolUse(Wire):
    """What the server's tools took."""

    image_gen: ImageUse
    web_search: WebSearchUse


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
    instructions: Annotated[Annotated[str, TEXT] | Annotated[list[InputItem], FIRST, LIST], TEXT_OR_LIST] | None
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
    prompt_cache_options: PromptCacheOptions | None = None
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
    access_programs: AccessPrograms | None = None
    image: AppliedImages | None = None
    input_transformations: Annotated[list[InputTransformation], FIRST] | None = None
    moderation: ResponseModeration | None = None
    """With `moderation` in the request."""
    prompt_cache_diagnostics: Annotated[CacheMiss | CacheVerdict, Field(discriminator="type")] | None = None
    """With `prompt_cache_options.comparison_response_id` in the request."""
    tool_usage: ToolUse | None = None
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
    image: AppliedImages | None = None


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
        "prompt_cache_options": _cache_options(wire.prompt_cache_options),
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


def tool_usage_body(output: Sequence[Mapping[str, Any]], image_usage: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the server's tools took: searches that were made, and tokens of images as their service counts them."""
    searches = [item for item in output if item["type"] == "web_search_call" and item["status"] == "completed"]
    counts = {name: sum(one.get(name) or 0 for one in image_usage) for name in _IMAGE_COUNTS}
    details = [one.get("input_tokens_details") or {} for one in image_usage]
    told = {name: sum(one.get(name) or 0 for one in details) for name in ("image_tokens", "text_tokens")}
    return {
        "image_gen": {**counts, "input_tokens_details": told},
        "web_search": {"num_requests": len(searches)},
    }


def logprob_bodies(tokens: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
    """The wire form of an answer's tokens with their probabilities."""
    return [_token(token) | {"top_logprobs": [_token(other) for other in token.top]} for token in tokens]


_IMAGE_COUNTS = ("input_tokens", "output_tokens", "total_tokens")


def _cache_options(options: PromptCacheOptions | None) -> dict[str, Any] | None:
    """The options as they were applied: whatever was asked for, prefixes are found block by block."""
    if options is None:
        return None
    compared = options.comparison_response_id
    made = {"mode": "implicit", "ttl": options.ttl or "30m"}
    return made if compared is None else made | {"comparison_response_id": compared}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": max(token.logprob, LOWEST_LOGPROB), "bytes": list(token.bytes)}


def _applied(asked: float | None, defaults: Mapping[str, Any], name: str) -> float:
    return float(defaults.get(name, 1.0)) if asked is None else asked


def _text_body(text: TextConfig | None) -> dict[str, Any]:
    wanted = None if text is None else text.format
    body = {"type": "text"} if wanted is None else wanted.model_dump(exclude_none=True, by_alias=True)
    if isinstance(wanted, TextFormatJsonSchema):
        body = {"description": None, "schema": {}, "strict": False} | body
    return {"format": body, "verbosity": (text and text.verbosity) or "medium"}
