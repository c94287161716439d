"""What a token does to its choice, and an end to its request: events, usage, the best of several.

The only place that makes events about choices. Decides when a choice ends; what is computed next is the
scheduler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llamakit.core.errors import EngineStopped, LlamakitError
from llamakit.core.messages import FinishReason, Timings, Usage
from llamakit.engine.request import (
    EndEvent,
    EngineEvent,
    ErrorEvent,
    PrefillEvent,
    PromptEvent,
    RequestEnd,
    TokenEvent,
    TokenScore,
)
from llamakit.engine.scheduler import Scheduler
from llamakit.engine.sequence import RequestState, Sequence


class Outcomes:
    """The live requests and the events that have not been taken yet."""

    def __init__(self, scheduler: Scheduler, clock: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._events: list[EngineEvent] = []
        self.states: dict[str, RequestState] = {}
        """Requests that have not ended, by id."""
        self.num_tokens = 0
        """Tokens generated so far, of all requests."""

    def take(self) -> list[EngineEvent]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def progress(self, sequence: Sequence) -> None:
        """Report that part of the prompt is computed."""
        state = sequence.state
        self._events.append(
            PrefillEvent(
                request_id=state.request.id,
                done=sequence.num_computed,
                total=sequence.num_prompt,
                cached=state.cached_tokens,
            )
        )

    def prompt_done(self, state: RequestState) -> None:
        """Note the time, and hand out the prompt's scores if they were asked for."""
        state.first_token_at = self._clock()
        if state.scores is not None:
            self._events.append(PromptEvent(request_id=state.request.id, logprobs=tuple(state.scores)))

    def append(self, sequence: Sequence, token: int, score: TokenScore | None) -> bool:
        """Add one token with all that follows from it; True if the choice ended."""
        state = sequence.state
        request = state.request
        sequence.tokens.append(token)
        state.completion_tokens += 1
        self.num_tokens += 1
        if score is not None:
            sequence.sum_logprob += score[1]
        if sequence.history is not None:
            sequence.history.add(token)
        if sequence.matcher is not None:
            sequence.matcher.advance(token)
        is_stop = token in state.stop_ids
        is_shown = not is_stop or (request.sampling.include_stop and token in request.sampling.stop_ids)
        if is_shown:
            self._emit_token(sequence, token, score)
        if is_stop:
            hidden = score if request.sampling.logprobs is not None and not is_shown else None
            self.end(sequence, "stop", token, hidden)
            return True
        if sequence.stopper is not None:
            stop = sequence.stopper(token)
            if stop is not None and sequence.num_generated > request.sampling.min_tokens:
                self.end(sequence, "stop", stop)
                return True
        if sequence.matcher is not None and sequence.matcher.is_complete:
            self.end(sequence, "stop")
            return True
        if len(sequence.tokens) >= state.max_total:
            self.end(sequence, "length")
            return True
        return False

    def end(
        self,
        sequence: Sequence,
        reason: FinishReason,
        stop: str | int | None = None,
        score: TokenScore | None = None,
    ) -> None:
        """End one choice, and the request with its last one; its blocks return."""
        state = sequence.state
        sequence.finished = True
        self._scheduler.remove(sequence)
        state.num_live -= 1
        ended = EndEvent(request_id=state.request.id, choice=sequence.choice, reason=reason, stop=stop, score=score)
        self._emit(state, ended)
        if state.num_live == 0:
            self._close(state)

    def cancel(self, state: RequestState) -> None:
        """End everything of a request at once."""
        state.buffered.clear()
        state.is_buffered = False
        for choice in range(len(state.sequences), state.num_choices):
            state.num_live -= 1
            self._events.append(EndEvent(request_id=state.request.id, choice=choice, reason="cancelled"))
        for sequence in state.sequences:
            if not sequence.finished:
                self.end(sequence, "cancelled")

    def fail(self, state: RequestState, error: Exception) -> None:
        """End a request by an error, alone. A failed assertion is a bug of ours and stops the engine."""
        if isinstance(error, AssertionError):
            raise error
        if state.is_over:
            return
        if not isinstance(error, LlamakitError):
            wrapped = EngineStopped(f"the request's own matcher or stop watcher failed: {error!r}")
            wrapped.__cause__ = error
            error = wrapped
        for sequence in state.sequences:
            if not sequence.finished:
                sequence.finished = True
                self._scheduler.remove(sequence)
        state.is_over = True
        del self.states[state.request.id]
        self._events.append(ErrorEvent(request_id=state.request.id, error=error))

    def _emit_token(self, sequence: Sequence, token: int, score: TokenScore | None) -> None:
        state = sequence.state
        request_id, choice = state.request.id, sequence.choice
        if score is None or state.request.sampling.logprobs is None:
            self._emit(state, TokenEvent(request_id=request_id, choice=choice, token=token))
        else:
            _, logprob, top = score
            self._emit(state, TokenEvent(request_id=request_id, choice=choice, token=token, logprob=logprob, top=top))

    def _emit(self, state: RequestState, event: TokenEvent | EndEvent) -> None:
        if state.is_buffered:
            state.buffered.setdefault(event.choice, []).append(event)
        else:
            self._events.append(event)

    def _close(self, state: RequestState) -> None:
        state.is_over = True
        del self.states[state.request.id]
        if state.is_buffered:
            self._release_best(state)
        now = self._clock()
        first_step = state.first_step_at if state.first_step_at is not None else now
        first_token = state.first_token_at if state.first_token_at is not None else now
        usage = Usage(
            prompt_tokens=len(state.request.prompt_ids),
            cached_tokens=state.cached_tokens,
            completion_tokens=state.completion_tokens,
            drafted_tokens=state.drafted_tokens,
            accepted_tokens=state.accepted_tokens,
        )
        timings = Timings(
            queue_s=first_step - state.submitted_at, prefill_s=first_token - first_step, decode_s=now - first_token
        )
        self._events.append(RequestEnd(request_id=state.request.id, usage=usage, timings=timings))

    def _release_best(self, state: RequestState) -> None:
        """Give out the n choices with the highest mean logprob, best first, numbered anew; the rest never existed."""

        def mean(sequence: Sequence) -> float:
            return sequence.sum_logprob / max(sequence.num_generated, 1)

        ranked = sorted(state.sequences, key=lambda sequence: (-mean(sequence), sequence.choice))
        for place, sequence in enumerate(ranked[: state.request.sampling.n]):
            for event in state.buffered.get(sequence.choice, ()):
                self._events.append(replace(event, choice=place))
