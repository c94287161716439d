"""Several streams as one: events as they come, each with the position of its stream.

At most `width` streams are read at a time. Nothing is kept ahead: a stream waits until its event was taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """A stream is over, well or by a failure."""

    fault: Exception | None


async def merged(streams: Sequence[AsyncGenerator[T, None]], width: int) -> AsyncGenerator[tuple[int, T], None]:
    """Events of all streams; the first failure of one ends all. Every stream is closed in the end."""
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]) as only:
            async for event in only:
                yield 0, event
        return
    queue: asyncio.Queue[tuple[int, T] | _End] = asyncio.Queue(maxsize=1)
    places = asyncio.Semaphore(width)
    tasks = [asyncio.ensure_future(_pump(n, stream, queue, places)) for n, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.fault is not None:
                raise item.fault
            else:
                left -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def _pump(
    position: int,
    stream: AsyncGenerator[T, None],
    queue: asyncio.Queue[tuple[int, T] | _End],
    places: asyncio.Semaphore,
) -> None:
    try:
        async with places, contextlib.aclosing(stream) as events:
            async for event in events:
                await queue.put((position, event))
    except Exception as fault:  # noqa: BLE001 - raised again by whoever reads the queue
        await queue.put(_End(fault))
    else:
        await queue.put(_End(None))
