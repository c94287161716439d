"""The door every request comes through: who it is, whether it may, whether there is room, and until when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from starlette.datastructures import Headers
from starlette.types import Receive

from llamakit.core.errors import LlamakitError, RateLimited
from llamakit.server.auth import Authenticator
from llamakit.server.errors import Unauthenticated
from llamakit.server.exchange import UNKNOWN, Exchange, Principal
from llamakit.server.limits import limit_headers
from llamakit.server.permit import Permit
from llamakit.stack.access import KeyLimits, Scope
from llamakit.stack.build import Stack
from llamakit.stack.keys import KeyBook
from llamakit.stack.oidc import OidcVerifier
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.usage import UsageBook

log = logging.getLogger(__name__)

WATCH_S = 0.4
"""Seconds between two looks at the keys behind running requests."""


class Guard:
    """Lets requests in, and ends them when what let them in has ended."""

    def __init__(self, authenticator: Authenticator, keys: KeyBook, usage: UsageBook, limits: KeyLimits) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._keys = keys
        self._usage = usage
        self._running: Counter[str] = Counter()
        self._ending: set[Permit] = set()
        """Requests whose key or token may end before they do."""
        self._watcher: asyncio.Task[None] | None = None

    async def enter(self, wanted: Scope | None, exchange: Exchange, headers: Headers, receive: Receive) -> Permit:
        """Let a request in; raises `Unauthenticated`, `Forbidden` or `RateLimited`. None wants nobody's name."""
        if wanted is None:
            return Permit(exchange, receive, _nothing)
        exchange.principal = UNKNOWN
        principal = exchange.principal = await self._authenticator.identify(headers)
        self._authenticator.check(principal, wanted)
        if principal.limits.any:
            await self._make_room(principal, exchange, headers)
        permit = Permit(exchange, receive, self._leave)
        if principal.limits.streams is not None:
            self._running[_meter(principal)] += 1
        if principal.key is not None or principal.ends_at is not None:
            self._ending.add(permit)
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch(), name="keys of running requests")
        return permit

    async def charge(self, exchange: Exchange) -> None:
        """Count the tokens of work that no request waits for: against each key of its owner, and the limits of all."""
        tokens, owner = exchange.prompt_tokens + exchange.completion_tokens, exchange.principal.name
        if not tokens:
            return
        self._usage.charge(owner, self._limits, tokens=tokens)
        try:
            for key in await self._keys.of(owner):
                self._usage.charge(key.id, key.limits if key.limits.any else self._limits, tokens=tokens)
        except LlamakitError as fault:
            log.warning("%d tokens of %s could not be counted: %s", tokens, owner, fault)

    async def aclose(self) -> None:
        """Look at nothing any more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _make_room(self, principal: Principal, exchange: Exchange, headers: Headers) -> None:
        limits, meter = principal.limits, _meter(principal)
        # Looked at before the request is counted, and again after the wait that counting may be: from then on nothing
        # waits until the place is taken.
        self._check_streams(principal)
        length = headers.get("content-length", "")
        announced = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else 0
        room = await self._usage.enter(meter, limits, announced)
        exchange.headers = limit_headers(limits, room, exchange.dialect)
        if room.fault is not None:
            raise RateLimited(
                f"the limit of {_called(principal)} is reached: {room.fault}; "
                f"try again in {max(1, round(room.retry_after_s))} s",
                retry_after_s=room.retry_after_s,
            )
        self._check_streams(principal)

    def _check_streams(self, principal: Principal) -> None:
        limit = principal.limits.streams
        if limit is not None and self._running[_meter(principal)] >= limit:
            raise RateLimited(
                f"the limit of {_called(principal)} is reached: {limit} requests answered at the same time; "
                "wait for one to end",
                retry_after_s=1.0,
            )

    def _leave(self, permit: Permit) -> None:
        exchange = permit.exchange
        principal = exchange.principal
        self._ending.discard(permit)
        if principal.limits.streams is not None:
            meter = _meter(principal)
            self._running[meter] -= 1
            if self._running[meter] <= 0:
                del self._running[meter]
        tokens = exchange.prompt_tokens + exchange.completion_tokens
        self._usage.charge(_meter(principal), principal.limits, tokens=tokens, bytes=permit.num_bytes)

    async def _watch(self) -> None:
        """End requests whose key was revoked or has expired, while there are any that could."""
        while self._ending:
            await asyncio.sleep(WATCH_S)
            ids = {permit.exchange.principal.key for permit in self._ending} - {None}
            try:
                ended = await self._keys.ended([id for id in ids if id is not None])
            except LlamakitError as fault:
                log.warning("the keys of running requests could not be looked at: %s", fault)
                continue
            now = time.time()
            for permit in list(self._ending):
                principal = permit.exchange.principal
                if principal.key in ended or (principal.ends_at is not None and principal.ends_at < now):
                    permit.end(Unauthenticated("what let this request in was revoked or has expired meanwhile"))
                    self._ending.discard(permit)


def build_guard(config: ServeConfig, stack: Stack) -> Guard:
    """The guard of a server; raises `MissingExtra` where tokens are to be checked and cannot be."""
    verifier = None if config.oidc is None else OidcVerifier(config.oidc)
    return Guard(Authenticator(config, stack.keys, verifier), stack.keys, stack.usage, config.limits)


def _nothing(_: Permit) -> None:
    """Nobody's permission costs nothing."""


def _meter(principal: Principal) -> str:
    return principal.meter or principal.name


def _called(principal: Principal) -> str:
    return f"the key {principal.called!r}" if principal.called is not None else principal.name
