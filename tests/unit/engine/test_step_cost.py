from __future__ import annotations

import random

import pytest

from llamakit.engine.step_cost import StepCost


def test_until_steps_differ_the_assumption_holds():
    cost = StepCost(0.03)
    assert cost.per_token == 0.03
    for _ in range(100):
        cost.add(4, 0.02)
    assert cost.per_token == pytest.approx(0.03)


@pytest.mark.parametrize("true", [0.005, 0.1, 0.4])
def test_the_line_is_found_through_noise(true: float):
    cost, draw = StepCost(0.03), random.Random(1)
    for _ in range(400):
        tokens = draw.randint(1, 24)
        cost.add(tokens, 0.02 * (1 + true * tokens) * draw.uniform(0.95, 1.05))
    assert cost.per_token == pytest.approx(true, rel=0.4, abs=0.004)


def test_it_follows_a_machine_that_changes():
    cost, draw = StepCost(0.03), random.Random(2)
    for true in (0.02, 0.3):
        for _ in range(400):
            tokens = draw.randint(1, 16)
            cost.add(tokens, 0.01 * (1 + true * tokens))
    assert cost.per_token == pytest.approx(0.3, rel=0.2)


def test_what_cannot_be_is_left_out_or_bounded():
    cost = StepCost(0.03)
    cost.add(1, 0.0)
    cost.add(1, -1.0)
    cost.add(10_000, 5.0)
    assert cost.per_token == 0.03
    for tokens in (1, 30) * 50:
        cost.add(tokens, 0.001 * tokens)
    assert cost.per_token <= 1.0
    falling = StepCost(0.03)
    for tokens in (1, 30) * 50:
        falling.add(tokens, 1.0 / tokens)
    assert 0.0 <= falling.per_token <= 1.0
