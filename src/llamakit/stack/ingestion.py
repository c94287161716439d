"""Files into vector stores, behind everybody's back: jobs that read, cut, embed and keep, and jobs that clean up.

A job may run again from its start, after a kill or beside its slow predecessor: it ends by changing the state of
its attachment, and only where that still waits. What it made for an attachment that is gone, it takes away.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from llamakit.core.errors import (
    Conflict,
    DocumentError,
    EngineStopped,
    InvalidRequest,
    LlamakitError,
    MissingExtra,
    NotFound,
    OutboundFailed,
    Overloaded,
    StorageError,
    UnknownModel,
)
from llamakit.rag.chunk import ChunkSettings
from llamakit.rag.index import Library
from llamakit.rag.parse import MAX_DOCUMENT_BYTES, kind_of
from llamakit.stack.background import NEVER, Background
from llamakit.stack.chunk_stores import Chunks
from llamakit.stack.files import Files
from llamakit.stack.storage import Storage
from llamakit.stack.vector_tables import ATTACHMENTS
from llamakit.storage.job_runner import RunnerSettings
from llamakit.storage.jobs import JobContext, JobQueue
from llamakit.storage.sql import Row, Statement

log = logging.getLogger(__name__)

INGEST, FORGET, DROP = "vector_file", "vector_forget", "vector_drop"
ALONE = "_alone"
"""What the kinds of jobs end with that servers leave alone."""
MAX_ATTEMPTS = 3
"""Times a file is begun before it counts as failed."""
SETTINGS = RunnerSettings(concurrency=2, max_attempts=NEVER)
"""Each file in work holds a child process and a place with the embedder, so there are few."""
_PASSING = (Overloaded, StorageError, EngineStopped, OutboundFailed, UnknownModel)
"""What may be well at the next attempt; a model unknown here may be known to another server on the database."""


class Ingestion:
    """The work behind the vector stores of one server."""

    def __init__(self, storage: Storage, files: Files, chunks: Chunks) -> None:
        self._storage = storage
        self._files = files
        self._chunks = chunks
        self._suffix = ""
        self.background = self._runner()

    def stand_alone(self) -> None:
        """Do the work of this process and of others that stand alone, and none of a server's; before the start.

        For a command beside a server, whose models and vectors it may not have.
        """
        self._suffix = ALONE
        self.background = self._runner()

    def _runner(self) -> Background:
        """A runner of its own, so that a thousand documents do not keep a response waiting."""
        background = Background(self._storage, SETTINGS)
        background.handle(INGEST + self._suffix, self._ingest, self._refused)
        background.handle(FORGET + self._suffix, self._forget)
        background.handle(DROP + self._suffix, self._drop)
        return background

    async def queue(self) -> JobQueue:
        """Where the jobs go."""
        return await self.background.queue()

    async def ingesting(self, owner: str, attachment: str) -> Statement:
        """The statement that has a file ingested, for the batch that attaches it."""
        return (await self.queue()).enqueueing(owner, INGEST + self._suffix, {"attachment": attachment})[1]

    async def forgetting(self, owner: str, row: Row) -> Statement:
        """The statement that has the chunks of an attachment removed, should `forget` not come to it."""
        payload = {"store": row["store"], "attachment": row["id"]}
        return (await self.queue()).enqueueing(owner, FORGET + self._suffix, payload)[1]

    async def dropping(self, owner: str, store: str) -> Statement:
        """The same for a whole store."""
        return (await self.queue()).enqueueing(owner, DROP + self._suffix, {"store": store})[1]

    async def forget(self, owner: str, store: str, attachment: str) -> None:
        """Remove the chunks of an attachment; without effect where there are none."""
        try:
            await (await self._chunks.library()).remove(owner, store, attachment)
        except NotFound:
            log.debug("attachment %s has no chunks", attachment)

    async def drop(self, owner: str, store: str) -> None:
        """Remove all chunks of a store; without effect where there are none."""
        try:
            await (await self._chunks.library()).drop(owner, store)
        except NotFound:
            log.debug("store %s has no chunks", store)

    async def _forget(self, context: JobContext) -> None:
        payload = context.job.payload
        await self.forget(context.job.owner, payload["store"], payload["attachment"])

    async def _drop(self, context: JobContext) -> None:
        await self.drop(context.job.owner, context.job.payload["store"])

    async def _ingest(self, context: JobContext) -> None:
        owner, id = context.job.owner, context.job.payload["attachment"]
        rows = ATTACHMENTS.of(await self._storage.database(), owner)
        try:
            row = await rows.get(id)
        except NotFound:
            return
        if row["status"] != "in_progress":
            await self._clean(owner, row)
            return
        try:
            changes = await self._outcome(context, row)
            await rows.update(id, changes, when={"status": "in_progress"})
        except (NotFound, Conflict):
            await self._clean(owner, row)
            return
        if changes["status"] == "completed":
            await self._follow_attributes(owner, row)

    async def _refused(self, context: JobContext, reason: str) -> None:
        """Let an attachment fail whose key has ended; one that is cancelled or gone has nobody to tell."""
        owner, id = context.job.owner, context.job.payload["attachment"]
        rows = ATTACHMENTS.of(await self._storage.database(), owner)
        try:
            row = await rows.get(id)
            await rows.update(id, _failed("server_error", reason), when={"status": "in_progress"})
        except (NotFound, Conflict):
            return
        await self.forget(owner, row["store"], id)

    async def _clean(self, owner: str, row: Row) -> None:
        """Take away what was made for an attachment that was detached or cancelled meanwhile; where another process
        completed it, both made the same, and it stays.
        """
        now = await ATTACHMENTS.of(await self._storage.database(), owner).find({"id": row["id"]})
        if not now or now[0]["status"] not in ("completed", "in_progress"):
            await self.forget(owner, row["store"], row["id"])

    async def _outcome(self, context: JobContext, row: Row) -> dict[str, Any]:
        """What becomes of the attachment; raises what may pass, as long as there are attempts left."""
        is_last = context.job.attempts >= MAX_ATTEMPTS
        try:
            if context.job.attempts > MAX_ATTEMPTS:
                raise EngineStopped(f"given up after {MAX_ATTEMPTS} attempts, each of which ended its process")
            return await self._read(context.job.owner, row)
        except _PASSING as error:
            if not is_last:
                raise
            return _failed("server_error", str(error))
        except MissingExtra as error:
            return _failed("unsupported_file", str(error))
        except LlamakitError as error:
            return _failed("server_error", str(error))
        except Exception as error:
            if not is_last:
                raise
            log.error("ingesting %s broke", row["id"], exc_info=error)
            return _failed("server_error", f"it broke the server ({type(error).__name__}); the log has more")

    async def _read(self, owner: str, row: Row) -> dict[str, Any]:
        library = await self._chunks.library()
        try:
            file = await self._files.get(owner, row["file"])
        except NotFound:
            return _failed("invalid_file", "the file was deleted or has expired")
        if file["bytes"] > MAX_DOCUMENT_BYTES:
            return _failed("invalid_file", f"it has {file['bytes']} bytes; at most {MAX_DOCUMENT_BYTES} are read")
        data = await self._files.read(owner, row["file"])
        try:
            kind_of(row["name"], data)
        except DocumentError as error:
            return _failed("unsupported_file", str(error))
        settings = ChunkSettings(max_tokens=row["size"], overlap_tokens=row["overlap"])
        await library.add(owner, row["store"], row["id"], row["name"], json.loads(row["attributes"]))
        document = await library.ingest(owner, row["store"], row["id"], data, settings)
        if document.state == "failed":
            return _failed("invalid_file", document.reason or "it cannot be read")
        usage = await self._usage(library, owner, row)
        return {"status": "completed", "usage": usage, "error_code": None, "error": None}

    async def _usage(self, library: Library, owner: str, row: Row) -> int:
        """Bytes of text and vectors."""
        chunks = await library.chunks_of(owner, row["store"], row["id"])
        dimension = await library.dimension(owner, row["store"])
        return sum(len(chunk.chunk.text.encode()) + 4 * dimension for chunk in chunks)

    async def _follow_attributes(self, owner: str, row: Row) -> None:
        """Attributes that changed while the file was in work reach its chunks too."""
        now = await ATTACHMENTS.of(await self._storage.database(), owner).find({"id": row["id"]})
        if now and now[0]["attributes"] != row["attributes"]:
            attributes = json.loads(now[0]["attributes"])
            try:
                await (await self._chunks.library()).describe(owner, row["store"], row["id"], attributes)
            except (NotFound, InvalidRequest):
                log.debug("attachment %s is gone", row["id"])


def _failed(code: str, reason: str) -> dict[str, Any]:
    return {"status": "failed", "usage": 0, "error_code": code, "error": reason[:1000]}
