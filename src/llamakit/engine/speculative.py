"""Proposing tokens: how many are worth it, and where they come from.

Proposals never change what comes out. The engine samples the model's own token at every proposed position,
from that position's own random number (`draws`), and keeps going while it equals the proposal: the tokens
are those that would have come one by one, only sooner or later.
"""

from __future__ import annotations

from array import array
from typing import Protocol

import numpy as np

from llamakit.engine.config import SpeculationConfig
from llamakit.engine.scheduler import Slice
from llamakit.engine.sequence import Sequence
from llamakit.engine.step_cost import StepCost

_PRIOR = 0.6
"""Acceptance assumed before any was measured."""
_MEMORY = 0.9
"""Weight of the past when an outcome is added to a running acceptance."""
_PROBE_STEPS = 32
"""A sequence that does not speculate tries one proposal this often, to notice that its text has changed."""


class Proposer(Protocol):
    """Guesses what comes next."""

    cost: float
    """What a proposed token costs, as a share of a step of the model."""

    def propose(self, slices: list[Slice]) -> list[list[int]]:
        """For each slice at most `room` tokens to follow its sequence; an empty list is an answer."""
        ...


class NgramProposer:
    """Looks up the last few tokens earlier in the same sequence and proposes what followed them there."""

    cost = 0.0

    def __init__(self, config: SpeculationConfig) -> None:
        self._sizes = range(config.max_ngram, config.min_ngram - 1, -1)

    def propose(self, slices: list[Slice]) -> list[list[int]]:
        """What followed the longest, then latest repetition."""
        return [self.lookup(piece.sequence.tokens, piece.room) for piece in slices]

    def lookup(self, tokens: array[int], room: int) -> list[int]:
        """The `room` tokens that followed an earlier occurrence of the last tokens; none if there is none."""
        known = np.frombuffer(tokens, dtype=np.int64)
        for size in self._sizes:
            if len(known) <= size:
                continue
            # Places where a continuation would start, narrowed token by token from the last one backwards.
            starts = np.flatnonzero(known[size - 1 : -1] == known[-1]) + size
            for back in range(2, size + 1):
                starts = starts[known[starts - back] == known[-back]]
            if len(starts):
                # Copying may run into what it has just copied: a text that repeats itself goes on repeating.
                source = known[starts[-1] :].tolist()
                return (source * -(-room // len(source)))[:room]
        return []


class Speculation:
    """Decides how many tokens to propose for each sequence, from acceptance and load, and learns from the outcome."""

    def __init__(self, config: SpeculationConfig, proposer: Proposer) -> None:
        self._config = config
        self._proposer = proposer
        self._overall = _PRIOR
        self.step_cost = StepCost(config.row_cost)
        """Told by the engine how long steps took."""
        self.num_drafted = 0
        self.num_accepted = 0

    def room(self, sequence: Sequence, rows: int) -> int:
        """Tokens worth proposing for `sequence` in a step of `rows` tokens."""
        state = sequence.state
        # The last token of an answer is sampled, not proposed.
        most = min(self._config.max_tokens, state.max_total - len(sequence.tokens) - 1)
        if most <= 0 or not state.is_forked:
            return 0
        if not self._config.adaptive:
            return most
        if sequence.num_generated <= 1:
            sequence.acceptance = self._overall
        best = self._best(sequence.acceptance, rows, most)
        if best == 0:
            sequence.since_probe += 1
            if sequence.since_probe >= _PROBE_STEPS:
                sequence.since_probe = 0
                return 1
        return best

    def propose(self, slices: list[Slice]) -> None:
        """Fill `drafts` of the slices that have room, as far as a stop id or the constraint allows."""
        wanted = [piece for piece in slices if piece.room > 0]
        if not wanted:
            return
        for piece, drafts in zip(wanted, self._proposer.propose(wanted), strict=True):
            sequence = piece.sequence
            stop_ids = sequence.state.stop_ids
            for place, token in enumerate(drafts):
                if token in stop_ids:
                    del drafts[place:]
                    break
            if drafts and sequence.matcher is not None:
                del drafts[sequence.matcher.count_valid(drafts) :]
            piece.drafts = drafts

    def learn(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Take the outcome of one verification."""
        self.num_drafted += drafted
        self.num_accepted += accepted
        outcomes = [1.0] * accepted + [0.0] * (accepted < drafted)
        for outcome in outcomes:
            sequence.acceptance += (1 - _MEMORY) * (outcome - sequence.acceptance)
            self._overall += (1 - _MEMORY) * 0.1 * (outcome - self._overall)

    def _best(self, acceptance: float, rows: int, most: int) -> int:
        """Number of proposals with the most expected tokens for the cost of a step.

        k proposals yield 1 + a + ... + a^k tokens on average. A step costs 1 for the weights and `row_cost`, which
        is learned, for each token in it; in a full batch every sequence that speculates makes the step dearer for all.
        """
        row_cost = self.step_cost.per_token
        best, best_rate = 0, 1.0 / (1.0 + row_cost * rows)
        expected = gain = 1.0
        for count in range(1, most + 1):
            gain *= acceptance
            expected += gain
            rate = expected / (1.0 + row_cost * rows * (1 + count) + self._proposer.cost * count)
            if rate > best_rate:
                best, best_rate = count, rate
        return best
