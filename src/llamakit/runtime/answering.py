"""One request on its way back: engine events in, answer events out.

Ids become text, stop strings are found, tool calls are parsed, logprobs travel with the text they
belong to. A plain state machine on the engine's thread; what it produces goes to `deliver`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llamakit.core.messages import (
    AnswerEvent,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from llamakit.core.sampling import SamplingParams
from llamakit.engine.request import (
    EndEvent,
    EngineEvent,
    ErrorEvent,
    PrefillEvent,
    PromptEvent,
    Request,
    RequestEnd,
    TokenEvent,
)
from llamakit.text.detokenizer import Detokenizer
from llamakit.text.formats.format import AnswerPart, OutputParser
from llamakit.text.stop_strings import StopMatcher
from llamakit.text.tokenizer import Tokenizer

RawLogprob = tuple[int, float, Sequence[tuple[int, float]]]


class Answering:
    """The job of one request; satisfies `loop.Job`."""

    def __init__(
        self,
        request: Request,
        *,
        tokenizer: Tokenizer,
        parser: Callable[[], OutputParser],
        deliver: Callable[[list[AnswerEvent]], None],
        fail: Callable[[BaseException], None],
        continues: bool = False,
        wants_progress: bool = False,
        echo: str | None = None,
    ) -> None:
        self.request = request
        self._tokenizer = tokenizer
        self._deliver = deliver
        self._fail = fail
        self._parser = parser
        self._continues = continues
        self._wants_progress = wants_progress
        self._echo = echo
        self._voices: dict[int, _Voice] = {}
        self._prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None

    def on_events(self, events: list[EngineEvent]) -> None:
        """Translate one step's events."""
        out: list[AnswerEvent] = []
        for event in events:
            match event:
                case TokenEvent():
                    self._voice(event.choice, out).token(event, out)
                case EndEvent():
                    self._voice(event.choice, out).end(event, out)
                case PrefillEvent():
                    if self._wants_progress:
                        out.append(PrefillProgress(done=event.done, total=event.total, cached=event.cached))
                case PromptEvent():
                    self._prompt_logprobs = tuple(
                        None if entry is None else token_logprob(self._tokenizer, entry) for entry in event.logprobs
                    )
                case RequestEnd():
                    out.append(Done(usage=event.usage, timings=event.timings, prompt_logprobs=self._prompt_logprobs))
                case ErrorEvent():
                    self._fail(event.error)
        if out:
            self._deliver(out)

    def on_error(self, error: BaseException) -> None:
        """The request failed."""
        self._fail(error)

    def _voice(self, choice: int, out: list[AnswerEvent]) -> _Voice:
        voice = self._voices.get(choice)
        if voice is None:
            sampling = self.request.sampling
            voice = self._voices[choice] = _Voice(
                choice,
                self._tokenizer,
                Detokenizer(self._tokenizer, continues=self._continues),
                StopMatcher(sampling.stop) if sampling.stop else None,
                self._parser(),
                min_tokens=sampling.min_tokens,
                include_stop=sampling.include_stop,
            )
            if self._echo is not None:
                own = self._prompt_logprobs or ()
                out.append(TextDelta(text=self._echo, choice=choice, logprobs=tuple(entry for entry in own if entry)))
        return voice


class Stopper:
    """Watches the text of one choice for stop strings inside the engine, so that no token is computed past one."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingParams, *, continues: bool) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, continues=continues)
        self._matcher = StopMatcher(sampling.stop)
        self._min_tokens = sampling.min_tokens
        self._num_tokens = 0

    def __call__(self, token: int) -> str | None:
        """The stop string that `token` completes, if one."""
        self._num_tokens += 1
        text = "" if self._tokenizer.is_special(token) else self._detokenizer.push(token)
        return self._matcher.push(text)[1] if self._num_tokens > self._min_tokens else None


class _Voice:
    """The text of one choice."""

    def __init__(
        self,
        choice: int,
        tokenizer: Tokenizer,
        detokenizer: Detokenizer,
        stops: StopMatcher | None,
        parser: OutputParser,
        *,
        min_tokens: int,
        include_stop: bool,
    ) -> None:
        self._choice = choice
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._stops = stops
        self._parser = parser
        self._min_tokens = min_tokens
        self._include_stop = include_stop
        self._num_tokens = 0
        self._logprobs: list[TokenLogprob] = []
        self._stop: str | None = None

    def token(self, event: TokenEvent, out: list[AnswerEvent]) -> None:
        """Take a token."""
        self._num_tokens += 1
        if event.logprob is not None:
            self._logprobs.append(token_logprob(self._tokenizer, (event.token, event.logprob, event.top)))
        if self._tokenizer.is_special(event.token):
            self._parts(self._parser.push(event.token), out)
            return
        text = self._detokenizer.push(event.token)
        if text and self._stops is not None and self._num_tokens > self._min_tokens:
            text, self._stop = self._stops.push(text)
            if self._stop is not None and self._include_stop:
                text += self._stop
        if text:
            self._parts(self._parser.push(text), out)

    def end(self, event: EndEvent, out: list[AnswerEvent]) -> None:
        """The engine ended the choice: give out what was held back."""
        if self._stop is None:
            rest = self._detokenizer.flush()
            if self._stops is not None:
                rest, self._stop = self._stops.push(rest)
                if self._stop is None:
                    rest += self._stops.flush()
                elif self._include_stop:
                    rest += self._stop
            if rest:
                self._parts(self._parser.push(rest), out)
        self._parts(self._parser.finish(), out)
        if event.score is not None:
            self._logprobs.append(token_logprob(self._tokenizer, event.score))
        if self._logprobs:
            self._parts([TextDelta(text="")], out)
        reason = event.reason
        if self._stop is not None:
            reason = "stop"
        if reason == "stop" and self._parser.made_calls:
            reason = "tool_calls"
        stop = self._stop if self._stop is not None else event.stop
        out.append(Finish(reason=reason, choice=self._choice, stop=stop))

    def _parts(self, parts: Sequence[AnswerPart], out: list[AnswerEvent]) -> None:
        for part in parts:
            logprobs, self._logprobs = tuple(self._logprobs), []
            if isinstance(part, ToolCallDelta):
                out.append(
                    ToolCallDelta(
                        index=part.index,
                        arguments=part.arguments,
                        id=part.id,
                        name=part.name,
                        choice=self._choice,
                        logprobs=logprobs,
                    )
                )
            else:
                out.append(TextDelta(text=part.text, choice=self._choice, logprobs=logprobs))


def token_logprob(tokenizer: Tokenizer, entry: RawLogprob) -> TokenLogprob:
    """The engine's numbers with the tokens' text; control tokens appear under their names."""
    token, logprob, top = entry
    return _named(tokenizer, token, logprob, tuple(_named(tokenizer, other, value, ()) for other, value in top))


def _named(tokenizer: Tokenizer, token: int, logprob: float, top: tuple[TokenLogprob, ...]) -> TokenLogprob:
    data = tokenizer.token_bytes(token)
    text = data.decode("utf-8", errors="replace") if data else token_name(tokenizer, token)
    return TokenLogprob(id=token, token=text, bytes=data or text.encode(), logprob=logprob, top=top)


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """How a control token is written, or an empty text for ids without one."""
    for name, own in tokenizer.special.items():
        if own == token:
            return name
    return ""
