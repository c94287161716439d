"""OpenAI's batches on the wire: what is asked, what a batch looks like, and the lines of its files."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_lists import Metadata
from llamakit.api.wire import Wire
from llamakit.core.errors import InvalidRequest

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
BatchEndpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations"]

MAX_WINDOW_S = 30 * 86_400
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)
_UNIT_S = {"m": 60, "h": 3600, "d": 86_400}


class BatchOutputExpiry(Wire):
    """When the files that a batch makes go by themselves."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=30 * 86_400)]


class WireBatchRequest(Wire):
    """Body of `POST /v1/batches`."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=512)]
    """A file of JSON lines, sent with the purpose `batch`."""
    endpoint: BatchEndpoint
    """Where every line of the file would be sent."""
    completion_window: Annotated[str, Field(min_length=2, max_length=8)]
    """How long the batch may take, such as `24h`; minutes, hours and days up to 30."""
    metadata: Metadata | None = None
    output_expires_after: BatchOutputExpiry | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The same key with the same request gives the same batch (extension, as in Llama Stack)."""


class WireBatchError(Wire):
    """What is wrong with a batch or one line of its input."""

    code: str | None = None
    line: int | None = None
    """Counted from 1."""
    message: str | None = None
    param: str | None = None


class WireBatchErrors(Wire):
    """Everything that is wrong, as far as it was looked for."""

    object: Literal["list"]
    data: list[WireBatchError]


class WireBatchCounts(Wire):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class BatchInputDetails(Wire):
    """Breakdown of the input tokens."""

    cached_tokens: int


class BatchOutputDetails(Wire):
    """Breakdown of the output tokens."""

    reasoning_tokens: int


class WireBatchUsage(Wire):
    """Tokens of all lines that were answered."""

    input_tokens: int
    input_tokens_details: BatchInputDetails
    output_tokens: int
    output_tokens_details: BatchOutputDetails
    total_tokens: int


class WireBatch(Wire):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    """Model of its lines, where they agree on one."""
    errors: WireBatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: WireBatchCounts
    usage: WireBatchUsage
    metadata: Metadata | None


class WireBatches(Wire):
    """A page of batches."""

    object: Literal["list"]
    data: list[WireBatch]
    first_id: str
    last_id: str
    has_more: bool


def window_s(text: str) -> int:
    """Seconds of a completion window; raises `InvalidRequest`."""
    found = _WINDOW.fullmatch(text)
    seconds = 0 if found is None else int(found[1]) * _UNIT_S[found[2]]
    if not 0 < seconds <= MAX_WINDOW_S:
        raise InvalidRequest(
            f"completion_window must be a time such as 24h, at most 30d, got {text!r}", param="completion_window"
        )
    return seconds


def new_batch(id: str, wire: WireBatchRequest, *, created_at: int) -> dict[str, Any]:
    """A batch as it is in the beginning."""
    return {
        "id": id,
        "object": "batch",
        "endpoint": wire.endpoint,
        "model": None,
        "errors": None,
        "input_file_id": wire.input_file_id,
        "completion_window": wire.completion_window,
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": created_at,
        "in_progress_at": None,
        "expires_at": created_at + window_s(wire.completion_window),
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": usage_body(0, 0, 0),
        "metadata": wire.metadata,
    }


def usage_body(given: int, cached: int, made: int) -> dict[str, Any]:
    """Token counts as a batch spells them."""
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }


def usage_of(body: Any) -> tuple[int, int, int]:
    """Input, cached and output tokens of an answer of any endpoint; zeros where it tells none."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return 0, 0, 0
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    given = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    made = usage.get("completion_tokens", usage.get("output_tokens", 0))
    return given, details.get("cached_tokens", 0), made
