"""Rounds that are made while a server runs: what has expired goes, and content that no row names any more.

Every round may be made by several servers on one database at the same time; a round that fails is told and made
again at its next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llamakit.core.errors import LlamakitError
from llamakit.stack.storage import Storage

log = logging.getLogger(__name__)

Round = Callable[[], Awaitable[int]]
"""Makes one round; how many things went."""

EXPIRY_S = 60.0
SWEEP_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Turn:
    name: str
    every_s: float
    round: Round


class Housekeeping:
    """The rounds of one server."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turns: list[_Turn] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.every(SWEEP_S, "content that nothing names", self.sweep)

    def every(self, seconds: float, name: str, round: Round) -> None:
        """Make a round at the start and then again and again; before the start."""
        self._turns.append(_Turn(name, seconds, round))

    async def start(self) -> None:
        """Make the rounds from now on; a second call does nothing."""
        await self._storage.blobs()  # opened before a round can be stopped in the middle of it
        if not self._tasks:
            self._tasks = [asyncio.create_task(_keep(turn), name=f"round: {turn.name}") for turn in self._turns]

    async def sweep(self) -> int:
        """Remove content that no file, part of an upload or file of a container names."""
        blobs, database = await self._storage.blobs(), await self._storage.database()
        rows = await database.fetch(
            "SELECT digest FROM files UNION SELECT digest FROM upload_parts UNION SELECT digest FROM container_files"
        )
        return await blobs.sweep({row["digest"] for row in rows})

    async def aclose(self) -> None:
        """Stop."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _keep(turn: _Turn) -> None:
    while True:
        try:
            if count := await turn.round():
                log.info("%d went: %s", count, turn.name)
        except LlamakitError as error:
            log.warning("the round for %s failed and will be made again: %s", turn.name, error)
        except Exception as error:
            log.error("the round for %s broke and will be made again", turn.name, exc_info=error)
        await asyncio.sleep(turn.every_s)
