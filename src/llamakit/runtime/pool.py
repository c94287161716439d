"""Several models by name: loaded when first asked for, kept while used, unloaded when idle.

Async side of the runtime: one lock a model while it loads, a count of users while it answers. Loading
itself runs on a worker thread. Knows names and leases, not prompts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from llamakit.core.errors import ConfigError, EngineStopped, Overloaded
from llamakit.runtime.llm import LLM

log = logging.getLogger(__name__)

FOREVER = -1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """How many models stay in memory and for how long."""

    keep_alive_s: float = 300.0
    """Seconds a model stays loaded after its last request; -1 keeps it, 0 unloads at once."""
    max_loaded: int = 3
    """Models in memory at once; the longest idle one makes room."""

    def __post_init__(self) -> None:
        if self.max_loaded < 1:
            raise ConfigError(f"max_loaded must be at least 1, got {self.max_loaded}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model in memory, as `llama ps` shows it."""

    name: str
    weights_bytes: int
    cache_bytes: int
    context: int
    users: int
    expires_in_s: float | None
    """None: stays until told otherwise."""


@dataclass
class _Slot:
    name: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    llm: LLM | None = None
    users: int = 0
    idle_since: float = 0.0
    keep_alive_s: float = 300.0
    leaving: bool = False
    """Asked to go while in use."""


class ModelPool:
    """Leases models by name. `load(name)` makes an LLM and runs on a worker thread."""

    def __init__(
        self,
        load: Callable[[str], LLM],
        config: PoolConfig | None = None,
        *,
        canonical: Callable[[str], str] = lambda name: name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._config = config or PoolConfig()
        self._canonical = canonical
        self._clock = clock
        self._slots: dict[str, _Slot] = {}
        self._reaper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lease(self, name: str, *, keep_alive_s: float | None = None) -> AsyncIterator[LLM]:
        """The model, loaded, and not unloaded before the block ends; raises what loading raises."""
        slot = self._slot(self._canonical(name))
        slot.users += 1
        try:
            yield await self._ready(slot)
        finally:
            slot.users -= 1
            slot.keep_alive_s = self._config.keep_alive_s if keep_alive_s is None else keep_alive_s
            if slot.leaving:
                slot.keep_alive_s = 0.0
            slot.idle_since = self._clock()
            self._wake_reaper()

    async def load(self, name: str, *, keep_alive_s: float | None = None) -> None:
        """Have the model in memory."""
        async with self.lease(name, keep_alive_s=keep_alive_s):
            pass

    async def unload(self, name: str) -> bool:
        """Drop an idle model now; True if it was loaded. One in use goes as soon as its last request ends."""
        slot = self._slots.get(self._canonical(name))
        if slot is None or slot.llm is None:
            return False
        if slot.users:
            slot.leaving = True
        else:
            await self._drop(slot)
        return True

    def status(self) -> list[Loaded]:
        """Models in memory, in the order they were loaded."""
        now = self._clock()
        return [
            Loaded(
                name=slot.name,
                weights_bytes=slot.llm.weights_bytes,
                cache_bytes=slot.llm.cache_bytes,
                context=slot.llm.context,
                users=slot.users,
                expires_in_s=None
                if slot.users or slot.keep_alive_s < 0
                else max(0.0, slot.idle_since + slot.keep_alive_s - now),
            )
            for slot in self._slots.values()
            if slot.llm is not None
        ]

    def loaded(self) -> list[LLM]:
        """The models in memory."""
        return [slot.llm for slot in self._slots.values() if slot.llm is not None]

    async def close(self) -> None:
        """Unload everything; requests that still run end with an error."""
        if self._reaper is not None:
            self._reaper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reaper
            self._reaper = None
        for slot in list(self._slots.values()):
            await self._drop(slot, even_in_use=True)

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            self._slots[name] = _Slot(name=name, keep_alive_s=self._config.keep_alive_s)
        return self._slots[name]

    async def _ready(self, slot: _Slot) -> LLM:
        async with slot.lock:
            if slot.llm is not None and slot.llm.failure is not None:
                log.warning("restarting the engine of %s after: %s", slot.name, slot.llm.failure)
                await self._close(slot)
            if slot.llm is None:
                await self._make_room(slot)
                try:
                    slot.llm = await asyncio.to_thread(self._load, slot.name)
                except BaseException:
                    if slot.users <= 1:
                        self._slots.pop(slot.name, None)
                    raise
            if slot.llm is None:
                raise EngineStopped(f"{slot.name} was unloaded while it loaded; ask again")
            return slot.llm

    async def _make_room(self, newcomer: _Slot) -> None:
        loaded = [slot for slot in self._slots.values() if slot.llm is not None and slot is not newcomer]
        if len(loaded) < self._config.max_loaded:
            return
        idle = sorted((slot for slot in loaded if not slot.users), key=lambda slot: slot.idle_since)
        if not idle:
            busy = ", ".join(slot.name for slot in loaded)
            raise Overloaded(
                f"{newcomer.name} has no room: {len(loaded)} models are loaded and busy ({busy}), "
                f"{self._config.max_loaded} are allowed; try again, or raise max_loaded"
            )
        await self._drop(idle[0])

    async def _drop(self, slot: _Slot, *, even_in_use: bool = False) -> None:
        async with slot.lock:
            # Somebody may have taken a lease while this waited for the lock.
            if even_in_use or not slot.users:
                await self._close(slot)
        if not slot.users:
            self._slots.pop(slot.name, None)

    @staticmethod
    async def _close(slot: _Slot) -> None:
        llm, slot.llm, slot.leaving = slot.llm, None, False
        if llm is not None:
            await asyncio.to_thread(llm.close)

    def _wake_reaper(self) -> None:
        self._changed.set()
        if self._reaper is None or self._reaper.done():
            self._reaper = asyncio.create_task(self._reap(), name="llamakit-idle-models")

    async def _reap(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock()
            waits = []
            for slot in list(self._slots.values()):
                if slot.llm is None or slot.users or slot.keep_alive_s < 0:
                    continue
                left = slot.idle_since + slot.keep_alive_s - now
                if left <= 0:
                    log.info("unloading %s after %.0f s without a request", slot.name, slot.keep_alive_s)
                    await self._drop(slot)
                else:
                    waits.append(left)
            if not any(slot.llm is not None for slot in self._slots.values()):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(waits, default=None)):
                    await self._changed.wait()
