from __future__ import annotations

import asyncio

import pytest

from llamakit.agents.loop import CallTools, ToolOutcome
from llamakit.agents.round import call_together
from llamakit.core.messages import ToolCall


def calls(*ids: str) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(id=id, name="add", arguments="{}") for id in ids)


async def test_calls_run_side_by_side_and_answer_in_order():
    together = asyncio.Barrier(3)

    async def run(wanted: ToolCall, seconds: float) -> ToolOutcome:
        await asyncio.wait_for(together.wait(), 5)
        return ToolOutcome(wanted.id)

    outcomes = await call_together(CallTools(calls("1", "2", "3"), 10.0), run)
    assert [outcome.text for outcome in outcomes] == ["1", "2", "3"]


async def test_cancelling_the_round_stops_every_call():
    stopped = []

    async def run(wanted: ToolCall, seconds: float) -> ToolOutcome:
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.append(wanted.id)
        return ToolOutcome("never")

    task = asyncio.create_task(call_together(CallTools(calls("1", "2"), 10.0), run))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(stopped) == ["1", "2"]


async def test_a_call_that_outlives_the_turn_is_told_as_late():
    async def run(wanted: ToolCall, seconds: float) -> ToolOutcome:
        await asyncio.sleep(3600)
        return ToolOutcome("never")

    (outcome,) = await call_together(CallTools(calls("1"), 0.05), run)
    assert outcome.is_error and "did not answer within" in outcome.text


async def test_a_time_out_of_the_tools_own_is_not_the_rounds():
    async def run(wanted: ToolCall, seconds: float) -> ToolOutcome:
        raise TimeoutError("somebody else's clock")

    with pytest.raises(ExceptionGroup):
        await call_together(CallTools(calls("1"), 10.0), run)
