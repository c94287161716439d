"""Rounds are made again and again, whatever became of the last."""

from __future__ import annotations

import asyncio
import logging

import pytest

from llamakit.core.errors import StorageFull
from llamakit.stack.housekeeping import Housekeeping
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import TEMPORARY, Storage


@pytest.mark.parametrize("fault", [StorageFull("the disk is full"), KeyError("a bug")])
async def test_a_round_that_fails_is_told_and_made_again(fault, caplog):
    logging.getLogger("llamakit").propagate = True
    storage = Storage(TEMPORARY, STEPS)
    rounds, made = Housekeeping(storage), asyncio.Event()
    outcomes = [fault, 3]

    async def round() -> int:
        outcome = outcomes.pop(0) if outcomes else 0
        if isinstance(outcome, Exception):
            raise outcome
        made.set()
        return outcome

    rounds.every(0.01, "tests", round)
    with caplog.at_level(logging.INFO, "llamakit"):
        await rounds.start()
        await rounds.start()
        await asyncio.wait_for(made.wait(), 5)
    await rounds.aclose()
    await rounds.aclose()
    await storage.aclose()
    said = [record.getMessage() for record in caplog.records if "tests" in record.getMessage()]
    assert "will be made again" in said[0] and any("3 went: tests" in line for line in said)
