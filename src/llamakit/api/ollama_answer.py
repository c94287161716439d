"""`AnswerEvent`s -> Ollama's lines, or one body; and its times, which are nanoseconds.

A call of a tool comes whole, in one line, because Ollama's clients read its arguments as an object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from llamakit.api.openai_answer import chat_logprobs, finish_reason, quote, to_json
from llamakit.api.wire import Wire
from llamakit.core.messages import (
    Answer,
    AnswerEvent,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)


class OllamaAnswerMessage(Wire):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[dict[str, Any]] | None = None


class OllamaAnswer(Wire):
    """What every answer carries at its end."""

    model: str
    created_at: str
    """RFC 3339."""
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | None = None
    total_duration: int | None = None
    """Nanoseconds, like all durations."""
    load_duration: int | None = None
    """Loading the model, and waiting for a turn."""
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaChat(OllamaAnswer):
    """An answer of `POST /api/chat`, or a line of it."""

    message: OllamaAnswerMessage


class OllamaGenerated(OllamaAnswer):
    """An answer of `POST /api/generate`, or a line of it."""

    response: str


class AnswerLines:
    """Events of one answer -> its lines; feed with `push`, in order."""

    def __init__(self, model: str, *, is_chat: bool) -> None:
        self._model = quote(model)
        self._is_chat = is_chat
        self._started = time.monotonic()
        self._call: ToolCallDelta | None = None
        """Head of the call whose arguments are being collected."""
        self._arguments: list[str] = []
        self._num_calls = 0
        self._reason = "stop"

    def push(self, event: AnswerEvent) -> Iterator[str]:
        """The lines that `event` makes, if any; raises `EngineStopped` for an end that is no answer."""
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    yield from self._calls()
                    yield self._line(quote(event.text), logprobs=event.logprobs)
            case ToolCallDelta():
                if event.name is not None:
                    yield from self._calls()
                    self._call = event
                self._arguments.append(event.arguments)
            case Finish():
                self._reason = finish_reason(event, called_tools=False)
                yield from self._calls()
            case Done():
                ending = ending_fields(self._reason, event.usage, event.timings, time.monotonic() - self._started)
                yield self._line('""', ending=ending)
            case PrefillProgress():
                pass

    def _calls(self) -> Iterator[str]:
        """The call that is complete now; one that the end of the answer cut off is none."""
        head, arguments = self._call, "".join(self._arguments)
        self._call, self._arguments = None, []
        if head is None:
            return
        call = ToolCall(id=head.id or "", name=head.name or "", arguments=arguments)
        for fields in call_fields([call], first=self._num_calls):
            self._num_calls += 1
            yield self._line('""', calls=[fields])

    def _line(
        self,
        text: str,
        *,
        calls: list[dict[str, Any]] | None = None,
        logprobs: tuple[TokenLogprob, ...] = (),
        ending: dict[str, Any] | None = None,
    ) -> str:
        if self._is_chat:
            more = f',"tool_calls":{to_json(calls)}' if calls else ""
            said = f'"message":{{"role":"assistant","content":{text}{more}}}'
        else:
            said = f'"response":{text}'
        line = f'{{"model":{self._model},"created_at":"{now()}",{said}'
        if logprobs:
            line += f',"logprobs":{to_json(chat_logprobs(logprobs))}'
        return f"{line},{to_json(ending)[1:]}" if ending is not None else f'{line},"done":false}}'


def to_body(model: str, answer: Answer, elapsed_s: float, *, is_chat: bool) -> dict[str, Any]:
    """The body of a whole answer; raises `EngineStopped` for an end that is no answer."""
    choice = answer.choices[0]
    body: dict[str, Any] = {"model": model, "created_at": now()}
    if is_chat:
        calls = list(call_fields(choice.message.tool_calls))
        message: dict[str, Any] = {"role": "assistant", "content": choice.message.text}
        body["message"] = message | ({"tool_calls": calls} if calls else {})
    else:
        body["response"] = choice.message.text
    if choice.logprobs:
        body["logprobs"] = chat_logprobs(choice.logprobs)
    reason = finish_reason(Finish(reason=choice.reason), called_tools=False)
    return body | ending_fields(reason, answer.usage, answer.timings, elapsed_s)


def loaded_body(model: str, *, is_chat: bool, is_unload: bool) -> dict[str, Any]:
    """The body of an answer to no question: the model was loaded, or let go."""
    said = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    reason = "unload" if is_unload else "load"
    return {"model": model, "created_at": now(), **said, "done": True, "done_reason": reason}


def call_fields(calls: Iterable[ToolCall], *, first: int = 0) -> Iterator[dict[str, Any]]:
    """The wire form of calls whose arguments are an object; a call that was cut off inside them is left out."""
    index = first
    for call in calls:
        try:
            arguments = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError):
            continue
        if isinstance(arguments, dict):
            function = {"index": index, "name": call.name, "arguments": arguments}
            yield {"id": call.id, "function": function}
            index += 1


def ending_fields(reason: str, usage: Usage, timings: Timings, elapsed_s: float) -> dict[str, Any]:
    """How an answer ended, what it took, and how long."""
    load_s = max(0.0, elapsed_s - timings.prefill_s - timings.decode_s)
    return {
        "done": True,
        "done_reason": "length" if reason == "length" else "stop",
        "total_duration": nanoseconds(elapsed_s),
        "load_duration": nanoseconds(load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(timings.prefill_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(timings.decode_s),
    }


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds."""
    return int(seconds * 1e9)


def now() -> str:
    """The time as RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
