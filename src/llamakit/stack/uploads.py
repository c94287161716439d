"""Uploads: a file that comes in parts, each of them kept as it arrives, put together at the end.

Parts may come in any order and several at a time; the order of the file is said when it is completed. An upload
that is not completed within the hour expires, and its parts go with it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any

from llamakit.api.files import MAX_PARTS, WireUploadCompletion, WireUploadRequest, check_name, part_body, upload_body
from llamakit.api.limits import LIMITS, Limits
from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.stack.files import Files
from llamakit.stack.storage import Storage
from llamakit.storage.ids import UPLOAD, UPLOAD_PART
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned, stamp

UPLOADS = Table(
    "uploads",
    ("filename", "purpose", "size", "mime_type", "file_expires_s", "status", "file", "expires_ns"),
    ids=UPLOAD,
)
PARTS = Table("upload_parts", ("upload", "digest", "size"), ids=UPLOAD_PART)
LIFETIME_NS = 3600 * 10**9


async def create_uploads(transaction: Executor) -> None:
    """The migration that makes the tables of uploads."""
    statements = [
        *create_owned(
            "uploads",
            "filename TEXT NOT NULL",
            "purpose TEXT NOT NULL",
            "size BIGINT NOT NULL",
            "mime_type TEXT NOT NULL",
            "file_expires_s BIGINT",
            "status TEXT NOT NULL",
            "file TEXT",
            "expires_ns BIGINT NOT NULL",
        ),
        "CREATE INDEX uploads_by_expiry ON uploads (status, expires_ns)",
        *create_owned("upload_parts", "upload TEXT NOT NULL", "digest TEXT NOT NULL", "size BIGINT NOT NULL"),
        "CREATE INDEX upload_parts_of ON upload_parts (owner, upload)",
    ]
    for sql in statements:
        await transaction.execute(sql)


class Uploads:
    """The uploads of one server."""

    def __init__(
        self, storage: Storage, files: Files, *, limits: Limits = LIMITS, clock: Callable[[], float] = time.time
    ) -> None:
        self._storage = storage
        self._files = files
        self._limits = limits
        self._clock = clock

    async def create(self, owner: str, wire: WireUploadRequest) -> dict[str, Any]:
        """Announce a file; its parts are taken for an hour."""
        if wire.bytes > self._limits.upload_bytes:
            raise InvalidRequest(
                f"bytes must be at most {self._limits.upload_bytes}, got {wire.bytes}; split the file", param="bytes"
            )
        id, created_ns = UPLOAD.new(), stamp()
        row = {
            "filename": check_name(wire.filename),
            "purpose": wire.purpose,
            "size": wire.bytes,
            "mime_type": wire.mime_type,
            "file_expires_s": None if wire.expires_after is None else wire.expires_after.seconds,
            "status": "pending",
            "expires_ns": int(self._clock() * 1e9) + LIFETIME_NS,
        }
        await UPLOADS.of(await self._storage.database(), owner).insert(id, row, created_ns=created_ns)
        return await self.get(owner, id)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """An upload, or `NotFound`."""
        row = await self._row(owner, id)
        file = None
        if row["file"] is not None:
            try:
                file = await self._files.get(owner, row["file"])
            except NotFound:
                file = None  # it was deleted since
        return _body(row, file)

    async def add(self, owner: str, id: str, data: bytes | AsyncIterable[bytes]) -> dict[str, Any]:
        """Keep a part; it is on the disk when this returns."""
        await self._pending(owner, id)
        blob = await self._files.receive(data, limit=self._limits.part_bytes)
        if blob.size == 0:
            raise InvalidRequest("a part holds at least one byte", param="data")
        part, created_ns = UPLOAD_PART.new(), stamp()
        database = await self._storage.database()
        parts = PARTS.of(database, owner)
        if await parts.count({"upload": id}) >= MAX_PARTS:
            raise InvalidRequest(f"an upload has at most {MAX_PARTS} parts; cancel it and send larger ones")
        await database.run(
            # Touched, so that a part never lands in an upload that was ended meanwhile.
            self._while_pending(database, owner, id, {"status": "pending"}),
            parts.inserting(part, {"upload": id, "digest": blob.digest, "size": blob.size}, created_ns=created_ns),
        )
        return part_body(part, created_at=created_ns // 10**9, upload=id)

    async def complete(self, owner: str, id: str, wire: WireUploadCompletion) -> dict[str, Any]:
        """Put the parts together to a file; raises `InvalidRequest` where they are not what was announced."""
        row = await self._pending(owner, id)
        parts = await self._parts(owner, id, wire.part_ids)
        size = sum(part["size"] for part in parts)
        if size != row["size"]:
            raise InvalidRequest(
                f"the parts have {size} bytes together, {row['size']} were announced", param="part_ids"
            )
        checksum = hashlib.md5(usedforsecurity=False)
        blob = await self._files.receive(self._joined(parts, checksum.update), limit=size)
        if wire.md5 is not None and checksum.hexdigest() != wire.md5.lower():
            raise InvalidRequest(f"the parts have the MD5 {checksum.hexdigest()}, not {wire.md5.lower()}", param="md5")
        database = await self._storage.database()
        file, adding = await self._files.adding(owner, row["filename"], row["purpose"], blob, row["file_expires_s"])
        await database.run(
            self._while_pending(database, owner, id, {"status": "completed", "file": file}),
            adding,
            _dropping_parts(owner, id),
        )
        return await self.get(owner, id)

    async def cancel(self, owner: str, id: str) -> dict[str, Any]:
        """End an upload; its parts go."""
        await self._pending(owner, id)
        database = await self._storage.database()
        await database.run(
            self._while_pending(database, owner, id, {"status": "cancelled"}), _dropping_parts(owner, id)
        )
        return await self.get(owner, id)

    async def expire(self) -> int:
        """End the uploads of everybody that took too long; how many."""
        database = await self._storage.database()
        rows = await database.fetch(
            "SELECT id, owner FROM uploads WHERE status = 'pending' AND expires_ns <= ?1", int(self._clock() * 1e9)
        )
        for row in rows:
            owner, id = row["owner"], row["id"]
            try:
                await database.run(
                    self._while_pending(database, owner, id, {"status": "expired"}), _dropping_parts(owner, id)
                )
            except Conflict:
                continue  # it was completed or cancelled meanwhile
        return len(rows)

    async def _joined(self, parts: Sequence[Row], see: Callable[[bytes], None]) -> AsyncIterator[bytes]:
        blobs = await self._storage.blobs()
        for part in parts:
            async for piece in blobs.pieces(part["digest"]):
                see(piece)
                yield piece

    async def _parts(self, owner: str, id: str, wanted: Sequence[str]) -> list[Row]:
        rows = await PARTS.of(await self._storage.database(), owner).find({"upload": id})
        known = {row["id"]: row for row in rows}
        for part in wanted:
            if part not in known:
                raise InvalidRequest(f"upload {id} has no part {part[:80]!r}", param="part_ids")
        if len(set(wanted)) < len(wanted):
            raise InvalidRequest("a part is named twice", param="part_ids")
        return [known[part] for part in wanted]

    async def _pending(self, owner: str, id: str) -> Row:
        row = await self._row(owner, id)
        if row["status"] == "pending" and row["expires_ns"] <= self._clock() * 1e9:
            await self.expire()
            row = await self._row(owner, id)
        if row["status"] != "pending":
            raise InvalidRequest(f"upload {id} is {row['status']}, so nothing can be done with it", param="upload_id")
        return row

    def _while_pending(self, database: Database, owner: str, id: str, changes: dict[str, Any]) -> Statement:
        return UPLOADS.of(database, owner).updating(id, changes, when={"status": "pending"})

    async def _row(self, owner: str, id: str) -> Row:
        UPLOAD.check(id)
        return await UPLOADS.of(await self._storage.database(), owner).get(id)


def _dropping_parts(owner: str, upload: str) -> Statement:
    return Statement("DELETE FROM upload_parts WHERE owner = ?1 AND upload = ?2", (owner, upload))


def _body(row: Row, file: dict[str, Any] | None) -> dict[str, Any]:
    return upload_body(
        row["id"],
        size=row["size"],
        created_at=row["created_ns"] // 10**9,
        expires_at=row["expires_ns"] // 10**9,
        filename=row["filename"],
        purpose=row["purpose"],
        status=row["status"],
        file=file,
    )
