"""Who computes how many tokens in the next step.

There is no prefill and no decode here, only tokens that are known and not computed yet, and one budget
for all of them. Sequences are served in the order of priority, then arrival. Each decoding sequence gets
its token; what is left of the budget goes to speculation and to prompts. A prompt that would swallow
everything shares with those behind it. When blocks run out, the last sequence in the order gives up its
own and waits to be recomputed. Knows ids and counts, no tensors and no clock.

Sequences that wait hold no blocks, and a sequence alone always fits (`Engine.submit` refuses others), so
the first in the order can always go on: nothing starves.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from llamakit.engine.blocks import BlockPool
from llamakit.engine.config import EngineConfig
from llamakit.engine.prefix import PrefixTree
from llamakit.engine.sequence import Sequence

_LOOKAHEAD = 32
"""Waiting sequences a step passes over because their prompts' beginning is just being computed."""


@dataclass(slots=True)
class Slice:
    """Tokens of one sequence to compute: `count` known ones from `start`, then the proposed `drafts`."""

    sequence: Sequence
    start: int
    count: int
    room: int = 0
    """Tokens that may be proposed."""
    drafts: list[int] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether no known token is left after it, so that the next one can be sampled."""
        return self.start + self.count == len(self.sequence.tokens)


DraftRoom = Callable[[Sequence, int], int]
"""How many tokens are worth proposing for a sequence in a step of so many tokens."""


class Scheduler:
    """Owns the order of sequences and their blocks."""

    def __init__(self, config: EngineConfig, pool: BlockPool, draft_room: DraftRoom = lambda sequence, rows: 0) -> None:
        self._config = config
        self._block_tokens = config.block_tokens
        self._pool = pool
        self._draft_room = draft_room
        self.tree = PrefixTree(pool, config.block_tokens)
        self.running: list[Sequence] = []
        """Sequences that hold blocks, most urgent first."""
        self.waiting: list[Sequence] = []
        """Sequences that hold none, most urgent first."""
        self.num_preemptions = 0
        self.queried_tokens = 0
        """Tokens looked up in the prefix cache."""
        self.hit_tokens = 0
        """Tokens found there."""

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        insort(self.waiting, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, running or waiting; its blocks return at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence)

    def schedule(self) -> list[Slice]:
        """The next step. Allocates the blocks it needs, admits and preempts."""
        if self.waiting:
            self._make_way()
        num_decoding = 0
        for sequence in self.running:
            if sequence.num_pending == 1:
                num_decoding += 1
        chunk = self._config.max_batch_tokens - num_decoding
        guesses = 0
        if num_decoding:
            guesses = chunk
            chunk = min(chunk, self._config.prefill_chunk)
            if self.waiting or num_decoding < len(self.running):
                # Prompts and proposals share what is left; neither may starve the other.
                guesses = max(guesses // 2, guesses - chunk)
                chunk = min(chunk, self._config.max_batch_tokens - num_decoding - guesses)
        slices: list[Slice] = []
        before = self.num_preemptions
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            position += 1
            if sequence.num_pending == 1:
                piece = self._decode(sequence, num_decoding, guesses)
                guesses -= piece.room if piece else 0
            else:
                piece = self._prefill(sequence, chunk, crowded=bool(self.waiting) or position < len(self.running))
                chunk -= piece.count if piece else 0
            if piece is not None:
                slices.append(piece)
        if self.waiting and self.num_preemptions == before:
            chunk = self._admit(slices, chunk)
        self._use_up(slices, chunk)
        return slices

    def commit(self, sequence: Sequence, num_computed: int) -> None:
        """The first `num_computed` tokens are in the cache now: share their full blocks with everybody."""
        sequence.num_computed = num_computed
        size = self._block_tokens
        if num_computed < (sequence.num_inserted + 1) * size or sequence.epoch != self.tree.epoch:
            return
        salt = sequence.state.request.salt
        for index in range(sequence.num_inserted, num_computed // size):
            block = sequence.blocks[index]
            key = sequence.tokens[index * size : (index + 1) * size].tobytes()
            node = self.tree.insert(salt, sequence.node, key, block)
            if node.block != block:
                # Somebody computed the same before us: use theirs, so that a holder of a node holds its whole path.
                self._pool.share((node.block,))
                self._pool.release((block,))
                sequence.blocks[index] = node.block
                sequence.draft_settled = min(sequence.draft_settled, index)
                sequence.draft_computed = min(sequence.draft_computed, index * size)
            sequence.node = node
            sequence.num_inserted = index + 1

    def fork(self, sequence: Sequence, sibling: Sequence) -> tuple[int, int] | None:
        """Let `sibling`, equal in tokens up to `sequence.num_computed`, run on the same blocks.

        Returns (source, target) of a block whose content must be copied now. Without a place or a block
        the sibling waits instead, and finds most of its prompt in the prefix cache later.
        """
        full, rest = divmod(sequence.num_computed, self._block_tokens)
        if len(self.running) >= self._config.max_sequences or (rest and not self._pool.num_available):
            self.add(sibling)
            return None
        shared = sequence.blocks[:full]
        self._pool.share(shared)
        sibling.blocks = shared
        sibling.num_computed = sequence.num_computed
        sibling.node = sequence.node
        sibling.num_inserted = sequence.num_inserted
        sibling.epoch = sequence.epoch
        insort(self.running, sibling)
        if not rest:
            return None
        own = self._pool.allocate(1)[0]
        sibling.blocks.append(own)
        return sequence.blocks[full], own

    # -- running sequences -------------------------------------------------------------------------

    def _decode(self, sequence: Sequence, rows: int, spare: int) -> Slice | None:
        length = len(sequence.tokens)
        if not self._reserve(sequence, length):
            return None
        room = min(self._draft_room(sequence, rows), spare)
        if room > 0:
            # Proposals take free room only; nobody is preempted for a guess.
            room = min(room, self._room_for(sequence) - length)
            room = max(room, 0)
            if room and not self._reserve(sequence, length + room):
                return None
        return Slice(sequence, length - 1, 1, room)

    def _prefill(self, sequence: Sequence, chunk: int, *, crowded: bool) -> Slice | None:
        """A part of the prompt. One that does not fit the chunk leaves half of it to those behind."""
        size = self._block_tokens
        count = sequence.num_pending
        if count > chunk:
            count = chunk
            if crowded and chunk >= 2 * size:
                count = chunk // 2 // size * size
        if count <= 0:
            return None
        start = sequence.num_computed
        fits = self._room_for(sequence) - start
        if fits < count:
            if fits >= size:
                count = fits
            elif not self._reserve(sequence, start + min(count, size)):
                return None
            else:
                count = min(count, size)
        self._grow(sequence, start + count)
        return Slice(sequence, start, count)

    def _use_up(self, slices: list[Slice], chunk: int) -> None:
        """Give what those behind did not need to the first prompt that could use it."""
        if chunk <= 0:
            return
        for piece in slices:
            sequence = piece.sequence
            start = piece.start + piece.count
            count = min(len(sequence.tokens) - start, chunk, self._room_for(sequence) - start)
            if count > 0:
                self._grow(sequence, start + count)
                piece.count += count
                return

    def _room_for(self, sequence: Sequence) -> int:
        """Tokens that the blocks of `sequence` and those available could hold."""
        return (len(sequence.blocks) + self._pool.num_available) * self._block_tokens

    def _grow(self, sequence: Sequence, num_tokens: int) -> None:
        missing = -(-num_tokens // self._block_tokens) - len(sequence.blocks)
        if missing > 0:
            sequence.blocks.extend(self._pool.allocate(missing))

    def _reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Have blocks for `num_tokens`; preempts from the end of the order, False if that was `sequence` itself."""
        missing = -(-num_tokens // self._block_tokens) - len(sequence.blocks)
        if missing <= 0:
            return True
        while missing > self._pool.num_available:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks.extend(self._pool.allocate(missing))
        return True

    # -- admission and preemption ------------------------------------------------------------------

    def _admit(self, slices: list[Slice], chunk: int) -> int:
        """Start waiting sequences while budget, places and blocks last; returns what is left of `chunk`.

        Strictly in order, so that a large prompt is not overtaken for ever, with one exception: a sequence
        whose next block a running one is computing right now waits to share it.
        """
        being_computed: set[tuple[object, bytes]] | None = None
        passed: list[Sequence] = []
        while self.waiting and chunk > 0 and len(self.running) < self._config.max_sequences:
            sequence = self.waiting[0]
            limit = self._cacheable(sequence)
            salt = sequence.state.request.salt
            blocks, node = self.tree.match(salt, sequence.tokens, limit)
            if being_computed is None:
                being_computed = {self._next_block(other) for other in self.running if other.num_pending > 1}
            cached = len(blocks) * self._block_tokens
            upcoming = (node or salt, sequence.tokens[cached : cached + self._block_tokens].tobytes())
            if cached + self._block_tokens <= limit and upcoming in being_computed:
                passed.append(self.waiting.pop(0))
                if len(passed) > _LOOKAHEAD:
                    break
                continue
            self._pool.share(blocks)
            sequence.blocks.extend(blocks)
            if not self._has_room(sequence):
                self._release(sequence)
                break
            self.waiting.pop(0)
            sequence.num_computed = cached
            sequence.node, sequence.num_inserted = node, len(blocks)
            sequence.epoch = self.tree.epoch
            self.queried_tokens += len(sequence.tokens)
            self.hit_tokens += cached
            if sequence.state.first_step_at is None:
                sequence.state.cached_tokens = cached
            insort(self.running, sequence)
            piece = self._prefill(sequence, chunk, crowded=bool(self.waiting))
            assert piece is not None, (sequence.key, chunk, self._pool.num_available)
            slices.append(piece)
            chunk -= piece.count
            being_computed.add(upcoming)
        for sequence in passed:
            self.add(sequence)
        return chunk

    def _next_block(self, sequence: Sequence) -> tuple[object, bytes]:
        """Where the block that `sequence` computes next will go in the prefix tree."""
        start = sequence.num_inserted * self._block_tokens
        key = sequence.tokens[start : start + self._block_tokens].tobytes()
        return sequence.node or sequence.state.request.salt, key

    def _cacheable(self, sequence: Sequence) -> int:
        """Tokens that need not be computed: all but the last, or those before the first missing prompt score."""
        scores = sequence.state.scores
        if scores is not None and sequence.state.num_unscored:
            return max(len(scores) - 1, 0)
        return len(sequence.tokens) - 1

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether all its tokens fit beside the next block of every running sequence."""
        missing = -(-len(sequence.tokens) // self._block_tokens) - len(sequence.blocks)
        return missing + len(self.running) <= self._pool.num_available

    def _make_way(self) -> None:
        """Preempt less urgent sequences while a more urgent one waits and cannot start."""
        head = self.waiting[0]
        while self.running and head.key[0] < self.running[-1].key[0]:
            if len(self.running) < self._config.max_sequences:
                blocks, _ = self.tree.match(head.state.request.salt, head.tokens, self._cacheable(head))
                missing = -(-len(head.tokens) // self._block_tokens) - len(blocks)
                idle = sum(self._pool.references(block) == 0 for block in blocks)
                if missing + len(self.running) <= self._pool.num_available - idle:
                    return
            self._preempt(self.running[-1])

    def _preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's blocks; it waits and is recomputed, mostly from the prefix cache if that lasts."""
        self.num_preemptions += 1
        self.running.remove(sequence)
        self._release(sequence)
        self.add(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks)
        del sequence.blocks[:]
        sequence.num_computed = 0
        sequence.node, sequence.num_inserted = None, 0
        sequence.draft_computed = sequence.draft_settled = 0
