"""Answers -> Llama Stack's bodies, and `AnswerEvent`s -> the pieces of its streams.

A chat's stream is events: `start`, `progress` with a text or a stretch of a tool call, and one `complete` with
the reason of the end and the counts. A call's text comes as it is written, and the whole call when it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from llamakit.api.inference import Embeddings
from llamakit.api.llama_stack_content import LlamaStackContent
from llamakit.api.llama_stack_messages import (
    LlamaStackCompletionMessage,
    LlamaStackStopReason,
    LlamaStackToolCall,
    arguments_of,
    from_message,
    from_tool_call,
)
from llamakit.api.openai_answer import CompletionLogprobWriter, finish_reason, to_json
from llamakit.api.wire import Wire
from llamakit.core.messages import (
    Answer,
    AnswerEvent,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_STOP_REASONS: dict[str, LlamaStackStopReason] = {
    "stop": "end_of_turn",
    "tool_calls": "end_of_message",
    "length": "out_of_tokens",
    "content_filter": "end_of_turn",
}


class LlamaStackTokenLogprobs(Wire):
    """One token of an answer: it and its alternatives with their probabilities."""

    logprobs_by_token: dict[str, float]


class LlamaStackMetric(Wire):
    """Something counted."""

    metric: str
    value: float
    unit: str | None = None


class LlamaStackChat(Wire):
    """A whole answer to a conversation."""

    completion_message: LlamaStackCompletionMessage
    logprobs: list[LlamaStackTokenLogprobs] | None = None
    metrics: list[LlamaStackMetric] | None = None


class LlamaStackChatBatch(Wire):
    """Answers to several conversations, in their order."""

    batch: list[LlamaStackChat]


class LlamaStackTextDelta(Wire):
    """More text."""

    type: Literal["text"]
    text: str


class LlamaStackToolCallDelta(Wire):
    """More of a tool call: its text, or the whole of it once it ended."""

    type: Literal["tool_call"]
    tool_call: str | LlamaStackToolCall
    parse_status: Literal["started", "in_progress", "failed", "succeeded"]


class LlamaStackChatEvent(Wire):
    """What a piece of a stream tells."""

    event_type: Literal["start", "progress", "complete"]
    delta: LlamaStackTextDelta | LlamaStackToolCallDelta
    logprobs: list[LlamaStackTokenLogprobs] | None = None
    stop_reason: LlamaStackStopReason | None = None


class LlamaStackChatChunk(Wire):
    """A piece of a streamed answer to a conversation."""

    event: LlamaStackChatEvent
    metrics: list[LlamaStackMetric] | None = None


class LlamaStackCompletion(Wire):
    """A whole continuation of a text."""

    content: LlamaStackContent
    stop_reason: LlamaStackStopReason
    logprobs: list[LlamaStackTokenLogprobs] | None = None
    metrics: list[LlamaStackMetric] | None = None


class LlamaStackCompletionBatch(Wire):
    """Continuations of several texts, in their order."""

    batch: list[LlamaStackCompletion]


class LlamaStackCompletionChunk(Wire):
    """A piece of a streamed continuation."""

    delta: str
    stop_reason: LlamaStackStopReason | None = None
    logprobs: list[LlamaStackTokenLogprobs] | None = None
    metrics: list[LlamaStackMetric] | None = None


class LlamaStackEmbeddings(Wire):
    """One vector per content, in order."""

    embeddings: list[list[float]]


def stop_reason(event: Finish, *, called_tools: bool) -> LlamaStackStopReason:
    """Llama Stack's word for how an answer ended; raises `EngineStopped` for an end that is no answer."""
    return _STOP_REASONS[finish_reason(event, called_tools=called_tools)]


def metrics_of(usage: Usage) -> list[dict[str, Any]]:
    """Token counts as metrics."""
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    return [{"metric": name, "value": value, "unit": "tokens"} for name, value in counts.items()]


def to_chat_body(answer: Answer, *, with_logprobs: bool) -> dict[str, Any]:
    """The body of a whole answer; raises `EngineStopped` for an end that is no answer."""
    choice = answer.choices[0]
    reason = stop_reason(Finish(reason=choice.reason), called_tools=bool(choice.message.tool_calls))
    return {
        "completion_message": from_message(choice.message, stop_reason=reason),
        "logprobs": _logprobs(choice.logprobs) if with_logprobs else None,
        "metrics": metrics_of(answer.usage),
    }


def to_completion_body(answer: Answer, *, with_logprobs: bool) -> dict[str, Any]:
    """The body of a whole continuation; raises `EngineStopped` for an end that is none."""
    choice = answer.choices[0]
    return {
        "content": choice.message.text,
        "stop_reason": stop_reason(Finish(reason=choice.reason), called_tools=False),
        "logprobs": _logprobs(choice.logprobs) if with_logprobs else None,
        "metrics": metrics_of(answer.usage),
    }


def to_embeddings_body(made: Embeddings) -> dict[str, Any]:
    """The body of vectors."""
    return {"embeddings": [vector.tolist() for vector in made.vectors]}


class AnswerDeltas:
    """Events of one answer -> what they add to it, with the logprobs of each piece; feed with `push`, in order.

    A call's text comes as it is written, and the whole call when it ended.
    """

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._is_calling = False

    @property
    def called_tools(self) -> bool:
        """Whether a call has begun."""
        return bool(self._calls)

    def push(self, event: AnswerEvent) -> Iterator[tuple[dict[str, Any], Sequence[TokenLogprob]]]:
        """The deltas that the event makes, if any."""
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    yield from self._end_call()
                    yield _text(event.text), event.logprobs
            case ToolCallDelta():
                yield from self._call(event)
            case Finish():
                yield from self._end_call()

    def _call(self, event: ToolCallDelta) -> Iterator[tuple[dict[str, Any], Sequence[TokenLogprob]]]:
        if event.id is not None and event.name is not None:
            yield from self._end_call()
            self._calls.append(ToolCall(id=event.id, name=event.name, arguments=""))
            self._is_calling = True
            yield _tool_call("", "started"), ()
        last = self._calls[-1]
        self._calls[-1] = ToolCall(id=last.id, name=last.name, arguments=last.arguments + event.arguments)
        if event.arguments or event.logprobs:
            yield _tool_call(event.arguments, "in_progress"), event.logprobs

    def _end_call(self) -> Iterator[tuple[dict[str, Any], Sequence[TokenLogprob]]]:
        if not self._is_calling:
            return
        self._is_calling = False
        call = self._calls[-1]
        if arguments_of(call.arguments) is None:
            yield _tool_call(call.arguments, "failed"), ()
        else:
            yield _tool_call(from_tool_call(call), "succeeded"), ()


class ChatEvents:
    """Events of one answer -> JSON texts of the pieces of its stream; feed with `push`, in order."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._with_logprobs = with_logprobs
        self._has_started = False
        self._deltas = AnswerDeltas()
        self._end: Finish | None = None

    def push(self, event: AnswerEvent) -> Iterator[str]:
        """The pieces that `event` makes, if any; raises `EngineStopped` for an end that is no answer."""
        if not self._has_started and not isinstance(event, PrefillProgress):
            self._has_started = True
            yield _piece("start", _text(""))
        for delta, logprobs in self._deltas.push(event):
            yield _piece("progress", delta, _logprobs(logprobs) if self._with_logprobs and logprobs else None)
        if isinstance(event, Finish):
            self._end = event
        elif isinstance(event, Done):
            end = self._end or Finish(reason="cancelled")
            reason = stop_reason(end, called_tools=self._deltas.called_tools)
            yield _piece("complete", _text(""), stop=reason, metrics=metrics_of(event.usage))


class CompletionPieces:
    """Events of one continuation -> JSON texts of the pieces of its stream; feed with `push`, in order."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._with_logprobs = with_logprobs
        self._end: Finish | None = None

    def push(self, event: AnswerEvent) -> Iterator[str]:
        """The pieces that `event` makes, if any; raises `EngineStopped` for an end that is no answer."""
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    logprobs = _logprobs(event.logprobs) if self._with_logprobs else None
                    yield to_json({"delta": event.text, "stop_reason": None, "logprobs": logprobs, "metrics": None})
            case Finish():
                self._end = event
            case Done():
                reason = stop_reason(self._end or Finish(reason="cancelled"), called_tools=False)
                metrics = metrics_of(event.usage)
                yield to_json({"delta": "", "stop_reason": reason, "logprobs": None, "metrics": metrics})
            case PrefillProgress():
                pass
            case ToolCallDelta():
                raise TypeError(f"a completion has no tools, yet got {event!r}")


def _piece(
    kind: str,
    delta: dict[str, Any],
    logprobs: list[dict[str, Any]] | None = None,
    *,
    stop: str | None = None,
    metrics: list[dict[str, Any]] | None = None,
) -> str:
    event = {"event_type": kind, "delta": delta, "logprobs": logprobs, "stop_reason": stop}
    return to_json({"event": event, "metrics": metrics})


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _tool_call(call: str | dict[str, Any], status: str) -> dict[str, Any]:
    return {"type": "tool_call", "tool_call": call, "parse_status": status}


def _logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [{"logprobs_by_token": top} for top in CompletionLogprobWriter().write(tokens)["top_logprobs"]]
