from __future__ import annotations

from array import array

import pytest
from tests.tiny import tiny_llama
from tests.unit.engine.driving import plain, request, run

from llamakit.core.errors import ConfigError
from llamakit.engine.admission import open_request
from llamakit.engine.config import EngineConfig, SpeculationConfig
from llamakit.engine.engine import Engine
from llamakit.engine.request import RequestEnd
from llamakit.engine.scheduler import Slice
from llamakit.engine.sequence import Sequence
from llamakit.engine.speculative import NgramProposer, Speculation


def lookup(tokens: list[int], room: int = 4, **config: int) -> list[int]:
    return NgramProposer(SpeculationConfig(**config)).lookup(array("q", tokens), room)  # type: ignore[arg-type]


def test_proposes_what_followed_last_time():
    assert lookup([1, 2, 3, 4, 5, 6, 9, 1, 2, 3]) == [4, 5, 6, 9]
    assert lookup([1, 2, 3, 4, 5, 6, 9, 1, 2, 3], room=2) == [4, 5]
    assert lookup([1, 2, 3, 4, 1, 2, 3], room=6) == [4, 1, 2, 3, 4, 1]


def test_the_longest_match_wins_then_the_latest():
    assert lookup([7, 2, 3, 40, 0, 1, 2, 3, 50, 0, 9, 2, 3, 60, 0, 1, 2, 3], room=1) == [50]
    assert lookup([2, 3, 40, 0, 2, 3, 50, 0, 2, 3], room=1) == [50]


def test_a_repeating_text_is_continued_at_length():
    assert lookup([1, 2] * 6, room=4) == [1, 2, 1, 2]
    assert lookup([5, 5, 5, 5], room=4, min_ngram=1) == [5, 5, 5, 5]


def test_nothing_repeats_nothing_is_proposed():
    assert lookup([1, 2, 3, 4, 5]) == []
    assert lookup([1, 2, 1]) == []
    assert lookup([1]) == [] and lookup([1, 2]) == []


def test_the_text_can_grow_after_a_lookup():
    tokens = array("q", [1, 2, 1, 2])
    NgramProposer(SpeculationConfig()).lookup(tokens, 4)
    tokens.append(3)


class Fixed:
    """Proposes the same tokens to everybody."""

    def __init__(self, tokens: list[int], cost: float = 0.0) -> None:
        self.tokens = tokens
        self.cost = cost

    def propose(self, slices: list[Slice]) -> list[list[int]]:
        return [self.tokens[: piece.room] for piece in slices]


def decoding(*, max_tokens: int = 100, stop_ids: tuple[int, ...] = ()) -> Sequence:
    """A sequence that has one token of its answer."""
    state = open_request(
        request([1, 2, 3], max_tokens=max_tokens, stop_ids=stop_ids),
        vocab_size=300,
        max_context=1000,
        arrival=0,
        seed=0,
        now=0.0,
    )
    state.is_forked = True
    state.sequences[0].tokens.append(4)
    return state.sequences[0]


def test_a_lone_sequence_speculates_and_a_full_batch_does_not():
    speculation = Speculation(SpeculationConfig(), Fixed([]))
    sequence = decoding()
    rooms = [speculation.room(sequence, rows) for rows in (1, 8, 32, 128)]
    assert rooms[0] >= 3
    assert rooms == sorted(rooms, reverse=True) and rooms[-1] == 0


def test_a_dear_draft_model_proposes_less():
    sequence = decoding()
    cheap = Speculation(SpeculationConfig(), Fixed([], cost=0.02)).room(sequence, 1)
    dear = Speculation(SpeculationConfig(), Fixed([], cost=0.7)).room(sequence, 1)
    assert dear == 0 < cheap


def test_poor_acceptance_switches_off_and_probes_now_and_then():
    speculation = Speculation(SpeculationConfig(), Fixed([]))
    sequence = decoding()
    speculation.room(sequence, 1)
    sequence.tokens.extend([5, 6])
    for _ in range(60):
        speculation.learn(sequence, 4, 0)
    rooms = [speculation.room(sequence, 1) for _ in range(100)]
    assert 1 <= sum(rooms) <= 4 and max(rooms) == 1
    for _ in range(60):
        speculation.learn(sequence, 4, 4)
    assert speculation.room(sequence, 1) == SpeculationConfig().max_tokens


def test_never_beyond_the_end_of_the_answer():
    speculation = Speculation(SpeculationConfig(adaptive=False, max_tokens=6), Fixed([]))
    assert [speculation.room(decoding(max_tokens=m), 1) for m in (2, 3, 5, 50)] == [0, 1, 3, 6]


def test_a_prompt_that_is_not_done_is_left_alone():
    speculation = Speculation(SpeculationConfig(adaptive=False), Fixed([]))
    sequence = decoding()
    sequence.state.is_forked = False
    assert speculation.room(sequence, 1) == 0


def test_proposals_end_before_a_stop_id():
    speculation = Speculation(SpeculationConfig(adaptive=False), Fixed([7, 8, 9, 10]))
    piece = Slice(decoding(stop_ids=(9,)), 3, 1, room=4)
    speculation.propose([piece])
    assert piece.drafts == [7, 8]


def test_outcomes_are_counted():
    speculation = Speculation(SpeculationConfig(), Fixed([]))
    speculation.learn(decoding(), 4, 3)
    speculation.learn(decoding(), 2, 0)
    assert (speculation.num_drafted, speculation.num_accepted) == (6, 3)


def test_usage_reports_what_speculation_did():
    engine = Engine(tiny_llama(), EngineConfig(speculation=SpeculationConfig(adaptive=False, min_ngram=1)))
    heard = run(engine, [request([5, 6] * 10, max_tokens=40)])["r"]
    assert isinstance(heard.last, RequestEnd)
    usage = heard.last.usage
    assert usage.completion_tokens == 40 and 0 < usage.accepted_tokens <= usage.drafted_tokens
    # Accepted tokens are steps saved.
    assert engine.stats().steps == 40 - usage.accepted_tokens
    stats = engine.stats()
    assert (stats.drafted_tokens, stats.accepted_tokens) == (usage.drafted_tokens, usage.accepted_tokens)


def test_what_speculation_accepted_is_cached_for_the_next_turn():
    model = tiny_llama()
    cached = []
    for config in (plain(block_tokens=4), EngineConfig(block_tokens=4, speculation=SpeculationConfig(adaptive=False))):
        engine = Engine(model, config)
        tokens = run(engine, [request([5, 6] * 10, max_tokens=21)])["r"].tokens[0]
        last = run(engine, [request([5, 6] * 10 + tokens + [1, 2, 3])])["r"].last
        assert isinstance(last, RequestEnd)
        cached.append(last.usage.cached_tokens)
    assert cached[0] == cached[1] == 40


@pytest.mark.parametrize(
    "bad", [{"max_tokens": -1}, {"min_ngram": 0}, {"min_ngram": 5, "max_ngram": 4}, {"row_cost": 2}]
)
def test_settings_that_make_no_sense_are_refused(bad: dict):
    with pytest.raises(ConfigError):
        SpeculationConfig(**bad)
