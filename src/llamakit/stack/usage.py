"""What each key used lately, in the database, so that every server process and every restart counts on.

One row a meter, changed by compare-and-set. Requests are taken in advance in small leases, so that no two processes
hand out the same ones and most requests touch no database; a lease holds only in the step in which it was counted.
Tokens and bytes are known afterwards: they are written within a second, or with the next lease.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llamakit.core.errors import Conflict, LlamakitError, Overloaded
from llamakit.stack.access import KeyLimits
from llamakit.stack.storage import Storage
from llamakit.stack.windows import DAY, MINUTE, Window
from llamakit.storage.sql import Database, Executor

log = logging.getLogger(__name__)

FLUSH_S = 1.0
"""Seconds after which tokens and bytes are written at the latest, and what is known of other processes is old."""
SHARES = 20
"""A lease is at most this part of a limit, so that an idle process strands little."""
MAX_TRIES = 10
IDLE_S = 300.0
"""Seconds after which a meter that nobody used is dropped from memory; its row stays."""
CROWD = 10_000
"""Meters in memory from which on idle ones are looked for."""
REFUSAL_S = 0.5
"""Seconds for which a refusal is repeated without asking the database again."""

# SQLite's processes share a machine and its clock; servers on PostgreSQL may not, so there the database's clock counts.
# It takes the parameter too, since both spellings must have the same ones.
_CLOCK_MS = {
    "sqlite": "CAST(?2 AS BIGINT)",
    "postgres": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + 0 * CAST(?2 AS BIGINT)",
}


async def create_usage(transaction: Executor) -> None:
    """The migration that makes the table of what keys used."""
    await transaction.execute(
        "CREATE TABLE key_usage (meter TEXT NOT NULL PRIMARY KEY, rev BIGINT NOT NULL, state TEXT NOT NULL, "
        "touched_ms BIGINT NOT NULL)"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """How far a meter is from its limits."""

    remaining_requests: int | None
    remaining_tokens: int | None
    reset_requests_s: float
    reset_tokens_s: float
    fault: str | None = None
    """Which limit is reached, in words; None where there is room."""
    retry_after_s: float = 0.0


@dataclass(slots=True)
class _Meter:
    """What this process knows of one key."""

    requests: Window = field(default_factory=lambda: Window(MINUTE))
    tokens: Window = field(default_factory=lambda: Window(MINUTE))
    bytes: Window = field(default_factory=lambda: Window(DAY))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    lease: int = 0
    lease_now: float = 0.0
    taken: int = 0
    """Requests let in during the step of the lease."""
    waiting: int = 0
    new_tokens: int = 0
    new_bytes: int = 0
    synced: float = float("-inf")
    touched: float = 0.0


class UsageBook:
    """The meters of one server."""

    def __init__(
        self,
        storage: Storage,
        *,
        wall: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._wall = wall
        self._ticks = ticks
        self._ahead_s = wall() - ticks()
        self._meters: dict[str, _Meter] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._has_swept = False
        self._crowd = CROWD

    async def enter(self, name: str, limits: KeyLimits, announced_bytes: int = 0) -> Room:
        """Count one request, or say which limit keeps it out; raises `StorageError` where nothing can be counted."""
        meter = self._meter(name)
        while True:
            if self._is_known(meter, limits):
                room = self._room(meter, limits, announced_bytes)
                if room.fault is not None or limits.requests_per_minute is None:
                    return room
                if self._has_lease(meter):
                    meter.lease -= 1
                    meter.taken += 1
                    return self._room(meter, limits, 0, entered=True)
                if self._ticks() - meter.synced < REFUSAL_S and room.remaining_requests == 0:
                    return self._refused(meter, limits)
            meter.waiting += 1
            try:
                async with meter.lock:
                    if not self._is_known(meter, limits) or not self._has_lease(meter):
                        await self._sync(name, meter, limits)
            finally:
                meter.waiting -= 1

    def charge(self, name: str, limits: KeyLimits, *, tokens: int = 0, bytes: int = 0) -> None:
        """Count what a request turned out to need."""
        tokens = tokens if limits.tokens_per_minute is not None else 0
        bytes = bytes if limits.bytes_per_day is not None else 0
        if not tokens and not bytes:
            return
        meter = self._meter(name)
        meter.new_tokens += tokens
        meter.new_bytes += bytes
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_later(), name="usage of keys")

    async def aclose(self) -> None:
        """Write what is not written yet; requests that were taken in advance are given back."""
        if self._flusher is not None and not self._flusher.done():
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self._flush(everything=True)

    def _meter(self, name: str) -> _Meter:
        """The meter of a key; idle ones leave when there are many."""
        if name not in self._meters and len(self._meters) >= self._crowd:
            self._drop_idle()
            self._crowd = max(CROWD, 2 * len(self._meters))
        meter = self._meters.setdefault(name, _Meter())
        meter.touched = self._ticks()
        return meter

    def _drop_idle(self) -> None:
        for name, meter in list(self._meters.items()):
            is_idle = self._ticks() - meter.touched > IDLE_S
            if is_idle and not (meter.waiting or meter.new_tokens or meter.new_bytes):
                del self._meters[name]

    def _now(self) -> float:
        """Seconds since 1970 by the clock of the database, moved on by our own monotonic one."""
        return self._ticks() + self._ahead_s

    def _is_known(self, meter: _Meter, limits: KeyLimits) -> bool:
        """Whether what other processes wrote is known well enough."""
        age = self._ticks() - meter.synced
        if limits.tokens_per_minute is None and limits.bytes_per_day is None:
            return age < MINUTE.window_s
        return age < FLUSH_S

    def _has_lease(self, meter: _Meter) -> bool:
        return meter.lease > 0 and MINUTE.step_of(self._now()) == MINUTE.step_of(meter.lease_now)

    def _room(self, meter: _Meter, limits: KeyLimits, announced: int, *, entered: bool = False) -> Room:
        now = self._now()
        lease = meter.lease if self._has_lease(meter) else 0
        requests = max(0, (limits.requests_per_minute or 0) - meter.requests.used(now) + lease)
        tokens = max(0, (limits.tokens_per_minute or 0) - meter.tokens.used(now) - meter.new_tokens)
        fault, wait = None, 0.0
        if limits.tokens_per_minute is not None and tokens == 0 and not entered:
            fault = f"{limits.tokens_per_minute} tokens a minute"
            wait = meter.tokens.wait_s(1 + meter.new_tokens, limits.tokens_per_minute, now)
        if limits.bytes_per_day is not None and not entered:
            used = meter.bytes.used(now) + meter.new_bytes
            if used >= limits.bytes_per_day or used + announced > limits.bytes_per_day:
                fault = f"{limits.bytes_per_day} bytes a day"
                wait = max(wait, meter.bytes.wait_s(max(1, announced) + meter.new_bytes, limits.bytes_per_day, now))
        return Room(
            remaining_requests=None if limits.requests_per_minute is None else requests,
            remaining_tokens=None if limits.tokens_per_minute is None else tokens,
            reset_requests_s=meter.requests.empty_in_s(now),
            reset_tokens_s=meter.tokens.empty_in_s(now),
            fault=fault,
            retry_after_s=wait,
        )

    def _refused(self, meter: _Meter, limits: KeyLimits) -> Room:
        now, limit = self._now(), limits.requests_per_minute or 0
        return Room(
            remaining_requests=0,
            remaining_tokens=self._room(meter, limits, 0).remaining_tokens,
            reset_requests_s=meter.requests.empty_in_s(now),
            reset_tokens_s=meter.tokens.empty_in_s(now),
            fault=f"{limit} requests a minute",
            retry_after_s=meter.requests.wait_s(1, limit, now),
        )

    async def _sync(self, name: str, meter: _Meter, limits: KeyLimits | None) -> None:
        """Bring the row and this process together: write what is new, give back, take a lease, read the rest."""
        tokens, sent = meter.new_tokens, meter.new_bytes
        # Taken out of reach before the first wait: what is given back must not be used meanwhile. Where writing
        # fails it stays counted, since nobody knows whether the database has it.
        back, meter.lease = meter.lease, 0
        database = await self._storage.database()
        await self._forget_old(database)
        for attempt in range(MAX_TRIES):
            rev, state = await self._read(database, name)
            now = self._now()
            requests = Window.read(MINUTE, state.get("requests", {}))
            token_window = Window.read(MINUTE, state.get("tokens", {}))
            byte_window = Window.read(DAY, state.get("bytes", {}))
            if back and MINUTE.step_of(meter.lease_now) in requests.steps:
                requests.add(-back, meter.lease_now)
            token_window.add(tokens, now)
            byte_window.add(sent, now)
            granted = self._grant(meter, limits, requests, now)
            requests.add(granted, now)
            for window in (requests, token_window, byte_window):
                window.forget(now)
            made = {
                "requests": requests.written(),
                "tokens": token_window.written(),
                "bytes": byte_window.written(),
            }
            if made == state or await self._write(database, name, rev, made):
                break
            await asyncio.sleep(0.002 * 2**attempt)
        else:
            raise Overloaded("too many requests of one key are being counted at once; try again in a moment")
        if MINUTE.step_of(meter.lease_now) != MINUTE.step_of(now):
            meter.taken = 0
        meter.requests, meter.tokens, meter.bytes = requests, token_window, byte_window
        meter.new_tokens -= tokens
        meter.new_bytes -= sent
        meter.lease, meter.lease_now = granted, now
        meter.synced = self._ticks()

    def _grant(self, meter: _Meter, limits: KeyLimits | None, requests: Window, now: float) -> int:
        """How many requests to take in advance: as many as came lately, and as fit."""
        if limits is None or limits.requests_per_minute is None:
            return 0
        is_same_step = MINUTE.step_of(meter.lease_now) == MINUTE.step_of(now)
        wish = max(meter.waiting, meter.taken if is_same_step else 0, 1)
        share = max(1, limits.requests_per_minute // SHARES, meter.waiting)
        return max(0, min(wish, share, limits.requests_per_minute - requests.used(now)))

    async def _read(self, database: Database, name: str) -> tuple[int | None, dict[str, dict[str, int]]]:
        rows = await database.fetch(
            f"SELECT key_usage.rev AS rev, key_usage.state AS state, clock.now_ms AS now_ms "
            f"FROM (SELECT {_CLOCK_MS[database.dialect]} AS now_ms) AS clock "
            "LEFT JOIN key_usage ON key_usage.meter = ?1",
            name,
            int(self._wall() * 1000),
        )
        self._ahead_s = rows[0]["now_ms"] / 1000 - self._ticks()
        rev = rows[0]["rev"]
        return rev, {} if rev is None else json.loads(rows[0]["state"])

    async def _write(self, database: Database, name: str, rev: int | None, state: dict[str, dict[str, int]]) -> bool:
        """Write over what was read; False where another process was faster."""
        values = (json.dumps(state), int(self._now() * 1000), name)
        if rev is not None:
            changed = await database.execute(
                "UPDATE key_usage SET state = ?1, touched_ms = ?2, rev = rev + 1 WHERE meter = ?3 AND rev = ?4",
                *values,
                rev,
            )
            return changed == 1
        try:
            await database.execute(
                "INSERT INTO key_usage (state, touched_ms, meter, rev) VALUES (?1, ?2, ?3, 1)", *values
            )
        except Conflict:
            return False
        return True

    async def _forget_old(self, database: Database) -> None:
        """Once a process: remove the rows of keys that nobody used for so long that nothing of them counts."""
        if not self._has_swept:
            self._has_swept = True
            old_ms = int((self._now() - 2 * DAY.window_s) * 1000)
            await database.execute("DELETE FROM key_usage WHERE touched_ms < ?1", old_ms)

    async def _flush_later(self) -> None:
        while any(meter.new_tokens or meter.new_bytes for meter in self._meters.values()):
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self, *, everything: bool = False) -> None:
        for name, meter in list(self._meters.items()):
            if meter.new_tokens or meter.new_bytes or (everything and meter.lease):
                try:
                    async with meter.lock:
                        await self._sync(name, meter, None)
                except LlamakitError as fault:
                    log.warning("what %s used could not be written down yet: %s", name, fault)
        self._drop_idle()
