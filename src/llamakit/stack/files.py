"""Files: a row says whose it is and what for, the content lies by its digest.

The content is durable before the row that names it; content that no row names any more goes with the next
sweep. Expiry is a time of day, because that is what clients are told.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

from llamakit.api.files import check_expiry, check_name, file_body
from llamakit.api.limits import LIMITS
from llamakit.api.openai_lists import PageQuery, deleted_body, list_body
from llamakit.core.errors import NotFound
from llamakit.stack.storage import Storage
from llamakit.storage.blobs import Blob
from llamakit.storage.ids import FILE
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned, stamp

FILES = Table("files", ("filename", "purpose", "size", "digest", "expires_ns"), ids=FILE)
EXPIRED_AT_ONCE = 1000
"""Rows that one sweep takes; the rest waits for the next."""

Leaving = Callable[[str, str], Awaitable[None]]
"""Called with owner and id before a file goes; may run again after a crash."""


async def create_files(transaction: Executor) -> None:
    """The migration that makes the table of files."""
    columns = ("filename TEXT NOT NULL", "purpose TEXT NOT NULL", "size BIGINT NOT NULL", "digest TEXT NOT NULL")
    for sql in create_owned("files", *columns, "expires_ns BIGINT"):
        await transaction.execute(sql)
    await transaction.execute("CREATE INDEX files_by_expiry ON files (expires_ns)")
    await transaction.execute("CREATE INDEX files_by_digest ON files (digest)")


class Files:
    """The files of one server."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock
        self._leaving: list[Leaving] = []

    def before_deletion(self, leaving: Leaving) -> None:
        """Let whoever refers to files let go of one that is about to go."""
        self._leaving.append(leaving)

    async def create(
        self,
        owner: str,
        filename: str,
        purpose: str,
        data: bytes | AsyncIterable[bytes],
        expires_after_s: int | None = None,
    ) -> dict[str, Any]:
        """Keep a file; it is on the disk when this returns. Raises `InvalidRequest` beyond the limit of bytes."""
        blob = await self.receive(data)
        return await self.add(owner, filename, purpose, blob, expires_after_s)

    async def receive(self, data: bytes | AsyncIterable[bytes], *, limit: int = LIMITS.file_bytes) -> Blob:
        """Keep content that `add` will name soon; within the hour, or it is swept away."""
        return await (await self._storage.blobs()).put(data, limit=limit)

    async def add(
        self, owner: str, filename: str, purpose: str, blob: Blob, expires_after_s: int | None = None
    ) -> dict[str, Any]:
        """A file of content that is there."""
        id, statement = await self.adding(owner, filename, purpose, blob, expires_after_s)
        await (await self._storage.database()).run(statement)
        return await self.get(owner, id)

    async def adding(
        self, owner: str, filename: str, purpose: str, blob: Blob, expires_after_s: int | None = None
    ) -> tuple[str, Statement]:
        """The id and the statement, for a batch."""
        created_ns = stamp()
        expires_ns = None if expires_after_s is None else created_ns + check_expiry(expires_after_s) * 10**9
        row = {
            "filename": check_name(filename),
            "purpose": purpose,
            "size": blob.size,
            "digest": blob.digest,
            "expires_ns": expires_ns,
        }
        id = FILE.new()
        database = await self._storage.database()
        return id, FILES.of(database, owner).inserting(id, row, created_ns=created_ns)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A file, or `NotFound`."""
        return _body(await self._row(owner, id))

    async def read(self, owner: str, id: str) -> bytes:
        """Its whole content."""
        row = await self._row(owner, id)
        return await (await self._storage.blobs()).read(row["digest"])

    async def pieces(self, owner: str, id: str) -> AsyncIterator[bytes]:
        """Its content, piece by piece; `NotFound` comes with the first."""
        row = await self._row(owner, id)
        async for piece in (await self._storage.blobs()).pieces(row["digest"]):
            yield piece

    async def list(self, owner: str, page: PageQuery, purpose: str | None = None) -> dict[str, Any]:
        """A page of files, of one purpose if asked."""
        database = await self._storage.database()
        await self._expire(await self._expired(database, owner))
        found = await FILES.of(database, owner).page(
            where={} if purpose is None else {"purpose": purpose},
            order=page.order,
            limit=page.limit,
            after=page.after,
        )
        return list_body([_body(row) for row in found.rows], has_more=found.has_more)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """Delete a file, out of every vector store too."""
        await self._row(owner, id)
        await self._remove(owner, id)
        return deleted_body("file", id)

    async def expire(self) -> int:
        """Delete the files of everybody whose time is over; how many."""
        return await self._expire(await self._expired(await self._storage.database()))

    async def _remove(self, owner: str, id: str) -> None:
        for leaving in self._leaving:
            await leaving(owner, id)
        await FILES.of(await self._storage.database(), owner).delete(id)

    async def _expired(self, database: Database, owner: str | None = None) -> list[Row]:
        now = int(self._clock() * 1e9)
        if owner is not None:
            return await FILES.of(database, owner).select("expires_ns <= ?1", now)
        return await database.fetch(
            "SELECT id, owner FROM files WHERE expires_ns <= ?1 ORDER BY expires_ns LIMIT ?2", now, EXPIRED_AT_ONCE
        )

    async def _expire(self, rows: list[Row]) -> int:
        for row in rows:
            try:
                await self._remove(row["owner"], row["id"])
            except NotFound:
                continue  # another process was quicker
        return len(rows)

    async def _row(self, owner: str, id: str) -> Row:
        FILE.check(id)
        row = await FILES.of(await self._storage.database(), owner).get(id)
        if row["expires_ns"] is not None and row["expires_ns"] <= self._clock() * 1e9:
            raise FILE.missing(id)
        return row


def _body(row: Row) -> dict[str, Any]:
    expires_ns = row["expires_ns"]
    return file_body(
        row["id"],
        size=row["size"],
        created_at=row["created_ns"] // 10**9,
        expires_at=None if expires_ns is None else expires_ns // 10**9,
        filename=row["filename"],
        purpose=row["purpose"],
    )
