"""What every OpenAI answer carries: token counts, timings, logprobs, and the text form of its pieces.

Builds plain values and JSON text, no models: this runs once a token. The wire types beside them are the
published shape of the same values; the tests hold one to the other.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from llamakit import __version__
from llamakit.api.wire import Wire
from llamakit.core.errors import EngineStopped
from llamakit.core.messages import Finish, PrefillProgress, Timings, TokenLogprob, Usage

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


class PromptTokensDetails(Wire):
    """Breakdown of the prompt's tokens."""

    cached_tokens: int | None = None
    """Tokens whose computation was found in the prefix cache."""
    audio_tokens: int | None = None
    cache_write_tokens: int | None = None
    image_tokens: int | None = None
    text_tokens: int | None = None


class CompletionTokensDetails(Wire):
    """Breakdown of the answer's tokens."""

    reasoning_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    text_tokens: int | None = None


class CompletionUsage(Wire):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


class WireTimings(Wire):
    """Where the time of one request went (extension, with the names that llama.cpp gave them)."""

    queue_ms: float
    cache_n: int
    """Prompt tokens found in the prefix cache."""
    prompt_n: int
    """Prompt tokens computed."""
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: int | None = None
    """Tokens proposed by speculation."""
    draft_n_accepted: int | None = None


class PromptProgress(Wire):
    """How much of the prompt is computed (extension, with the names that llama.cpp gave them)."""

    total: int
    cache: int
    processed: int
    time_ms: float


class TopLogprob(Wire):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class ChatTokenLogprob(Wire):
    """A token of a chat's answer with its probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Wire):
    """Logprobs of a chat's choice."""

    content: list[ChatTokenLogprob] | None = None
    refusal: list[ChatTokenLogprob] | None = None


class CompletionLogprobs(Wire):
    """Logprobs of a completion's choice: four lists of one length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerHead:
    """What every chunk and body of one answer begins with."""

    id: str
    created: int
    model: str
    service_tier: str | None = None

    def fields(self, kind: str) -> dict[str, Any]:
        """The common fields of an object of `kind`."""
        made = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint(self.model),
        }
        if self.service_tier is not None:
            made["service_tier"] = self.service_tier
        return made


@functools.lru_cache(maxsize=1024)
def fingerprint(model: str) -> str:
    """Changes when what computes the answers changes: this version, this model."""
    return "fp_" + hashlib.sha256(f"{__version__}\0{model}".encode()).hexdigest()[:12]


def quote(text: str) -> str:
    """`text` as a JSON string on one line for every reader.

    Some clients split a stream where Unicode sees line ends, so those are escaped even where JSON needs it not.
    """
    if text.isascii():
        return encode_basestring_ascii(text)
    return encode_basestring(text).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")


def to_json(value: Any) -> str:
    """Compact JSON text of plain values, on one line for every reader."""
    return json.dumps(value, separators=(",", ":"))


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The wire form of token counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def timing_fields(usage: Usage, timings: Timings) -> dict[str, Any]:
    """The wire form of timings, in milliseconds and tokens a second."""
    computed = usage.prompt_tokens - usage.cached_tokens
    made: dict[str, Any] = {
        "queue_ms": _ms(timings.queue_s),
        "cache_n": usage.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": _ms(timings.prefill_s),
        "prompt_per_token_ms": _ms(_ratio(timings.prefill_s, computed)),
        "prompt_per_second": round(_ratio(computed, timings.prefill_s), 3),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": _ms(timings.decode_s),
        "predicted_per_token_ms": _ms(_ratio(timings.decode_s, usage.completion_tokens)),
        "predicted_per_second": round(_ratio(usage.completion_tokens, timings.decode_s), 3),
    }
    if usage.drafted_tokens:
        made |= {"draft_n": usage.drafted_tokens, "draft_n_accepted": usage.accepted_tokens}
    return made


def progress_fields(event: PrefillProgress, elapsed_s: float) -> dict[str, Any]:
    """The wire form of prefill progress."""
    return {"total": event.total, "cache": event.cached, "processed": event.done, "time_ms": _ms(elapsed_s)}


def finish_reason(event: Finish, *, called_tools: bool) -> str:
    """OpenAI's word for how a choice ended; an end that is no answer is an error and raised as one."""
    if event.reason in ("cancelled", "error"):
        raise EngineStopped("the engine stopped before the answer was complete; send the request again")
    return "tool_calls" if called_tools and event.reason == "stop" else event.reason


def stop_field(stop: str | int | None) -> str:
    """The stop string or id that ended a choice, as JSON text to go behind its finish reason."""
    return "" if stop is None else f',"stop_reason":{to_json(stop)}'


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """The wire form of a chat's logprobs."""
    return [_token(token) | {"top_logprobs": [_token(other) for other in token.top]} for token in tokens]


def prompt_logprob_fields(prompt: Sequence[TokenLogprob | None]) -> list[dict[str, Any] | None]:
    """Logprobs of the prompt's tokens by token id (extension, in vLLM's shape); the first has none."""
    return [None if token is None else _by_id(token) for token in prompt]


class CompletionLogprobWriter:
    """Logprobs in the older shape of completions; keeps the offset of the next token in the answer's text."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        """Characters of the answer's text before the next token."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, tokens: Iterable[TokenLogprob], *, names_specials: bool = False) -> dict[str, Any]:
        """The next tokens; `names_specials` says that the text spells special tokens by name."""
        made: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            made["tokens"].append(_text(token))
            made["token_logprobs"].append(_clamped(token))
            made["top_logprobs"].append(_by_text(token))
            made["text_offset"].append(self.offset)
            named = token.token if names_specials and not token.bytes else ""
            self.offset += len(self._decoder.decode(token.bytes)) + len(named)
        return made


def join_logprobs(*parts: dict[str, Any]) -> dict[str, Any]:
    """Several stretches of the older shape as one."""
    return {key: [item for part in parts for item in part[key]] for key in parts[0]}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": _clamped(token), "bytes": list(token.bytes) if token.bytes else None}


def _by_id(token: TokenLogprob) -> dict[str, Any]:
    """Alternatives come most likely first, so the place of one is its rank; outside them the rank is unknown."""
    made = {
        str(other.id): {"logprob": _clamped(other), "rank": rank, "decoded_token": other.token}
        for rank, other in enumerate(token.top, 1)
    }
    own = {"logprob": _clamped(token), "rank": None, "decoded_token": token.token}
    return {str(token.id): made.get(str(token.id), own)} | made


def _by_text(token: TokenLogprob) -> dict[str, float]:
    """Alternatives and the token itself; of two with one text the likelier counts."""
    made: dict[str, float] = {}
    for other in (*token.top, token):
        text = _text(other)
        made[text] = max(made.get(text, LOWEST_LOGPROB), _clamped(other))
    return made


def _text(token: TokenLogprob) -> str:
    """The token's text; bytes that are no text by themselves are spelled out, as OpenAI does."""
    if "\ufffd" not in token.token or not token.bytes:
        return token.token
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)


def _clamped(token: TokenLogprob) -> float:
    return max(token.logprob, LOWEST_LOGPROB)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
