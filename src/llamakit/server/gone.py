"""Work that ends when nobody waits for it any more: the client left, or the server must stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from llamakit.core.errors import EngineStopped

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection; whatever would be sent reaches nobody."""


class Drain:
    """The answers in work, so that those that outlast the time to stop can be ended and told so."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.is_stopping = False
        """True once the server was asked to stop; running answers go on until `cut`."""
        self.is_cut = False

    @property
    def num_running(self) -> int:
        """Answers in work."""
        return len(self._running)

    def stop(self) -> None:
        """The server was asked to stop."""
        self.is_stopping = True

    def cut(self) -> None:
        """End what still runs: each answer fails with `EngineStopped`."""
        self.is_stopping = self.is_cut = True
        for task in self._running:
            task.cancel()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Count `task` while it runs."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)


async def while_wanted(work: Coroutine[Any, Any, T], receive: Receive, drain: Drain) -> T:
    """The result of `work`, which is cancelled, and has ended, before this raises.

    Raises `ClientGone` when the client left and `EngineStopped` when the server stops first. The request's
    body must have been read.
    """
    task = asyncio.ensure_future(work)
    drain.add(task)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            if task.cancelled() and drain.is_cut:
                raise EngineStopped("the server is stopping; send the request again")
            return task.result()
        # Waiting for the client may itself have failed: because what let it in has ended.
        watcher.result()
        raise ClientGone
    finally:
        for one in (watcher, task):
            if not one.done():
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await one
            elif not one.cancelled():
                one.exception()  # both may have failed at once; what the other had to say has been looked at


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
