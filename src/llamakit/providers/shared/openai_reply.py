"""Chunks or whole bodies of OpenAI's wire -> the house's events, every field checked.

An answer counts as whole when each of its choices has said why it ended; a stream that ends earlier is an error,
whatever the HTTP said. Vendors differ in small things, which are read here as they come: calls without an index,
arguments as an object, token counts in a chunk of their own or in the last one.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from llamakit.core.errors import RemoteFailed
from llamakit.core.messages import (
    AnswerEvent,
    Done,
    Finish,
    FinishReason,
    PrefillProgress,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from llamakit.providers.shared.refusals import interruption

UNKNOWN_ID = -1
"""Id of a token whose id the wire does not carry."""
MAX_CALLS = 1024
_SPELLED = re.compile(r"\\x([0-9a-f]{2})")
_REASONS: dict[str, FinishReason] = {"length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}


class ReplyReader:
    """Reads one answer; feed with `read`, and take what `end` gives when nothing more comes."""

    def __init__(self, service: str, *, num_choices: int = 1) -> None:
        self._service = service
        self._num_choices = num_choices
        self._started = time.monotonic()
        self._first: float | None = None
        self._ended: set[int] = set()
        self._calls: dict[tuple[int, int], bool] = {}
        """Choice and index of each call begun."""
        self._call_ids: dict[tuple[int, str], int] = {}
        self._usage = Usage()
        self._timings: Timings | None = None
        self._prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None

    def read(self, value: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        """The events of one chunk or body; raises what an error object in it says, or `RemoteFailed`."""
        if value.get("error"):
            raise interruption(self._service, value["error"])
        self._books(value)
        if (progress := value.get("prompt_progress")) is not None:
            yield self._progress(progress)
        for choice in self._list(value, "choices"):
            if not isinstance(choice, dict):
                self._bad("choices")
            yield from self._choice(choice)

    def end(self) -> Iterator[AnswerEvent]:
        """The last event; raises `RemoteFailed` where the answer is not whole."""
        if len(self._ended) < self._num_choices:
            raise RemoteFailed(f"{self._service} ended before its answer was complete")
        now = time.monotonic()
        first = now if self._first is None else self._first
        timings = self._timings or Timings(prefill_s=first - self._started, decode_s=now - first)
        yield Done(usage=self._usage, timings=timings, prompt_logprobs=self._prompt_logprobs)

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[AnswerEvent]:
        index = choice.get("index", 0)
        if not _is_count(index) or index >= self._num_choices or index in self._ended:
            self._bad("choices[].index")
        logprobs = self._logprobs(choice.get("logprobs"))
        if choice.get("prompt_logprobs") is not None:
            self._prompt_logprobs = self._of_prompt(choice["prompt_logprobs"])
        said = choice.get("delta") or choice.get("message") or {}
        if not isinstance(said, dict):
            self._bad("choices[].delta")
        text = self._text(choice, "text") + self._text(said, "content") + self._text(said, "refusal")
        calls = self._list(said, "tool_calls")
        if (text or logprobs or calls) and self._first is None:
            self._first = time.monotonic()
        if text or (logprobs and not calls):
            yield TextDelta(text=text, choice=index, logprobs=logprobs)
            logprobs = ()
        for call in calls:
            yield self._call(call, index, logprobs)
            logprobs = ()
        if choice.get("finish_reason") is not None:
            yield self._finish(choice, index)

    def _finish(self, choice: Mapping[str, Any], index: int) -> Finish:
        reason = self._text(choice, "finish_reason")
        if reason == "content_filter":
            raise RemoteFailed(f"{self._service} withheld the answer (content_filter)")
        self._ended.add(index)
        stop = choice.get("stop_reason")
        has_called = any(owner == index for owner, _ in self._calls)
        ended: FinishReason = _REASONS.get(reason, "tool_calls" if has_called else "stop")
        is_stop = isinstance(stop, str | int) and not isinstance(stop, bool) and ended == "stop"
        return Finish(reason=ended, choice=index, stop=clean(stop) if is_stop else None)

    def _call(self, call: Any, choice: int, logprobs: tuple[TokenLogprob, ...]) -> ToolCallDelta:
        if not isinstance(call, dict):
            self._bad("tool_calls")
        function = call.get("function") or {}
        if not isinstance(function, dict):
            self._bad("tool_calls[].function")
        call_id, name = self._text(call, "id"), self._text(function, "name")
        index = self._index(call, choice, call_id, name)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        elif not isinstance(arguments, str | None):
            self._bad("tool_calls[].function.arguments")
        is_first = (choice, index) not in self._calls
        if is_first:
            if not name or len(self._calls) >= MAX_CALLS:
                self._bad("tool_calls[].function.name")
            self._calls[choice, index] = True
            call_id = call_id or f"call_{secrets.token_hex(12)}"
        return ToolCallDelta(
            index=index,
            arguments=clean(arguments or ""),
            id=call_id if is_first else None,
            name=name if is_first else None,
            choice=choice,
            logprobs=logprobs,
        )

    def _index(self, call: Mapping[str, Any], choice: int, call_id: str, name: str) -> int:
        """The call's place: as sent, or by its id; without either a name begins a new call."""
        if (given := call.get("index")) is not None:
            if not _is_count(given):
                self._bad("tool_calls[].index")
            return given
        begun = sum(owner == choice for owner, _ in self._calls)
        if call_id:
            return self._call_ids.setdefault((choice, call_id), begun)
        return begun if name else max(0, begun - 1)

    def _books(self, value: Mapping[str, Any]) -> None:
        """Token counts, times and the prompt's logprobs, where they come."""
        if isinstance(usage := value.get("usage"), dict):
            details = usage.get("prompt_tokens_details")
            timings = value.get("timings")
            timings = timings if isinstance(timings, dict) else {}
            self._usage = Usage(
                prompt_tokens=self._count(usage, "prompt_tokens"),
                cached_tokens=self._count(details, "cached_tokens") if isinstance(details, dict) else 0,
                completion_tokens=self._count(usage, "completion_tokens"),
                drafted_tokens=self._count(timings, "draft_n"),
                accepted_tokens=self._count(timings, "draft_n_accepted"),
            )
        if isinstance(timings := value.get("timings"), dict):
            seconds = [self._number(timings, name) / 1000 for name in ("queue_ms", "prompt_ms", "predicted_ms")]
            self._timings = Timings(queue_s=seconds[0], prefill_s=seconds[1], decode_s=seconds[2])
        if value.get("prompt_logprobs") is not None:
            self._prompt_logprobs = self._of_prompt(value["prompt_logprobs"])

    def _progress(self, progress: Any) -> PrefillProgress:
        if not isinstance(progress, dict):
            self._bad("prompt_progress")
        total = self._count(progress, "total")
        done = min(self._count(progress, "processed"), total)
        return PrefillProgress(done=done, total=total, cached=min(self._count(progress, "cache"), done))

    def _logprobs(self, value: Any) -> tuple[TokenLogprob, ...]:
        """Logprobs in the shape of chats, or in the older one of completions."""
        if value is None:
            return ()
        if not isinstance(value, dict):
            self._bad("logprobs")
        if isinstance(tokens := value.get("tokens"), list):
            values, tops = self._list(value, "token_logprobs"), self._list(value, "top_logprobs")
            return tuple(
                self._old_token(token, number, tops[place] if place < len(tops) else None)
                for place, (token, number) in enumerate(zip(tokens, values, strict=False))
            )
        return tuple(self._token(entry) for entry in self._list(value, "content"))

    def _token(self, entry: Any) -> TokenLogprob:
        if not isinstance(entry, dict):
            self._bad("logprobs.content")
        text, data = self._text(entry, "token"), entry.get("bytes")
        is_bytes = isinstance(data, list) and all(_is_count(byte) and byte < 256 for byte in data)
        return TokenLogprob(
            id=UNKNOWN_ID,
            token=text,
            bytes=bytes(data) if is_bytes and data is not None else text.encode(),
            logprob=self._number(entry, "logprob"),
            top=tuple(self._token(other) for other in self._list(entry, "top_logprobs")),
        )

    def _old_token(self, token: Any, number: Any, top: Any) -> TokenLogprob:
        """One entry of the older shape: the text, or its bytes spelled out where they are no text."""
        if not isinstance(token, str) or not isinstance(number, int | float):
            self._bad("logprobs.tokens")
        others = top if isinstance(top, dict) else {}
        ranked = sorted(
            (one for one in others.items() if isinstance(one[1], int | float)), key=lambda one: one[1], reverse=True
        )
        return TokenLogprob(
            id=UNKNOWN_ID,
            token=clean(token),
            bytes=_bytes_of(token),
            logprob=float(number),
            top=tuple(
                TokenLogprob(id=UNKNOWN_ID, token=clean(text), bytes=_bytes_of(text), logprob=float(value))
                for text, value in ranked
            ),
        )

    def _of_prompt(self, value: Any) -> tuple[TokenLogprob | None, ...]:
        """vLLM's shape: an object per token of the prompt, by token id, the token's own first."""
        if not isinstance(value, list):
            self._bad("prompt_logprobs")
        return tuple(None if entry is None else self._by_id(entry) for entry in value)

    def _by_id(self, entry: Any) -> TokenLogprob:
        if not isinstance(entry, dict) or not entry:
            self._bad("prompt_logprobs")
        made: list[TokenLogprob] = []
        for token, fields in entry.items():
            if not (token.isascii() and token.isdigit() and len(token) <= 10 and isinstance(fields, dict)):
                self._bad("prompt_logprobs")
            text = self._text(fields, "decoded_token")
            number = self._number(fields, "logprob")
            made.append(TokenLogprob(id=int(token), token=text, bytes=_bytes_of(text), logprob=number))
        ranked = tuple(sorted(made, key=lambda one: one.logprob, reverse=True))
        own = made[0]
        return TokenLogprob(id=own.id, token=own.token, bytes=own.bytes, logprob=own.logprob, top=ranked)

    def _list(self, value: Mapping[str, Any], name: str) -> list[Any]:
        found = value.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            self._bad(name)
        return found

    def _text(self, value: Mapping[str, Any], name: str) -> str:
        found = value.get(name)
        if found is None:
            return ""
        if not isinstance(found, str):
            self._bad(name)
        return clean(found)

    def _count(self, value: Mapping[str, Any], name: str) -> int:
        found = value.get(name)
        if found is None:
            return 0
        if not _is_count(found):
            self._bad(name)
        return found

    def _number(self, value: Mapping[str, Any], name: str) -> float:
        found = value.get(name, 0)
        if isinstance(found, bool) or not isinstance(found, int | float):
            self._bad(name)
        return float(found)

    def _bad(self, name: str) -> NoReturn:
        raise RemoteFailed(f"{self._service} sent an answer whose {name} is not what OpenAI's wire has there")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def clean(text: Any) -> Any:
    """Text without halves of surrogate pairs, which JSON can spell and nothing can encode."""
    if isinstance(text, str) and not text.isascii():
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _bytes_of(text: str) -> bytes:
    """The bytes of a token; those that are no text come spelled out."""
    if text.startswith("bytes:"):
        return bytes(int(pair, 16) for pair in _SPELLED.findall(text))
    return clean(text).encode()
