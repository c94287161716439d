"""The scheduler alone: no tensors, a model that is a hash, and a memory that remembers who wrote what."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence as Ids

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.sampling import SamplingParams
from llamakit.engine.blocks import BlockPool
from llamakit.engine.config import EngineConfig
from llamakit.engine.request import Request
from llamakit.engine.scheduler import Scheduler, Slice
from llamakit.engine.sequence import RequestState, Sequence


class World:
    """Runs a scheduler as the engine would; `memory[block][offset]` is the text whose last token's keys lie there."""

    def __init__(self, num_blocks: int, rooms: int = 0, **config: int) -> None:
        self.config = EngineConfig(**({"block_tokens": 4, "max_batch_tokens": 32, "max_sequences": 8} | config))  # type: ignore[arg-type]
        self.pool = BlockPool(num_blocks)
        self.scheduler = Scheduler(self.config, self.pool, self._room)
        self.rooms = rooms
        self.memory: dict[tuple[int, int], tuple[bytes, tuple[int, ...]]] = {}
        self.live: list[Sequence] = []
        self.arrivals = 0
        self.num_steps = 0
        self.history: list[dict[Sequence, int]] = []

    def _room(self, sequence: Sequence, rows: int) -> int:
        return min(self.rooms, sequence.state.max_total - len(sequence.tokens) - 1) if sequence.num_generated else 0

    def add(self, prompt: Ids[int], max_tokens: int = 4, *, priority: int = 0, salt: bytes = b"") -> Sequence:
        request = Request(
            id=str(self.arrivals),
            prompt_ids=prompt,
            priority=priority,
            salt=salt,
            sampling=SamplingParams(max_tokens=max_tokens),
        )
        state = RequestState(
            request=request,
            arrival=self.arrivals,
            seed=0,
            num_choices=1,
            max_total=len(prompt) + max_tokens,
            stop_ids=frozenset(),
            submitted_at=0.0,
            needs_score=False,
            is_plain=True,
            is_buffered=False,
        )
        self.arrivals += 1
        sequence = Sequence(state, 0, array("q", prompt))
        self.live.append(sequence)
        self.scheduler.add(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        self.live.remove(sequence)
        sequence.finished = True
        self.scheduler.remove(sequence)

    def step(self) -> list[Slice]:
        slices = self.scheduler.schedule()
        assert len({piece.sequence for piece in slices}) == len(slices)
        self.history.append({piece.sequence: piece.count for piece in slices})
        self.num_steps += 1
        for piece in slices:
            self._propose(piece)
        assert sum(piece.count + len(piece.drafts) for piece in slices) <= self.config.max_batch_tokens
        for piece in slices:
            self._compute(piece)
        for piece in slices:
            sequence = piece.sequence
            complete = piece.is_complete
            self.scheduler.commit(sequence, piece.start + piece.count)
            if complete:
                self._extend(sequence, piece.drafts)
        self.check()
        return slices

    def run(self, limit: int = 5000) -> None:
        while self.live:
            assert self.num_steps < limit, "no progress"
            self.step()
        assert self.pool.num_used == 0

    def _propose(self, piece: Slice) -> None:
        # Every other proposal is right.
        tokens = piece.sequence.tokens[:]
        for place in range(piece.room):
            token = next_token(tokens) if (len(tokens) + place) % 2 else 10_000
            piece.drafts.append(token)
            tokens.append(token)

    def _compute(self, piece: Slice) -> None:
        sequence = piece.sequence
        salt = sequence.state.request.salt
        assert piece.count > 0 and piece.start == sequence.num_computed
        text = sequence.tokens[: piece.start + piece.count] + array("q", piece.drafts)
        for position in range(piece.start):
            assert self._read(sequence, position) == (salt, tuple(text[: position + 1]))
        for position in range(piece.start, len(text)):
            block = sequence.blocks[position // 4]
            self.memory[block, position % 4] = (salt, tuple(text[: position + 1]))

    def _read(self, sequence: Sequence, position: int) -> tuple[bytes, tuple[int, ...]]:
        return self.memory[sequence.blocks[position // 4], position % 4]

    def _extend(self, sequence: Sequence, drafts: list[int]) -> None:
        for place in range(1 + len(drafts)):
            token = next_token(sequence.tokens)
            sequence.tokens.append(token)
            if len(sequence.tokens) == sequence.state.max_total:
                self.live.remove(sequence)
                sequence.finished = True
                self.scheduler.remove(sequence)
                return
            if place == len(drafts) or token != drafts[place]:
                return
            self.scheduler.commit(sequence, sequence.num_computed + 1)

    def check(self) -> None:
        scheduler, pool = self.scheduler, self.pool
        assert sorted(self.live) == sorted([*scheduler.running, *scheduler.waiting])
        assert scheduler.running == sorted(scheduler.running) and scheduler.waiting == sorted(scheduler.waiting)
        assert len(scheduler.running) <= self.config.max_sequences
        assert all(not sequence.blocks for sequence in scheduler.waiting)
        assert pool.num_free + pool.num_idle + pool.num_used == pool.num_blocks
        for block in range(pool.num_blocks):
            assert pool.references(block) == sum(block in sequence.blocks for sequence in scheduler.running)
        for sequence in scheduler.running:
            salt = sequence.state.request.salt
            for position in range(sequence.num_computed):
                assert self._read(sequence, position) == (salt, tuple(sequence.tokens[: position + 1]))


def next_token(tokens: array) -> int:
    return hashlib.blake2b(tokens.tobytes(), digest_size=1).digest()[0] % 4


def test_a_prompt_is_cut_to_the_budget():
    world = World(64, max_batch_tokens=8)
    sequence = world.add(range(20))
    world.run()
    assert [step[sequence] for step in world.history] == [8, 8, 4, 1, 1, 1]


def test_decoding_goes_on_beside_a_long_prompt():
    world = World(4000, max_batch_tokens=64, prefill_chunk=16)
    short = world.add(range(4), max_tokens=50)
    world.step()
    long = world.add(range(1000, 1400))
    while long.num_generated == 0:
        world.step()
    assert all(step[short] == 1 for step in world.history[1:])
    # Decoding bounds the prompt's share, so that no step is much longer than another.
    assert max(step.get(long, 0) for step in world.history) == 16


def test_a_long_prompt_leaves_half_of_a_step_to_those_behind():
    world = World(4000, max_batch_tokens=64)
    long = world.add(range(10_000, 12_000), max_tokens=1)
    short = world.add(range(20), max_tokens=1)
    world.step()
    assert world.history[0] == {long: 32 + 12, short: 20}


def test_a_lone_prompt_takes_the_whole_step():
    world = World(4000, max_batch_tokens=64)
    long = world.add(range(1000))
    world.step()
    assert world.history[0] == {long: 64}


def test_later_requests_find_the_prefix_of_earlier_ones_and_of_their_answers():
    world = World(64)
    first = world.add(range(16), max_tokens=9)
    world.run()
    again = world.add(first.tokens, max_tokens=1)
    world.step()
    # 25 tokens were known, the last of them was never computed: six full blocks.
    assert again.state.cached_tokens == 24
    assert world.history[-1][again] == 1


def test_requests_that_arrive_together_compute_their_common_beginning_once():
    world = World(256, max_batch_tokens=64)
    common = list(range(100, 132))
    together = [world.add([*common, i], max_tokens=2) for i in range(5)]
    world.run()
    computed = sum(step.get(sequence, 0) for step in world.history for sequence in together)
    assert computed == 32 + 5 + 5
    assert [sequence.state.cached_tokens for sequence in together] == [0, 32, 32, 32, 32]


def test_the_urgent_go_first_and_push_aside_the_others():
    world = World(64, max_sequences=1, max_batch_tokens=8)
    slow = world.add(range(8), max_tokens=10, priority=5)
    world.step()
    urgent = world.add(range(50, 58), max_tokens=3, priority=1)
    while urgent in world.live:
        world.step()
        assert slow not in world.history[-1]
    assert world.scheduler.num_preemptions == 1
    world.run()


def test_urgency_is_no_reason_to_preempt_when_there_is_room():
    world = World(64)
    slow = world.add(range(8), max_tokens=10, priority=5)
    world.step()
    world.add(range(50, 58), max_tokens=3, priority=1)
    world.step()
    assert slow in world.history[-1] and world.scheduler.num_preemptions == 0


def test_when_blocks_run_out_the_last_in_order_gives_way():
    # Two sequences of 8 + 24 tokens need 16 blocks, there are 12.
    world = World(12)
    first, second = world.add(range(8), max_tokens=24), world.add(range(50, 58), max_tokens=24)
    ended: list[Sequence] = []
    while world.live:
        before = list(world.live)
        world.step()
        ended += [sequence for sequence in before if sequence not in world.live]
    assert ended == [first, second]
    assert world.scheduler.num_preemptions >= 1


def test_admission_keeps_a_block_for_everybody_who_runs():
    world = World(8)
    world.add(range(8), max_tokens=8)
    world.step()
    second = world.add(range(50, 74), max_tokens=1)
    world.step()
    # Two blocks are held, six free, six needed: none would be left for the first one's next block.
    assert second in world.scheduler.waiting


def test_order_is_kept_when_the_first_in_line_does_not_fit():
    world = World(8)
    world.add(range(8), max_tokens=8)
    world.step()
    large, small = world.add(range(50, 74), max_tokens=1), world.add(range(90, 94), max_tokens=1)
    world.step()
    assert {large, small} <= set(world.scheduler.waiting)
    world.run()


def test_removal_returns_blocks_at_once():
    world = World(16)
    running, waiting = world.add(range(40)), world.add(range(50, 90))
    world.step()
    assert world.pool.num_used == 8
    world.cancel(running)
    world.cancel(waiting)
    assert world.pool.num_used == 0 and world.scheduler.schedule() == []


def test_prompts_and_proposals_share_a_full_step():
    world = World(256, rooms=8, max_batch_tokens=16, max_sequences=4)
    decoding = [world.add([i] * 4, max_tokens=100) for i in range(3)]
    for _ in range(4):
        world.step()
    prompt = world.add(range(100, 200), max_tokens=1)
    while prompt in world.live:
        world.step()
        assert world.history[-1].get(prompt, 0) >= 1
        assert all(sequence in world.history[-1] for sequence in decoding)


def test_forks_share_full_blocks_and_copy_the_partial_one():
    world = World(16)
    first = world.add(range(10))
    world.step()
    # As the engine does it: before the first token of the answer is known.
    del first.tokens[10:]
    sibling = Sequence(first.state, 1, first.tokens[:])
    copy = world.scheduler.fork(first, sibling)
    assert copy == (first.blocks[2], sibling.blocks[2])
    assert sibling.blocks[:2] == first.blocks[:2] and sibling.num_computed == 10
    assert world.pool.references(first.blocks[0]) == 2
    world.scheduler.remove(first)
    world.scheduler.remove(sibling)
    assert world.pool.num_used == 0


def test_a_fork_without_room_waits():
    world = World(3)
    first = world.add(range(10), max_tokens=2)
    world.step()
    del first.tokens[10:]
    sibling = Sequence(first.state, 1, first.tokens[:])
    assert world.scheduler.fork(first, sibling) is None
    assert world.scheduler.waiting == [sibling] and not sibling.blocks


def test_clearing_the_cache_does_not_disturb_what_runs():
    world = World(64, max_batch_tokens=8)
    running = world.add(range(30), max_tokens=10)
    for _ in range(3):
        world.step()
    world.scheduler.tree.clear()
    world.run()
    # It was computed before the clearing, so it must not come back into the cache.
    again = world.add(range(30), max_tokens=1)
    world.step()
    assert again.state.cached_tokens == 0
    assert running.finished


Arrival = st.tuples(
    st.integers(0, 12),  # step
    st.integers(0, 3),  # which common beginning
    st.integers(0, 20),  # how much of it
    st.integers(1, 12),  # own tokens
    st.integers(1, 14),  # answer
    st.integers(0, 1),  # priority
    st.sampled_from([b"", b"s"]),
)


@settings(max_examples=120, deadline=None)
@given(
    arrivals=st.lists(Arrival, min_size=1, max_size=12),
    cancelled=st.dictionaries(st.integers(0, 11), st.integers(0, 25), max_size=4),
    num_blocks=st.integers(12, 30),
    budget=st.sampled_from([4, 7, 16, 64]),
    rooms=st.sampled_from([0, 3]),
)
def test_any_schedule_reads_what_it_wrote_and_ends(
    arrivals: list[tuple], cancelled: dict[int, int], num_blocks: int, budget: int, rooms: int
):
    world = World(num_blocks, rooms=rooms, max_batch_tokens=budget, max_sequences=4)
    expected: list[Sequence] = []
    pending = sorted(enumerate(arrivals), key=lambda item: item[1][0])
    by_number: dict[int, Sequence] = {}
    while pending or world.live:
        while pending and pending[0][1][0] <= world.num_steps:
            number, (_, common, shared, own, answer, priority, salt) = pending.pop(0)
            prompt = [common] * shared + [(number + i) % 4 for i in range(own)]
            by_number[number] = world.add(prompt, answer, priority=priority, salt=salt)
            expected.append(by_number[number])
        for number, when in cancelled.items():
            victim = by_number.get(number)
            if victim is not None and when <= world.num_steps and victim in world.live:
                world.cancel(victim)
        world.step()
        assert world.num_steps < 3000
    assert world.pool.num_used == 0
    for sequence in expected:
        if len(sequence.tokens) == sequence.state.max_total:
            text = sequence.tokens[: sequence.num_prompt]
            while len(text) < sequence.state.max_total:
                text.append(next_token(text))
            assert text == sequence.tokens


@pytest.mark.parametrize("bad", [{"block_tokens": 5}, {"max_batch_tokens": 4, "max_sequences": 5}, {"max_context": 1}])
def test_settings_that_cannot_work_are_refused(bad: dict[str, int]):
    with pytest.raises(ValueError, match=next(iter(bad))):
        EngineConfig(**bad)  # type: ignore[arg-type]
