"""Who runs code in which container: leases, so that one server does at a time, of all on one database.

A lease is renewed as long as its holder lives, and ends by itself once that was killed. Knows the row of a container
and none of its files.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from llamakit.core.errors import LlamakitError, Overloaded
from llamakit.stack.storage import Storage

LEASE_S = 10.0
"""How long a server that was killed keeps others from a container that it ran code in."""
_RENEWALS = 4
"""Times a lease is renewed in the time it lasts."""
_LOOKS_S = (0.02, 0.2)
"""Seconds between two looks whether a container is free, at first and later."""
# What a condition on one container in use begins with; ?3 is now. Who holds it keeps it from expiring.
LIVING = "owner = ?1 AND id = ?2 AND is_expired = 0 AND (active_ns + idle_ns >= ?3 OR lease_until_ns >= ?3)"

Check = Callable[[str, str], Awaitable[None]]
"""Raises where an owner's container is not there, or has expired."""


class ContainerLeases:
    """The leases of one server; `now` is the time of day in nanoseconds, which all servers share."""

    def __init__(self, storage: Storage, now: Callable[[], int]) -> None:
        self._storage = storage
        self._now = now

    @asynccontextmanager
    async def taken(self, owner: str, id: str, wait_s: float, check: Check) -> AsyncGenerator[str, None]:
        """A lease on a container within the block; raises `Overloaded` after `wait_s`, and what `check` raises."""
        lease = secrets.token_hex(16)
        await self.take(owner, id, lease, wait_s, check)
        renewing = asyncio.create_task(self._renew(owner, id, lease), name=f"lease on {id}")
        try:
            yield lease
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
            # Where it cannot be given back, the lease ends by itself.
            with contextlib.suppress(LlamakitError):
                await asyncio.shield(self._release(owner, id, lease))

    async def take(self, owner: str, id: str, lease: str, wait_s: float, check: Check) -> None:
        """Wait for the lease on a container."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + wait_s, _LOOKS_S[0]
        database = await self._storage.database()
        while True:
            now = self._now()
            taken = await database.execute(
                "UPDATE containers SET lease = ?4, lease_until_ns = ?5, active_ns = ?3 "
                f"WHERE {LIVING} AND (lease IS NULL OR lease_until_ns < ?3)",
                owner,
                id,
                now,
                lease,
                now + int(LEASE_S * 1e9),
            )
            if taken:
                return
            await check(owner, id)
            if loop.time() > deadline:
                raise Overloaded(f"other code has run in {id} for {wait_s:g} s; try again later", retry_after_s=10.0)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LOOKS_S[1])

    async def _renew(self, owner: str, id: str, lease: str) -> None:
        """Keep a lease until cancelled; where it cannot be kept, the end of the run finds out."""
        database = await self._storage.database()
        while True:
            await asyncio.sleep(LEASE_S / _RENEWALS)
            with contextlib.suppress(LlamakitError):
                await database.execute(
                    "UPDATE containers SET lease_until_ns = ?4 WHERE owner = ?1 AND id = ?2 AND lease = ?3",
                    owner,
                    id,
                    lease,
                    self._now() + int(LEASE_S * 1e9),
                )

    async def _release(self, owner: str, id: str, lease: str) -> None:
        database = await self._storage.database()
        await database.execute(
            "UPDATE containers SET lease = NULL, lease_until_ns = 0, active_ns = ?4 "
            "WHERE owner = ?1 AND id = ?2 AND lease = ?3",
            owner,
            id,
            lease,
            self._now(),
        )
