"""The loop learns, goes on exactly where it stopped, and sees documents alone."""

from __future__ import annotations

import random

import pytest
import torch

from llamakit.core.errors import CheckpointError, ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.data.conversations import Document
from llamakit.data.packing import Row, pack
from llamakit.models.llama import Llama, build, initialize
from llamakit.training.greedy import greedy
from llamakit.training.loader import Cursor, batches, make_batch
from llamakit.training.loop import Trunk
from llamakit.training.optim import OptimConfig, Optimizers, schedule
from llamakit.training.recipes.pretrain import PretrainConfig, pretrain
from llamakit.training.state import load_state

CONFIG = ModelConfig(
    vocab_size=32,
    dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    ffn_dim=64,
    tie_embeddings=True,
    context_length=32,
)


def copy_rows(block: int) -> list[Row]:
    """Two ids, a separator, the same two ids: the second half can be learned."""
    rng = random.Random(block)
    documents = []
    for _ in range(64):
        word = [rng.randrange(4, 12) for _ in range(2)]
        documents.append(Document([1, *word, 2, *word, 3], [False] * 4 + [True] * 3))
    return pack(documents, (16, 32), pad_id=0)


def _config(tmp_path, num_steps: int, **changes) -> PretrainConfig:
    optim = OptimConfig(num_steps=num_steps, warmup_steps=5, matrix_lr=0.02, table_lr=1e-2)
    return PretrainConfig(out=tmp_path, model=CONFIG, optim=optim, batch_tokens=256, batches_per_step=1, **changes)


def _model() -> Llama:
    model = build(CONFIG, device="cpu")
    initialize(model, 0)
    return model


def test_loss_falls_and_the_copy_is_learned(tmp_path):
    lines: list[str] = []
    finished = pretrain(_config(tmp_path, 160), copy_rows, lambda cursor: False, lines.append)
    prompts = [[1, a, b, 2] for a in range(4, 12) for b in range(4, 12)]
    answers = greedy(finished.model, prompts, (3,), max_new=4)
    right = sum(answer == prompt[1:3] for prompt, answer in zip(prompts, answers, strict=True))
    assert right >= 60, f"{right} of 64 copies, log {lines}"
    assert finished.totals.tokens > finished.totals.targets > 0


def test_a_run_that_was_interrupted_ends_bit_for_bit_like_one_that_was_not(tmp_path, monkeypatch):
    whole = pretrain(_config(tmp_path / "whole", 12), copy_rows, lambda cursor: cursor.block == 0, lambda line: None)

    class Killed(Exception):
        pass

    def rows_that_end(block: int) -> list[Row]:
        if block == 1:
            raise Killed
        return copy_rows(block)

    broken = _config(tmp_path / "broken", 12, save_every_s=0.0)
    with pytest.raises(Killed):
        pretrain(broken, rows_that_end, lambda cursor: cursor.block == 0, lambda line: None)
    again = pretrain(broken, copy_rows, lambda cursor: cursor.block == 0, lambda line: None)
    assert (again.totals.tokens, again.cursor) == (whole.totals.tokens, whole.cursor)
    for (name, one), (_, other) in zip(whole.model.state_dict().items(), again.model.state_dict().items(), strict=True):
        assert torch.equal(one, other), name


def test_a_state_of_another_shape_is_refused(tmp_path):
    pretrain(_config(tmp_path, 6), copy_rows, lambda cursor: False, lambda line: None)
    other = build(ModelConfig(**{**{f: getattr(CONFIG, f) for f in CONFIG.__slots__}, "ffn_dim": 96}), device="cpu")
    initialize(other, 0)
    with pytest.raises(CheckpointError, match="not of this model"):
        load_state(tmp_path / "state", other, Optimizers(other, OptimConfig(num_steps=30)))


def test_nothing_of_a_state_is_pickled(tmp_path):
    pretrain(_config(tmp_path, 6), copy_rows, lambda cursor: False, lambda line: None)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"state.safetensors", "state.json"}


def test_packing_does_not_change_the_loss():
    documents = [Document([1, a, 5, 2, a, 5, 3], [False] * 4 + [True] * 3) for a in range(4, 8)]
    trunk = Trunk(_model(), compiled=False)
    alone = sum(trunk.loss_sum(make_batch(pack([d], (16,), 0), all_tokens=False)).item() for d in documents)
    together = trunk.loss_sum(make_batch(pack(documents, (32,), 0), all_tokens=False)).item()
    assert together == pytest.approx(alone, rel=2e-2)  # bf16 products


def test_targets_are_the_assistants_tokens_and_never_cross_documents():
    rows = pack([Document([1, 7, 8], [False, False, True]), Document([1, 9, 6], [False, False, True])], (8,), pad_id=0)
    batch = make_batch(rows, all_tokens=False)
    assert sorted(batch.targets_M.tolist()) == [6, 8]
    everything = make_batch(rows, all_tokens=True)
    assert sorted(everything.targets_M.tolist()) == [6, 7, 8, 9]
    assert batch.num_tokens == 6


def test_batches_go_on_from_any_cursor():
    def take(start: Cursor, count: int) -> list[list[int]]:
        source = batches(copy_rows, batch_tokens=64, seed=1, all_tokens=lambda cursor: False, start=start)
        return [next(source)[0].ids_BT.flatten().tolist() for _ in range(count)]

    source = batches(copy_rows, batch_tokens=64, seed=1, all_tokens=lambda cursor: False)
    cursors = [next(source)[1] for _ in range(20)]
    whole = take(Cursor(), 24)
    assert cursors[-1].block > 0
    for at in (0, 3, 11, 19):
        assert take(cursors[at], 3) == whole[at + 1 : at + 4]


def test_greedy_does_not_depend_on_the_batch():
    model = _model()
    prompts = [[1, 4, 5, 2], [1, 6, 2], [1, 7, 8, 9, 10, 2]]
    together = greedy(model, prompts, (3,), max_new=6)
    assert together == [greedy(model, [prompt], (3,), max_new=6)[0] for prompt in prompts]


def test_schedule_warms_up_holds_and_ends_at_zero():
    config = OptimConfig(num_steps=100, warmup_steps=10, decay_share=0.5)
    factors = [schedule(config, step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[49] == 1.0
    assert factors[75] == pytest.approx(0.5) and factors[100] == 0.0


def test_schedule_of_a_run_that_goes_on():
    config = OptimConfig(num_steps=300, warmup_steps=10, decay_share=0.5, restarts=((100, 0.6),))
    first = OptimConfig(num_steps=100, warmup_steps=10, decay_share=0.5)
    assert [schedule(config, step) for step in range(100)] == [schedule(first, step) for step in range(100)]
    assert schedule(config, 100) == pytest.approx(0.06) and schedule(config, 200) == pytest.approx(0.3)
    assert schedule(config, 300) == 0.0
    with pytest.raises(ConfigError, match="restarts must rise"):
        OptimConfig(num_steps=50, restarts=((60, 0.5),))


def test_bad_rates_are_refused():
    with pytest.raises(ConfigError, match="positive"):
        OptimConfig(matrix_lr=0.0)
    with pytest.raises(ConfigError, match="warmup_steps below num_steps"):
        OptimConfig(num_steps=10, warmup_steps=10)
