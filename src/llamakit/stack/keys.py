"""API keys in the database: made, listed and revoked by whoever runs the machine, found by a server at each request.

A key is 256 random bits in a text that scanners for leaked secrets can recognise. It is shown once and
kept as a hash; so many random bits need no slow one. Keys tell the owner of a request, so this table is read across
owners, by hash; nothing that a client sends reaches it otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError, Conflict, LlamakitError
from llamakit.stack.access import DEFAULT_SCOPES, NO_LIMITS, KeyLimits, Scope, check_owner, read_scopes
from llamakit.stack.storage import Storage
from llamakit.storage.ids import KEY
from llamakit.storage.sql import Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned, stamp

log = logging.getLogger(__name__)

PREFIX = "llk_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS = 43  # 62^43 is just above 2^256
_CHECK_CHARS = 6  # 62^6 is above 2^32
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_CHARS + _CHECK_CHARS}}}", re.ASCII)
_HINT_CHARS = len(PREFIX) + 6
_HASH_CONTEXT = b"llamakit API key 1\0"
_NAME = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?")

FRESH_S = 0.8
"""Seconds for which a server trusts what it read of a key; so long a revoked key may still come in."""
TOUCH_S = 60.0
"""Seconds between two notes of when a key was last used."""
MAX_REMEMBERED = 10_000
MAX_LIFE_S = 10 * 366 * 86_400.0

KEYS = Table("api_keys", ("name", "hash", "hint", "scopes", "limits", "expires_ns", "revoked_ns", "used_ns"), ids=KEY)


async def create_keys(transaction: Executor) -> None:
    """The migration that makes the table of keys."""
    for sql in create_owned(
        "api_keys",
        "name TEXT NOT NULL",
        "hash TEXT NOT NULL",
        "hint TEXT NOT NULL",
        "scopes TEXT NOT NULL",
        "limits TEXT NOT NULL",
        "expires_ns BIGINT",
        "revoked_ns BIGINT",
        "used_ns BIGINT",
    ):
        await transaction.execute(sql)
    await transaction.execute("CREATE UNIQUE INDEX api_keys_by_hash ON api_keys (hash)")
    await transaction.execute("CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked_ns IS NULL")


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What is known of a key; never the key."""

    id: str
    name: str
    """For people; unique among keys that are not revoked."""
    owner: str
    """As whom its requests act: what they keep belongs to this name."""
    hint: str
    """How the key begins."""
    scopes: frozenset[Scope]
    limits: KeyLimits
    created_ns: int
    expires_ns: int | None
    revoked_ns: int | None
    used_ns: int | None
    """When it last came in, to the minute."""

    @property
    def state(self) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_ns is not None:
            return "revoked"
        return "expired" if self.expires_ns is not None and self.expires_ns <= time.time_ns() else "active"

    @classmethod
    def of(cls, row: Row) -> Key:
        """The key of a row."""
        given = {name: row[name] for name in ("id", "name", "owner", "hint", "created_ns")}
        given |= {name: row[name] for name in ("expires_ns", "revoked_ns", "used_ns")}
        # A scope that a later version wrote allows nothing here.
        known = {scope.value for scope in Scope}
        scopes = read_scopes(word for word in json.loads(row["scopes"]) if word in known)
        return cls(**given, scopes=scopes, limits=KeyLimits.of(json.loads(row["limits"])))


def new_key() -> Secret:
    """A fresh key: prefix, 256 random bits, checksum."""
    body = PREFIX + _spelled(secrets.randbits(256), _SECRET_CHARS)
    return Secret(body + _checksum(body))


def is_key(text: str) -> bool:
    """Whether `text` is spelled as `new_key` spells, its checksum right: what a scanner for leaks looks for."""
    return _SHAPE.fullmatch(text) is not None and text[-_CHECK_CHARS:] == _checksum(text[:-_CHECK_CHARS])


class KeyBook:
    """The keys of one database."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._seen: dict[str, tuple[float, Key]] = {}
        self._touched: dict[str, float] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def create(
        self,
        name: str,
        *,
        owner: str | None = None,
        scopes: Collection[Scope] = DEFAULT_SCOPES,
        limits: KeyLimits = NO_LIMITS,
        expires_s: float | None = None,
    ) -> tuple[Secret, Key]:
        """A new key and what is kept of it; raises `ConfigError`, or `Conflict` where the name is taken."""
        if _NAME.fullmatch(name) is None:
            raise ConfigError(f"a key's name has 1 to 64 characters and no control characters, got {name[:80]!r}")
        if not scopes:
            raise ConfigError("a key without any scope could do nothing; name at least one")
        if expires_s is not None and not 0 < expires_s <= MAX_LIFE_S:
            raise ConfigError(f"a key lives between now and ten years, got {expires_s:g} seconds")
        key, id = new_key(), KEY.new()
        owner = f"key-{secrets.token_hex(12)}" if owner is None else check_owner(owner)
        row = {
            "name": name,
            "hash": _hashed(key.reveal()),
            "hint": key.reveal()[:_HINT_CHARS],
            "scopes": json.dumps(sorted(scopes)),
            "limits": json.dumps(limits.given()),
            "expires_ns": None if expires_s is None else time.time_ns() + int(expires_s * 1e9),
        }
        database = await self._storage.database()
        try:
            await KEYS.of(database, owner).insert(id, row)
        except Conflict:
            raise Conflict(f"a key named {name!r} is in use; revoke it first, or choose another name") from None
        return key, Key.of(await KEYS.of(database, owner).get(id))

    async def list(self, *, ended: bool = False) -> list[Key]:
        """Keys by the time they were made; `ended`: also revoked and expired ones."""
        database = await self._storage.database()
        keys = [Key.of(row) for row in await database.fetch("SELECT * FROM api_keys ORDER BY created_ns, id")]
        return [key for key in keys if ended or key.state == "active"]

    async def of(self, owner: str) -> list[Key]:
        """The keys of an owner that are not revoked."""
        database = await self._storage.database()
        return [Key.of(row) for row in await KEYS.of(database, owner).find({"revoked_ns": None})]

    async def revoke(self, which: str) -> Key:
        """End a key, by its id or name; `NotFound` where none that is not revoked is called so."""
        database = await self._storage.database()
        column = "id" if KEY.is_valid(which) else "name"
        (outcome,) = await database.run(
            Statement(
                f"UPDATE api_keys SET revoked_ns = ?2 WHERE {column} = ?1 AND revoked_ns IS NULL RETURNING *",
                (which, stamp()),
                expect=1,
                otherwise=KEY.missing(which),
            )
        )
        self._seen.clear()
        return Key.of(outcome.rows[0])

    async def find(self, text: str) -> Key | None:
        """The active key that `text` is, or None; at most `FRESH_S` behind a revocation anywhere."""
        if not is_key(text):
            return None
        digest = _hashed(text)
        checked, key = self._seen.get(digest, (float("-inf"), None))
        now = time.monotonic()
        if key is None or now - checked > FRESH_S:
            database = await self._storage.database()
            rows = await database.fetch("SELECT * FROM api_keys WHERE hash = ?1", digest)
            key = Key.of(rows[0]) if rows and hmac.compare_digest(rows[0]["hash"], digest) else None
            if key is None:
                self._seen.pop(digest, None)
                return None
            if len(self._seen) >= MAX_REMEMBERED:
                self._seen.clear()
            self._seen[digest] = (now, key)
        if key.state != "active":
            return None
        self._note_use(key, now)
        return key

    async def ended(self, ids: Collection[str]) -> set[str]:
        """Which of these keys no longer let anybody in."""
        if not ids:
            return set()
        database = await self._storage.database()
        numbers = ", ".join(f"?{number}" for number in range(2, len(ids) + 2))
        rows = await database.fetch(
            f"SELECT id FROM api_keys WHERE id IN ({numbers}) AND revoked_ns IS NULL "
            "AND (expires_ns IS NULL OR expires_ns > ?1)",
            time.time_ns(),
            *ids,
        )
        ended = set(ids) - {row["id"] for row in rows}
        if ended:
            self._seen = {digest: seen for digest, seen in self._seen.items() if seen[1].id not in ended}
        return ended

    async def aclose(self) -> None:
        """Wait for the notes of last use."""
        await asyncio.gather(*self._notes)

    def _note_use(self, key: Key, now: float) -> None:
        """Write down that the key came in, without holding its request up."""
        if now - self._touched.get(key.id, float("-inf")) < TOUCH_S:
            return
        if len(self._touched) >= MAX_REMEMBERED:
            self._touched.clear()
        self._touched[key.id] = now
        task = asyncio.create_task(self._note(key.id, time.time_ns()))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _note(self, id: str, now_ns: int) -> None:
        try:
            database = await self._storage.database()
            await database.execute("UPDATE api_keys SET used_ns = ?2 WHERE id = ?1", id, now_ns)
        except LlamakitError as fault:
            log.warning("when %s was used could not be written down: %s", id, fault)


def key_facts(key: Key) -> dict[str, Any]:
    """A key as plain values, for people and programs."""
    return {
        "id": key.id,
        "name": key.name,
        "begins_with": key.hint,
        "state": key.state,
        "owner": key.owner,
        "scopes": sorted(key.scopes),
        "limits": key.limits.given(),
        "created": _moment(key.created_ns),
        "expires": _moment(key.expires_ns),
        "revoked": _moment(key.revoked_ns),
        "last_used": _moment(key.used_ns),
    }


def _moment(ns: int | None) -> str | None:
    return None if ns is None else datetime.fromtimestamp(ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def _hashed(key: str) -> str:
    return hashlib.sha256(_HASH_CONTEXT + key.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _spelled(zlib.crc32(body.encode()), _CHECK_CHARS)


def _spelled(number: int, width: int) -> str:
    """A number in base 62."""
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits.rjust(width, _DIGITS[0])
