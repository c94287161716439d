"""The events of a background response: numbered, written ahead in batches, and matched when computed again.

At most what came within `FLUSH_S` is lost with a killed process, and none of it had been shown to a reader.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from llamakit.api.openai_response_writer import cut_status
from llamakit.core.errors import EngineStopped

Event = dict[str, Any]
Flush = Callable[[Sequence[Event]], Awaitable[None]]

FLUSH_S = 0.1
MAX_BATCH = 256


def number(event: Event, at: int) -> Event:
    """The event with its place in the stream, beside its type."""
    return {"type": event["type"], "sequence_number": at, **event}


class Watchers:
    """Readers of this process who wait for a response to go on."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, id: str) -> None:
        """Something was written of a response."""
        for event in self._waiting.get(id, ()):
            event.set()

    async def wait(self, id: str, timeout_s: float) -> None:
        """Until something is written of it here, or the time is over: another process may have written."""
        event = asyncio.Event()
        self._waiting[id].add(event)
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]


class EventLog:
    """Numbers events from `first` on and hands them on in batches."""

    def __init__(self, flush: Flush, *, first: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._flush = flush
        self._next = first
        self._clock = clock
        self._batch: list[Event] = []
        self._flushed = clock()

    async def write(self, event: Event) -> None:
        """The next event; returns after the batch it completed is kept."""
        self.append(event)
        if len(self._batch) >= MAX_BATCH or self._clock() - self._flushed >= FLUSH_S:
            await self._flush(self.take())

    def append(self, event: Event) -> None:
        """The next event, to be kept by whoever takes the batch."""
        self._batch.append(number(event, self._next))
        self._next += 1

    def take(self) -> list[Event]:
        """What is not kept yet."""
        batch, self._batch = self._batch, []
        self._flushed = self._clock()
        return batch


class Replay:
    """Passes on what comes after the events that are kept; those it has seen must come again as they were.

    Text may be cut into other pieces the second time, since how many tokens a step yields depends on company.
    """

    def __init__(self, kept: Iterable[Event]) -> None:
        self._left: deque[Event] = deque()
        for event in kept:
            self._expect({name: value for name, value in event.items() if name != "sequence_number"})

    def new_part(self, event: Event) -> Event | None:
        """What of the event is new; raises `EngineStopped` where it is not what was kept."""
        if not self._left:
            return event
        kept = self._left[0]
        if _is_empty(event):
            return None
        if _stretch(event) is not None and _stretch(event) == _stretch(kept):
            return self._new_text(event, kept)
        if event != kept:
            raise EngineStopped(
                "the server was stopped while it made this response, and what it computed again differs from what "
                "was sent before; send the request again"
            )
        self._left.popleft()
        return None

    def _new_text(self, event: Event, kept: Event) -> Event | None:
        text, known = event["delta"], kept["delta"]
        if known.startswith(text):
            kept["delta"] = known[len(text) :]
            if not kept["delta"]:
                self._left.popleft()
            return None
        if text.startswith(known) and len(self._left) == 1:
            self._left.popleft()
            return event | {"delta": text[len(known) :]}
        raise EngineStopped("the text computed again differs from what was sent before; send the request again")

    def _expect(self, event: Event) -> None:
        last = self._left[-1] if self._left else None
        if _is_empty(event):
            return
        if last is not None and _stretch(event) is not None and _stretch(event) == _stretch(last):
            last["delta"] += event["delta"]
        else:
            self._left.append(event)


def partial_output(kept: Iterable[Event]) -> list[dict[str, Any]]:
    """The items that events tell of: those that ended, and what had been written of those that had not."""
    items: dict[int, dict[str, Any]] = {}
    for event in kept:
        position: int = event.get("output_index", -1)
        match event["type"]:
            case "response.output_item.added" | "response.output_item.done":
                items[position] = event["item"]
            case "response.content_part.added":
                items[position]["content"] = [event["part"]]
            case "response.output_text.delta":
                items[position]["content"][0]["text"] += event["delta"]
            case "response.function_call_arguments.delta" | "response.mcp_call_arguments.delta":
                items[position]["arguments"] += event["delta"]
    for item in items.values():
        if item.get("status") == "in_progress":
            item["status"] = cut_status(item)
    return [items[position] for position in sorted(items)]


def _is_empty(event: Event) -> bool:
    """Whether it is a piece without text, which a second time may come elsewhere or not at all."""
    return _stretch(event) is not None and not event["delta"]


def _stretch(event: Event) -> tuple[Any, ...] | None:
    """What a piece of text belongs to; None for an event that is no piece."""
    if not event["type"].endswith(".delta") or not isinstance(event["delta"], str):
        return None
    place = event.get("item_id", event.get("output_index"))  # a command of a shell tells its place alone
    return (event["type"], place, event.get("content_index"), event.get("command_index"))
