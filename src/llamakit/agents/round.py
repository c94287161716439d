"""A round of tool calls, run side by side within the time that is left of a turn.

When the round is cancelled, every call of it is. Knows no tool and no wire: who carries a call out is passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from llamakit.agents.loop import CallTools, ToolOutcome
from llamakit.core.messages import ToolCall

MAX_PARALLEL = 16
Call = Callable[[ToolCall, float], Awaitable[ToolOutcome]]
"""One call within so many seconds; a failing tool is an outcome, what it raises ends the round."""


async def call_together(need: CallTools, call: Call) -> list[ToolOutcome]:
    """The outcomes of the calls, in their order."""
    places = asyncio.Semaphore(MAX_PARALLEL)

    async def one(asked: ToolCall) -> ToolOutcome:
        async with places:
            deadline = asyncio.timeout(need.seconds)
            try:
                async with deadline:
                    return await call(asked, need.seconds)
            except TimeoutError:
                if not deadline.expired():
                    raise
                return ToolOutcome(f"the tool did not answer within {need.seconds:.0f} s", is_error=True)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(asked)) for asked in need.calls]
    return [task.result() for task in tasks]
