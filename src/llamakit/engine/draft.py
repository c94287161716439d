"""Proposals of a smaller model that shares the vocabulary.

The draft model keeps keys and values of its own under the same block numbers as the large model: prefix
sharing, forks and preemption then hold for it without another word. It reads what it has not read yet when
proposals are wanted, a bounded part a step, so a sequence may decode for a while before it is first helped.

Random numbers are those of the verification: where both models agree on the likely tokens, they also draw
the same one.
"""

from __future__ import annotations

from torch import Tensor

from llamakit.engine.batch import Piece
from llamakit.engine.blocks import BlockPool
from llamakit.engine.runner import Runner
from llamakit.engine.sampler import NO_TOKEN, Row, sample
from llamakit.engine.scheduler import Slice
from llamakit.engine.sequence import Sequence


class DraftProposer:
    """Runs the draft model ahead of the sequences; satisfies `speculative.Proposer`."""

    def __init__(self, runner: Runner, pool: BlockPool, *, cost: float, max_batch_tokens: int) -> None:
        self.cost = cost
        self._runner = runner
        self._pool = pool
        self._block_tokens = runner.cache.block_tokens
        self._max_batch_tokens = max_batch_tokens
        self._filled = [0] * pool.num_blocks
        """Generation of each block's content when the draft model had read all of it."""

    def propose(self, slices: list[Slice]) -> list[list[int]]:
        """The draft model's own continuation of each sequence that it has read to the end."""
        proposals: list[list[int]] = [[] for _ in slices]
        going = self._catch_up(slices, proposals)
        while going := [place for place in going if len(proposals[place]) < slices[place].room]:
            pieces = []
            for place in going:
                sequence, own = slices[place].sequence, proposals[place]
                position = len(sequence.tokens) + len(own) - 1
                pieces.append(Piece(own[-1:], position, sequence.blocks))
            states, _ = self._runner.hidden(pieces)
            going = self._extend(going, self._runner.logits(states), slices, proposals)
        for piece, own in zip(slices, proposals, strict=True):
            if own:
                # The last proposal is not read by the draft model itself.
                piece.sequence.draft_computed = len(piece.sequence.tokens) + len(own) - 1
        return proposals

    def _catch_up(self, slices: list[Slice], proposals: list[list[int]]) -> list[int]:
        """Read known tokens within one step's budget; first proposals for sequences now read to the end."""
        budget = self._max_batch_tokens
        pieces: list[Piece] = []
        done: list[tuple[int, int]] = []
        in_work: set[int] = set()
        for place, piece in enumerate(slices):
            sequence = piece.sequence
            self._settle(sequence)
            start = sequence.draft_computed
            block = sequence.blocks[start // self._block_tokens]
            count = min(len(sequence.tokens) - start, budget)
            if count <= 0 or block in in_work:
                continue  # A shared block is read once.
            in_work.add(block)
            budget -= count
            pieces.append(Piece(sequence.tokens[start : start + count], start, sequence.blocks))
            sequence.draft_computed = start + count
            if sequence.draft_computed == len(sequence.tokens):
                done.append((place, len(pieces) - 1))
        if not pieces:
            return []
        states, starts = self._runner.hidden(pieces)
        if not done:
            return []
        logits = self._runner.logits(states, [starts[index + 1] - 1 for _, index in done])
        return self._extend([place for place, _ in done], logits, slices, proposals)

    def _extend(
        self, places: list[int], logits_MV: Tensor, slices: list[Slice], proposals: list[list[int]]
    ) -> list[int]:
        """Add one token to each of the proposals; returns those that can go on."""
        rows = []
        for place in places:
            sequence = slices[place].sequence
            state = sequence.state
            position = sequence.num_generated + len(proposals[place])
            rows.append(Row(state.request.sampling, state.seed, sequence.choice, position))
        ids, _ = sample(logits_MV, rows)
        going = []
        for place, token in zip(places, ids, strict=True):
            if token != NO_TOKEN:
                proposals[place].append(token)
                going.append(place)
        return going

    def _settle(self, sequence: Sequence) -> None:
        """Take stock: wrong proposals were never read, and blocks that others filled need no reading."""
        size = self._block_tokens
        sequence.draft_computed = min(sequence.draft_computed, len(sequence.tokens) - 1)
        generation = self._pool.generation
        while sequence.draft_settled < sequence.draft_computed // size:
            block = sequence.blocks[sequence.draft_settled]
            self._filled[block] = generation[block]
            sequence.draft_settled += 1
        while (sequence.draft_settled + 1) * size < len(sequence.tokens):
            block = sequence.blocks[sequence.draft_settled]
            if self._filled[block] != generation[block]:
                break
            sequence.draft_settled += 1
            sequence.draft_computed = max(sequence.draft_computed, sequence.draft_settled * size)
