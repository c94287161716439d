"""Content by its SHA-256 inside a database, in pieces: for several servers that share PostgreSQL and no disk.

The same promises as `blobs.BlobStore`. Content is spooled to a private temporary file until its digest is
known, then written in one transaction, so it is wholly there or wholly absent.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator
from typing import IO

from llamakit.core.errors import InvalidRequest, NotFound, StorageFull
from llamakit.storage.blobs import PIECE_BYTES, Blob, check_digest, pieces_of
from llamakit.storage.sql import Database, Executor


async def create_blobs(transaction: Executor) -> None:
    """The migration that makes the tables of content."""
    for sql in (
        "CREATE TABLE blobs (digest TEXT PRIMARY KEY, size BIGINT NOT NULL, touched_ns BIGINT NOT NULL)",
        "CREATE TABLE blob_pieces (digest TEXT NOT NULL, n BIGINT NOT NULL, data BLOB NOT NULL, "
        "PRIMARY KEY (digest, n), FOREIGN KEY (digest) REFERENCES blobs ON DELETE CASCADE)",
    ):
        await transaction.execute(sql)


class DatabaseBlobs:
    """Fulfils `Blobs` over the tables of `create_blobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, data: bytes | AsyncIterable[bytes], *, limit: int) -> Blob:
        """Store content durably; the same content twice takes room once."""
        digest, size = hashlib.sha256(), 0
        with tempfile.TemporaryFile(prefix="llamakit-") as spool:
            async for piece in pieces_of(data):
                size += len(piece)
                if size > limit:
                    raise InvalidRequest(f"content exceeds the limit of {limit} bytes; send less", param="file")
                digest.update(piece)
                await asyncio.to_thread(_spooled, spool, piece)
            spool.seek(0)
            blob = Blob(digest.hexdigest(), size)
            await self._keep(blob, spool)
        return blob

    async def _keep(self, blob: Blob, spool: IO[bytes]) -> None:
        async with self._database.transaction() as transaction:
            # The row is locked from here on, so a sweep under way waits and then finds it young.
            count = await transaction.execute(
                "INSERT INTO blobs (digest, size, touched_ns) VALUES (?1, ?2, ?3) "
                "ON CONFLICT (digest) DO UPDATE SET touched_ns = excluded.touched_ns",
                blob.digest,
                blob.size,
                time.time_ns(),
            )
            found = await transaction.fetch("SELECT 1 AS found FROM blob_pieces WHERE digest = ?1 LIMIT 1", blob.digest)
            if count != 1 or found:
                return
            n = 0
            while piece := await asyncio.to_thread(spool.read, PIECE_BYTES):
                await transaction.execute(
                    "INSERT INTO blob_pieces (digest, n, data) VALUES (?1, ?2, ?3)", blob.digest, n, piece
                )
                n += 1

    async def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """A stretch of stored content, to its end by default."""
        rows = await self._database.fetch("SELECT size FROM blobs WHERE digest = ?1", check_digest(digest))
        if not rows:
            raise NotFound(f"no stored content {digest!r}")
        end = rows[0]["size"] if length is None else min(rows[0]["size"], start + length)
        first = start // PIECE_BYTES
        pieces = await self._database.fetch(
            "SELECT data FROM blob_pieces WHERE digest = ?1 AND n >= ?2 AND n <= ?3 ORDER BY n",
            digest,
            first,
            end // PIECE_BYTES,
        )
        whole = b"".join(row["data"] for row in pieces)
        return whole[start - first * PIECE_BYTES : end - first * PIECE_BYTES]

    async def pieces(self, digest: str, size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
        """Stored content, piece by piece."""
        start = 0
        while piece := await self.read(digest, start, size):
            yield piece
            start += len(piece)

    async def sweep(self, referenced: set[str], *, older_than_s: float = 3600.0) -> int:
        """Remove content no row names, once it is old enough; how many."""
        before = time.time_ns() - int(older_than_s * 1e9)
        rows = await self._database.fetch("SELECT digest FROM blobs WHERE touched_ns < ?1", before)
        removed = 0
        for digest in {row["digest"] for row in rows} - referenced:
            removed += await self._database.execute(
                "DELETE FROM blobs WHERE digest = ?1 AND touched_ns < ?2", digest, before
            )
        return removed


def _spooled(spool: IO[bytes], piece: bytes) -> None:
    try:
        spool.write(piece)
    except OSError as error:
        raise StorageFull(f"no room to receive the content: {error.strerror}; free some space") from error
