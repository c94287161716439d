"""The draft model beside the large one: what it reads, how often, and that it is only ever a guess."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.engine.driving import plain, request, run

from llamakit.core.errors import ConfigError
from llamakit.engine.batch import Piece
from llamakit.engine.config import EngineConfig, SpeculationConfig
from llamakit.engine.engine import Engine
from llamakit.models.llama import Llama

ALWAYS = SpeculationConfig(max_tokens=4, adaptive=False)


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny_llama()


class Ear:
    """Counts what the draft model reads."""

    def __init__(self, engine: Engine) -> None:
        self.reads: list[list[Piece]] = []
        runner = engine._runners[1]
        plain_hidden = runner.hidden

        def hidden(pieces):
            self.reads.append(list(pieces))
            return plain_hidden(pieces)

        runner.hidden = hidden  # type: ignore[method-assign]

    @property
    def num_tokens(self) -> int:
        return sum(len(piece.ids) for pieces in self.reads for piece in pieces)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_model_like_the_large_one_is_always_right(model: Llama, temperature: float):
    engine = Engine(model, EngineConfig(speculation=ALWAYS), draft=model)
    heard = run(engine, [request(range(20), max_tokens=31, temperature=temperature, seed=1)])["r"]
    assert len(heard.tokens[0]) == 31
    stats = engine.stats()
    assert stats.drafted_tokens == stats.accepted_tokens
    assert stats.steps == 1 + 6  # The prompt's token, then five a step.


def test_a_smaller_draft_model_has_its_own_shape(model: Llama):
    draft = tiny_llama(seed=3, dim=32, num_layers=1, num_heads=2, num_kv_heads=1, ffn_dim=48)
    wish = request(range(20), max_tokens=20, temperature=1.0, seed=1)
    heard = run(Engine(model, EngineConfig(speculation=ALWAYS), draft=draft), [wish])["r"]
    assert heard.outcome == run(Engine(model, plain()), [wish])["r"].outcome


def test_another_vocabulary_is_refused(model: Llama):
    with pytest.raises(ConfigError, match="321"):
        Engine(model, draft=tiny_llama(vocab_size=321))


def test_every_token_is_read_once(model: Llama):
    engine = Engine(model, EngineConfig(speculation=ALWAYS), draft=model)
    ear = Ear(engine)
    run(engine, [request(range(50), max_tokens=30, temperature=1.0, seed=1)])
    # All but the last proposal of each step: the one token it then needs to catch up.
    assert ear.num_tokens == 50 + 30 - 2


def test_a_shared_prompt_is_read_once(model: Llama):
    engine = Engine(model, EngineConfig(speculation=ALWAYS, block_tokens=16), draft=model)
    ear = Ear(engine)
    run(engine, [request(range(64), n=4, max_tokens=10, temperature=1.0, seed=1)])
    assert ear.num_tokens < 64 + 4 * 12
    before = ear.num_tokens
    run(engine, [request([*range(64), 9, 9], max_tokens=10)])
    assert ear.num_tokens - before < 24


def test_reading_is_spread_over_steps(model: Llama):
    config = EngineConfig(speculation=ALWAYS, max_batch_tokens=32, max_sequences=8)
    engine = Engine(model, config, draft=model)
    ear = Ear(engine)
    heard = run(engine, [request(range(100), max_tokens=20)])["r"]
    assert len(heard.tokens[0]) == 20
    assert max(sum(len(piece.ids) for piece in pieces) for pieces in ear.reads) <= 32


def test_the_cache_is_shared_out_between_both(model: Llama):
    per_token = model.config.kv_bytes_per_token(4)
    alone = Engine(model, plain(cache_bytes=per_token * 160))
    both = Engine(model, EngineConfig(cache_bytes=per_token * 160), draft=model)
    assert (alone.stats().blocks_total, both.stats().blocks_total) == (10, 5)


def test_a_draft_model_that_gives_no_numbers_does_no_harm(model: Llama):
    draft = tiny_llama()
    with torch.no_grad():
        draft.model.norm.weight.fill_(float("nan"))
    engine = Engine(model, EngineConfig(speculation=ALWAYS), draft=draft)
    wish = request(range(20), max_tokens=10)
    assert run(engine, [wish])["r"].outcome == run(Engine(model, plain()), [wish])["r"].outcome
    assert engine.stats().drafted_tokens == 0
