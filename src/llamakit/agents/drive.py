"""Driving a turn: each need of the loop is handed to the coroutine that can meet it.

Calls of one batch run side by side; when the driver is cancelled, all of them are. Knows no model,
no tool and no wire: four callables are passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from llamakit.agents.loop import Approve, CallTools, Check, Ended, Infer, Inferred, Need, Reply, ToolOutcome, Turn
from llamakit.core.messages import ToolCall

MAX_PARALLEL = 16
Call = Callable[[ToolCall, float], Awaitable[ToolOutcome]]
"""One call within so many seconds; a failing tool is an outcome, what it raises ends the turn."""


async def nothing_to_say(check: Check) -> str | None:
    """The check of an agent without shields."""
    return None


async def nobody_to_ask(approve: Approve) -> Mapping[str, bool]:
    """The approval of a turn that ends and waits for the person's answer in the next request."""
    return {}


async def told_to_nobody(need: Need, reply: Reply) -> None:
    """The ear of a driver nobody listens to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """How needs are met."""

    infer: Callable[[Infer], Awaitable[Inferred]]
    call: Call
    check: Callable[[Check], Awaitable[str | None]] = nothing_to_say
    approve: Callable[[Approve], Awaitable[Mapping[str, bool]]] = nobody_to_ask
    tell: Callable[[Need, Reply], Awaitable[None]] = told_to_nobody
    """Told every need after it was met, in order: the steps of the turn."""


async def drive(turn: Turn, means: Means) -> Ended:
    """Run a turn to its end."""
    reply: Reply = None
    try:
        need = next(turn)
        while True:
            reply = await _met(need, means)
            await means.tell(need, reply)
            need = turn.send(reply)
    except StopIteration as end:
        return end.value
    finally:
        turn.close()


async def _met(need: Need, means: Means) -> Reply:
    match need:
        case Infer():
            return await means.infer(need)
        case Check():
            return await means.check(need)
        case Approve():
            return await means.approve(need)
        case CallTools():
            return await call_together(need, means.call)


async def call_together(need: CallTools, call: Call) -> list[ToolOutcome]:
    """The outcomes of a round of calls, run side by side, each within the time that is left."""
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
