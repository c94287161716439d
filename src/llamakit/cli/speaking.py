"""An answer as it comes, shown piece by piece, and what is known of it afterwards."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from llamakit.cli.terminal import is_terminal, say
from llamakit.core.messages import Answer, AnswerEvent, AnswerFold, PrefillProgress, TextDelta, ToolCallDelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """A shown answer."""

    answer: Answer
    ttft_s: float
    """From asking to the first piece."""
    total_s: float
    was_interrupted: bool

    @property
    def text(self) -> str:
        """Its text."""
        return self.answer.text


def speak(events: Iterator[AnswerEvent], show: Callable[[str], None]) -> Spoken:
    """Hand every piece of text to `show` as it arrives. Ctrl-C stops the answer and keeps what was said."""
    folded = AnswerFold()
    start = time.perf_counter()
    first = 0.0
    was_interrupted = False
    separator = ""
    try:
        for event in events:
            if not first and not isinstance(event, PrefillProgress):
                first = time.perf_counter()
            folded.add(event)
            if isinstance(event, TextDelta) and event.text:
                show(event.text)
                separator = "\n"
            elif isinstance(event, ToolCallDelta):
                show((f"{separator}{event.name} " if event.name else "") + event.arguments)
                separator = "\n"
    except KeyboardInterrupt:
        was_interrupted = True
    finally:
        # Closing is what tells the engine to stop; a generator dropped alone would run on until it is collected.
        if isinstance(events, Generator):
            events.close()
    end = time.perf_counter()
    return Spoken(
        answer=folded.answer(), ttft_s=(first or end) - start, total_s=end - start, was_interrupted=was_interrupted
    )


def shower(stream: TextIO) -> Callable[[str], None]:
    """Writes pieces to a stream at once; on a terminal, without what would control it."""
    on_terminal = is_terminal(stream)

    def show(text: str) -> None:
        stream.write(_harmless(text) if on_terminal else text)
        stream.flush()

    return show


def _harmless(text: str) -> str:
    """Text without control characters; joiners and other invisible characters of scripts stay."""
    return "".join("�" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text)


def say_speed(spoken: Spoken) -> None:
    """Tokens and seconds, beside the answer."""
    usage, timings = spoken.answer.usage, spoken.answer.timings
    fresh = usage.prompt_tokens - usage.cached_tokens
    prompt = f"{usage.prompt_tokens} prompt tokens"
    if usage.cached_tokens:
        prompt += f" ({usage.cached_tokens} cached)"
    if timings.prefill_s > 0 and fresh > 0:
        prompt += f" in {timings.prefill_s:.2f} s, {fresh / timings.prefill_s:,.1f} tokens/s"
    answer = f"{usage.completion_tokens} tokens"
    if timings.decode_s > 0 and usage.completion_tokens > 1:
        answer += f" in {timings.decode_s:.2f} s, {(usage.completion_tokens - 1) / timings.decode_s:,.1f} tokens/s"
    drafted = f", {usage.accepted_tokens} of {usage.drafted_tokens} proposed ones kept" if usage.drafted_tokens else ""
    say(f"{prompt}; first token after {spoken.ttft_s:.3f} s; {answer}{drafted}", "faint")


def as_json(model: str, spoken: Spoken) -> dict[str, Any]:
    """The whole answer for programs."""
    choice = spoken.answer.choices[0]
    usage, timings = spoken.answer.usage, spoken.answer.timings
    return {
        "model": model,
        "text": choice.message.text,
        "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in choice.message.tool_calls],
        "finish_reason": "cancelled" if spoken.was_interrupted else choice.reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "timings": {
            "first_token_s": spoken.ttft_s,
            "prefill_s": timings.prefill_s,
            "decode_s": timings.decode_s,
            "total_s": spoken.total_s,
        },
    }


def stdout_shower() -> Callable[[str], None]:
    """`shower` of standard output."""
    return shower(sys.stdout)
