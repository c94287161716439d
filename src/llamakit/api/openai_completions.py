"""OpenAI's older completions: wire request -> `CompletionRequest`s, and events -> chunks or one body.

One wire request may hold many prompts; each becomes a request of its own, and its choices take their place
in the one answer. Evaluation harnesses live on `echo` with `logprobs`: the prompt's own tokens come first,
the very first with no probability.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from llamakit.api.inference import CompletionRequest
from llamakit.api.limits import LIMITS
from llamakit.api.openai_answer import (
    AnswerHead,
    CompletionLogprobs,
    CompletionLogprobWriter,
    CompletionUsage,
    PromptProgress,
    WireTimings,
    finish_reason,
    join_logprobs,
    progress_fields,
    prompt_logprob_fields,
    quote,
    stop_field,
    timing_fields,
    to_json,
    usage_fields,
)
from llamakit.api.openai_sampling import NumLogprobs, SamplingFields, check_stream_options, to_context, to_sampling
from llamakit.api.texts_or_ids import TextsOrIds, to_items
from llamakit.api.wire import Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import (
    Answer,
    AnswerEvent,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

DEFAULT_MAX_TOKENS = 16
"""The published default of this route."""


class WireCompletionRequest(SamplingFields):
    """Body of `POST /v1/completions`."""

    prompt: TextsOrIds | None
    """Text, token ids, or several of either, each answered by itself."""
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    """Answers to generate; the `n` likeliest are returned."""
    echo: bool | None = None
    """Begin each answer with its prompt."""
    logprobs: NumLogprobs | None = None
    suffix: str | None = None
    """Text after the gap that the model fills in."""
    add_special_tokens: bool | None = None
    """Begin a text prompt with the model's beginning-of-text token; true by default (extension)."""


class WireCompletionChoice(Wire):
    """One alternative of an answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None
    stop_reason: str | int | None = None
    """The stop string or token id that ended it, if one did (extension, with the name that vLLM gave it)."""
    prompt_logprobs: list[dict[str, Any] | None] | None = None


class WireCompletion(Wire):
    """A whole answer, or a piece of a streamed one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[WireCompletionChoice]
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None
    timings: WireTimings | None = None
    prompt_progress: PromptProgress | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Echo:
    """What an echoed prompt adds to its answers."""

    text: str
    """The prompt, special tokens by name where it came as ids."""
    first_token: str = ""
    """Text of its first token, which has no logprob of its own and so is told apart."""
    names_specials: bool = False
    """Whether `text` spells special tokens by name."""


def to_requests(wire: WireCompletionRequest, *, request_id: str, salt: str = "") -> tuple[CompletionRequest, ...]:
    """One request per prompt; raises `InvalidRequest` naming the field."""
    check_stream_options(wire)
    prompts = to_items("" if wire.prompt is None else wire.prompt, "prompt")
    n = wire.n or 1
    if len(prompts) * n > LIMITS.prompts:
        raise InvalidRequest(
            f"{len(prompts)} prompts with n {n} make more than {LIMITS.prompts} choices", param="prompt"
        )
    _check_echo_and_suffix(wire, prompts)
    if wire.best_of is not None and wire.best_of < n:
        raise InvalidRequest(f"best_of must be at least n, which is {n}, got {wire.best_of}", param="best_of")
    if wire.stream and (wire.best_of or n) > n:
        raise InvalidRequest("best_of above n knows its answers only at the end; set stream to false", param="best_of")
    echoed = wire.logprobs if wire.echo else None
    sampling = to_sampling(
        wire,
        max_tokens=DEFAULT_MAX_TOKENS if wire.max_tokens is None else wire.max_tokens,
        logprobs=wire.logprobs,
        prompt_logprobs=max((wanted for wanted in (echoed, wire.prompt_logprobs) if wanted is not None), default=None),
        best_of=wire.best_of,
    )
    context = to_context(wire, request_id=request_id, salt=salt)
    return tuple(
        CompletionRequest(
            model=wire.model,
            prompt=prompt,
            context=dataclasses.replace(context, id=f"{request_id}-{index}") if len(prompts) > 1 else context,
            sampling=sampling,
            suffix=wire.suffix or None,
            add_special_tokens=wire.add_special_tokens is not False,
        )
        for index, prompt in enumerate(prompts)
    )


def _check_echo_and_suffix(wire: WireCompletionRequest, prompts: Sequence[str | tuple[int, ...]]) -> None:
    if not wire.suffix:
        return
    if wire.echo:
        raise InvalidRequest("echo and suffix exclude each other: the answer stands between the two", param="echo")
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise InvalidRequest("suffix needs a prompt of text, not of token ids", param="suffix")


class CompletionChunks:
    """Events of the answers to all prompts -> JSON texts of chunks; feed with `push`."""

    def __init__(self, wire: WireCompletionRequest, head: AnswerHead, echoes: Sequence[Echo | None]) -> None:
        self._base = to_json(head.fields("text_completion"))[:-1]
        self._begin = self._base + ',"choices":[{"index":'
        self._with_usage = bool(wire.stream_options and wire.stream_options.include_usage)
        self._end = ',"usage":null}' if self._with_usage else "}"
        self._n = wire.n or 1
        self._with_logprobs = wire.logprobs is not None
        self._echoes = echoes
        # The prompt's logprobs come with the last event, and the prompt comes first: an answer that shows
        # them is kept back whole.
        self._kept: dict[int, list[AnswerEvent]] = {}
        self._keeps = bool(wire.echo) and self._with_logprobs
        self._writers: dict[int, CompletionLogprobWriter] = {}
        self._held = ""
        self._ended: list[Done] = []
        self._started = time.monotonic()

    def push(self, prompt: int, event: AnswerEvent) -> Iterator[str]:
        """The chunks that `event` of prompt `prompt` makes, if any; raises `EngineStopped` as chats do."""
        if not self._keeps or isinstance(event, PrefillProgress):
            yield from self._write(prompt, event, None)
        elif isinstance(event, Done):
            for earlier in self._kept.pop(prompt, ()):
                yield from self._write(prompt, earlier, event.prompt_logprobs)
            yield from self._write(prompt, event, event.prompt_logprobs)
        else:
            self._kept.setdefault(prompt, []).append(event)

    def _write(self, prompt: int, event: AnswerEvent, logprobs: Sequence[TokenLogprob | None] | None) -> Iterator[str]:
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    index = prompt * self._n + event.choice
                    yield from self._before(index, prompt, logprobs)
                    shown = to_json(self._writers[index].write(event.logprobs)) if self._with_logprobs else "null"
                    yield self._chunk(index, quote(event.text), shown)
            case Finish():
                index = prompt * self._n + event.choice
                yield from self._before(index, prompt, logprobs)
                reason = finish_reason(event, called_tools=False)
                self._held = self._chunk(index, '""', "null", f'"{reason}"{stop_field(event.stop)}')
            case PrefillProgress():
                fields = to_json(progress_fields(event, time.monotonic() - self._started))
                chunk = self._chunk(prompt * self._n, '""', "null")
                yield f'{chunk[:-1]},"prompt_progress":{fields}}}'
            case Done():
                self._ended.append(event)
                if len(self._ended) == len(self._echoes):
                    yield from self._finish()
            case ToolCallDelta():
                raise TypeError(f"a completion has no tools, yet got {event!r}")

    def _before(self, index: int, prompt: int, logprobs: Sequence[TokenLogprob | None] | None) -> Iterator[str]:
        """A chunk that was held, and the prompt where it is echoed."""
        if self._held:
            yield self._held
            self._held = ""
        if index in self._writers:
            return
        echo = self._echoes[prompt]
        self._writers[index] = CompletionLogprobWriter(len(echo.text) if echo else 0)
        if echo is not None:
            shown = to_json(_echo_logprobs(echo, logprobs)) if self._keeps else "null"
            yield self._chunk(index, quote(echo.text), shown)

    def _finish(self) -> Iterator[str]:
        usage, timings = _sums(self._ended)
        clock = to_json(timing_fields(usage, timings))
        if self._held:
            yield self._held if self._with_usage else f'{self._held[:-1]},"timings":{clock}}}'
            self._held = ""
        if self._with_usage:
            yield f'{self._base},"choices":[],"usage":{to_json(usage_fields(usage))},"timings":{clock}}}'

    def _chunk(self, index: int, text: str, logprobs: str, reason: str = "null") -> str:
        return f'{self._begin}{index},"text":{text},"logprobs":{logprobs},"finish_reason":{reason}}}]{self._end}'


def to_body(
    wire: WireCompletionRequest, head: AnswerHead, answers: Sequence[Answer], echoes: Sequence[Echo | None]
) -> dict[str, Any]:
    """The body of whole answers, one per prompt; raises `EngineStopped` for an end that is no answer."""
    n = wire.n or 1
    body = head.fields("text_completion")
    body["choices"] = [
        _choice(wire, prompt * n + index, answer, index, echo)
        for prompt, (answer, echo) in enumerate(zip(answers, echoes, strict=True))
        for index in range(len(answer.choices))
    ]
    usage, timings = _sums(answers)
    body["usage"] = usage_fields(usage)
    body["timings"] = timing_fields(usage, timings)
    return body


def _choice(wire: WireCompletionRequest, index: int, answer: Answer, own: int, echo: Echo | None) -> dict[str, Any]:
    choice = answer.choices[own]
    made: dict[str, Any] = {
        "index": index,
        "text": (echo.text if echo else "") + choice.message.text,
        "logprobs": None,
        "finish_reason": finish_reason(Finish(reason=choice.reason), called_tools=False),
    }
    if choice.stop is not None:
        made["stop_reason"] = choice.stop
    if wire.logprobs is not None:
        writer = CompletionLogprobWriter(len(echo.text) if echo else 0)
        made["logprobs"] = writer.write(choice.logprobs)
        if echo is not None:
            made["logprobs"] = join_logprobs(_echo_logprobs(echo, answer.prompt_logprobs), made["logprobs"])
    if wire.prompt_logprobs is not None and answer.prompt_logprobs is not None:
        made["prompt_logprobs"] = prompt_logprob_fields(answer.prompt_logprobs)
    return made


def _echo_logprobs(echo: Echo, logprobs: Sequence[TokenLogprob | None] | None) -> dict[str, Any]:
    """The prompt's tokens; what the later ones leave of the text is the first one's, which nothing precedes."""
    later = [token for token in logprobs or () if token is not None]
    first = {"tokens": [echo.first_token], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [0]}
    covered = CompletionLogprobWriter()
    covered.write(later, names_specials=echo.names_specials)
    writer = CompletionLogprobWriter(max(0, len(echo.text) - covered.offset))
    return join_logprobs(first, writer.write(later, names_specials=echo.names_specials))


def _sums(answers: Sequence[Done | Answer]) -> tuple[Usage, Timings]:
    """Counts and seconds over all prompts; the seconds are work, and work of several prompts overlaps in time."""
    if len(answers) == 1:
        return answers[0].usage, answers[0].timings
    return _sum([answer.usage for answer in answers]), _sum([answer.timings for answer in answers])


Record = TypeVar("Record", Usage, Timings)


def _sum(records: Sequence[Record]) -> Record:
    names = [field.name for field in dataclasses.fields(records[0])]
    return type(records[0])(**{name: sum(getattr(record, name) for record in records) for name in names})
