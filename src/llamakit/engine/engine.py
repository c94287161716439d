"""The engine: requests in, token events out, one step at a time.

`step` is synchronous and touches nothing but memory: no thread, no file, no clock but the one it was given.
Whoever owns the engine calls it from one thread. The same request yields the same tokens alone or in any
batch, cached or computed, whole or in chunks, preempted or not, speculated or not; `runner` makes a token's
states independent of all that, and everything here works on one sequence's own numbers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor

from llamakit.core.errors import ConfigError, InvalidRequest, Overloaded
from llamakit.engine.admission import open_request
from llamakit.engine.batch import Piece
from llamakit.engine.blocks import BlockPool
from llamakit.engine.cache import KvCache, count_blocks, kv_dtype, resolve_context
from llamakit.engine.config import EngineConfig
from llamakit.engine.draft import DraftProposer
from llamakit.engine.outcomes import Outcomes
from llamakit.engine.penalties import History, has_penalties
from llamakit.engine.request import EngineEvent, Request, TokenScore
from llamakit.engine.runner import Runner
from llamakit.engine.sampler import NO_TOKEN, Row, most_likely, sample, score_rows
from llamakit.engine.scheduler import Scheduler, Slice
from llamakit.engine.sequence import RequestState, Sequence
from llamakit.engine.speculative import NgramProposer, Speculation
from llamakit.engine.stats import EngineStats
from llamakit.kernels import native
from llamakit.models.llama import Llama

_SCORED_ROWS = 32
"""Prompt tokens scored at once: their logits take this many vocabularies of memory."""

Due = list[tuple[Sequence, list[int], int]]
"""Sequences whose next token can be chosen, with their proposals and the row of their last token."""


class Engine:
    """Runs requests over one model; `draft` proposes tokens for it and must share its vocabulary."""

    def __init__(
        self,
        model: Llama,
        config: EngineConfig | None = None,
        draft: Llama | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        new_seed: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self._config = config = config or EngineConfig()
        self._clock = clock
        self._new_seed = new_seed
        self._vocab_size = model.config.vocab_size
        if draft is not None and draft.config.vocab_size != self._vocab_size:
            raise ConfigError(
                f"the draft model has {draft.config.vocab_size} tokens, the model {self._vocab_size}; "
                "a draft model must share the vocabulary"
            )
        models = [model] if draft is None else [model, draft]
        num_blocks = count_blocks(config, models)
        self.max_context = resolve_context(config, model, num_blocks)
        """Most tokens of a sequence, prompt and answer."""
        self._pool = BlockPool(num_blocks)
        self._runners = [Runner(each, self._make_cache(each, num_blocks)) for each in models]
        self._runner = self._runners[0]
        self._speculation = self._make_speculation(model, draft)
        self._scheduler = Scheduler(config, self._pool, self._speculation.room)
        self._outcomes = Outcomes(self._scheduler, clock)
        on_kernels = model.device.type == "cpu" and native.takes(model.model.norm.weight)
        self._computing = native.kernels_only if on_kernels else nullcontext
        self._arrivals = 0
        self._steps = 0
        self._prompt_tokens = 0

    def _make_cache(self, model: Llama, num_blocks: int) -> KvCache:
        dtype = kv_dtype(self._config.kv, model.dtype)
        return KvCache(model.config, num_blocks, self._config.block_tokens, dtype=dtype, device=model.device)

    def _make_speculation(self, model: Llama, draft: Llama | None) -> Speculation:
        settings = self._config.speculation
        if draft is None:
            return Speculation(settings, NgramProposer(settings))
        cost = draft.config.num_parameters / model.config.num_parameters
        budget = self._config.max_batch_tokens
        return Speculation(settings, DraftProposer(self._runners[1], self._pool, cost=cost, max_batch_tokens=budget))

    # -- what the owner calls ----------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._outcomes.states)

    def submit(self, request: Request) -> None:
        """Take a request; refuses with both numbers what can never run, and with `Overloaded` what cannot wait."""
        if request.id in self._outcomes.states:
            raise InvalidRequest(f"a request {request.id!r} is running; ids must be unique", param="id")
        state = open_request(
            request,
            vocab_size=self._vocab_size,
            max_context=self.max_context,
            arrival=self._arrivals,
            seed=self._new_seed(),
            now=self._clock(),
        )
        waiting = len(self._scheduler.waiting)
        if waiting >= self._config.max_waiting:
            raise Overloaded(f"{waiting} requests wait already, {self._config.max_waiting} may; try again later")
        self._arrivals += 1
        self._prompt_tokens += len(request.prompt_ids)
        self._outcomes.states[request.id] = state
        self._scheduler.add(state.sequences[0])

    def cancel(self, request_id: str) -> list[EngineEvent]:
        """Stop a request; its blocks are free on return. Unknown and ended requests are no error: clients race."""
        state = self._outcomes.states.get(request_id)
        if state is not None:
            self._outcomes.cancel(state)
        return self._outcomes.take()

    def finish(self, request_id: str, choice: int, stop: str, *, num_tokens: int | None = None) -> list[EngineEvent]:
        """End a choice because its text reached `stop`; returns the events of that.

        `num_tokens` is the number of the choice's tokens up to the stop; what a step generated beyond it then
        does not count in the usage. A choice that has ended in the meantime stays as it is.
        """
        state = self._outcomes.states.get(request_id)
        if state is None or choice >= len(state.sequences) or state.sequences[choice].finished:
            return []
        sequence = state.sequences[choice]
        if num_tokens is not None:
            state.completion_tokens -= max(sequence.num_generated - num_tokens, 0)
        self._outcomes.end(sequence, "stop", stop)
        return self._outcomes.take()

    def step(self) -> list[EngineEvent]:
        """Compute one batch and return what came of it; nothing to do is an empty list."""
        slices = self._scheduler.schedule()
        if not slices:
            return []
        with self._computing():
            return self._compute(slices)

    def _compute(self, slices: list[Slice]) -> list[EngineEvent]:
        began = self._clock()
        for piece in slices:
            if piece.sequence.state.first_step_at is None:
                piece.sequence.state.first_step_at = began
        self._speculation.propose(slices)
        states, starts = self._runner.hidden([_piece(piece) for piece in slices])
        self._steps += 1
        due: Due = []
        for piece, first in zip(slices, starts, strict=False):
            if piece.sequence.finished:
                continue  # Another choice of its request failed in this step.
            try:
                self._absorb(piece, states, first, due)
            except Exception as error:  # noqa: BLE001 - a request's own callables must not stop the others
                self._outcomes.fail(piece.sequence.state, error)
        if due:
            self._choose(due, states)
        if len(due) == len(slices):  # nobody is in the middle of a prompt
            self._speculation.step_cost.add(starts[-1], self._clock() - began)
        return self._outcomes.take()

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes; running sequences keep their blocks."""
        self._scheduler.tree.clear()

    def stats(self) -> EngineStats:
        """Counters as of now."""
        scheduler, pool = self._scheduler, self._pool
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks_total=pool.num_blocks,
            blocks_used=pool.num_used,
            blocks_cached=pool.num_idle,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._outcomes.num_tokens,
            prefix_queries=scheduler.queried_tokens,
            prefix_hits=scheduler.hit_tokens,
            preemptions=scheduler.num_preemptions,
            drafted_tokens=self._speculation.num_drafted,
            accepted_tokens=self._speculation.num_accepted,
        )

    # -- one step ----------------------------------------------------------------------------------

    def _absorb(self, piece: Slice, states: Tensor, first: int, due: Due) -> None:
        """Take what a slice computed, from row `first` of `states` on."""
        sequence = piece.sequence
        state = sequence.state
        is_complete = piece.is_complete
        self._scheduler.commit(sequence, piece.start + piece.count)
        if state.num_unscored:
            self._score_prompt(sequence, piece, states, first)
        if not is_complete:
            if not sequence.num_generated:
                self._outcomes.progress(sequence)
            return
        row = first + piece.count - 1
        if state.is_forked:
            due.append((sequence, piece.drafts, row))
            return
        self._outcomes.prompt_done(state)
        self._fork(state)
        for each in state.sequences:
            if state.max_total == each.num_prompt:
                self._outcomes.end(each, "length")
            else:
                due.append((each, [], row))

    def _score_prompt(self, sequence: Sequence, piece: Slice, states: Tensor, first: int) -> None:
        """Scores of the prompt tokens that the slice's rows predict."""
        scores = sequence.state.scores
        num_top = sequence.state.request.sampling.prompt_logprobs
        assert scores is not None and num_top is not None
        end = min(piece.start + piece.count, sequence.num_prompt - 1)
        for position in range(len(scores) - 1, end, _SCORED_ROWS):
            last = min(position + _SCORED_ROWS, end)
            row = first + position - piece.start
            logits = self._runner.logits(states[row : row + last - position])
            scores += score_rows(logits, sequence.tokens[position + 1 : last + 1], num_top)

    def _fork(self, state: RequestState) -> None:
        """Make all choices from the first one, which has computed the prompt."""
        request = state.request
        first = state.sequences[0]
        state.is_forked = True
        for choice in range(1, state.num_choices):
            sibling = Sequence(state, choice, first.tokens[:])
            state.sequences.append(sibling)
            copy = self._scheduler.fork(first, sibling)
            if copy is not None:
                for runner in self._runners:
                    runner.cache.copy_block(*copy)
        is_penalised = has_penalties(request.sampling)
        for sequence in state.sequences:
            sequence.matcher = request.matcher() if request.matcher is not None else None
            sequence.stopper = request.stopper() if request.stopper is not None else None
            sequence.history = History(first.tokens) if is_penalised else None

    def _choose(self, due: Due, states: Tensor) -> None:
        """Sample a token for each row that is due, and one more for each proposal that turns out right."""
        logits = self._runner.logits(
            states, [row + place for _, drafts, row in due for place in range(1 + len(drafts))]
        )
        scores: list[TokenScore | None]
        if all(sequence.state.is_plain for sequence, _, _ in due):
            ids = most_likely(logits)
            scores = [None] * len(ids)
        else:
            ids, scores = sample(logits, [row for sequence, drafts, _ in due for row in self._rows(sequence, drafts)])
        start = 0
        for sequence, drafts, _ in due:
            end = start + 1 + len(drafts)
            if not sequence.finished:
                try:
                    self._take(sequence, drafts, ids[start:end], scores[start:end])
                except Exception as error:  # noqa: BLE001 - as in `step`
                    self._outcomes.fail(sequence.state, error)
            start = end

    def _rows(self, sequence: Sequence, drafts: list[int]) -> list[Row]:
        """What decides the sequence's next token, and the ones after it should the proposals be right."""
        state = sequence.state
        params = state.request.sampling
        generated = sequence.num_generated
        ends = tuple(state.stop_ids) if generated < params.min_tokens else ()
        rows = [
            Row(
                params,
                state.seed,
                sequence.choice,
                generated + place,
                needs_score=state.needs_score,
                suppressed=ends if generated + place < params.min_tokens else (),
                history=sequence.history,
                assumed=drafts[:place],
            )
            for place in range(1 + len(drafts))
        ]
        if sequence.matcher is not None and not sequence.finished:
            try:
                for place, row in enumerate(rows):
                    row.mask = sequence.matcher.mask()
                    if place < len(drafts):
                        sequence.matcher.advance(drafts[place])
                if drafts:
                    sequence.matcher.rollback(len(drafts))
            except Exception as error:  # noqa: BLE001 - as in `step`
                self._outcomes.fail(state, error)
        return rows

    def _take(self, sequence: Sequence, drafts: list[int], ids: list[int], scores: list[TokenScore | None]) -> None:
        """Append sampled tokens: the first, and those behind proposals that were right."""
        state = sequence.state
        state.drafted_tokens += len(drafts)
        accepted = 0
        for place, token in enumerate(ids):
            if token == NO_TOKEN:
                raise InvalidRequest(
                    "no token is possible: logit_bias and the constraint exclude all, or the model's logits are "
                    "not finite numbers",
                    param="logit_bias" if state.request.sampling.logit_bias else None,
                )
            ended = self._outcomes.append(sequence, token, scores[place])
            if ended or place == len(drafts) or token != drafts[place]:
                break
            accepted += 1
            state.accepted_tokens += 1
            self._scheduler.commit(sequence, sequence.num_computed + 1)
        if drafts:
            self._speculation.learn(sequence, len(drafts), accepted)


def _piece(piece: Slice) -> Piece:
    ids = piece.sequence.tokens[piece.start : piece.start + piece.count]
    if piece.drafts:
        ids.extend(piece.drafts)
    return Piece(ids, piece.start, piece.sequence.blocks)
