"""The files of vector stores: attached one by one or in batches, read, relabelled, detached.

Attaching is a row and a job in one commit; what becomes of the file is the job's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.api.openai_lists import PageQuery, list_body
from llamakit.api.vector_stores import (
    AUTO_OVERLAP,
    AUTO_TOKENS,
    FILE_STATUSES,
    WireAttachRequest,
    WireFileBatchRequest,
    content_body,
    read_chunking,
)
from llamakit.api.wire import found
from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.rag.filters import check_attributes
from llamakit.stack.chunk_stores import Chunks
from llamakit.stack.files import Files
from llamakit.stack.ingestion import Ingestion
from llamakit.stack.storage import Storage
from llamakit.stack.vector_tables import (
    ATTACHMENT,
    ATTACHMENTS,
    BATCHES,
    STORES,
    attachment_body,
    batch_body,
    tallies,
)
from llamakit.storage.ids import FILE, FILE_BATCH, VECTOR_STORE
from llamakit.storage.sql import Row, Statement


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A file that is to be attached."""

    file: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    chunking: tuple[int, int] = (AUTO_TOKENS, AUTO_OVERLAP)
    """Tokens of a chunk, and of what it repeats."""


def wanted_of(wire: WireAttachRequest) -> Wanted:
    """A file of a request; raises `InvalidRequest`."""
    return Wanted(file=wire.file_id, attributes=wire.attributes or {}, chunking=read_chunking(wire.chunking_strategy))


def wanted_of_batch(wire: WireFileBatchRequest) -> list[Wanted]:
    """The files of a request: either ids that share attributes and chunking, or each with its own."""
    if (wire.file_ids is None) == (wire.files is None):
        raise InvalidRequest("give either file_ids or files", param="file_ids")
    if wire.files is not None:
        if wire.attributes is not None or wire.chunking_strategy is not None:
            raise InvalidRequest("with files, each has its own attributes and chunking_strategy", param="files")
        return [wanted_of(file) for file in wire.files]
    chunking = read_chunking(wire.chunking_strategy)
    return [Wanted(file=id, attributes=wire.attributes or {}, chunking=chunking) for id in wire.file_ids or ()]


class VectorFiles:
    """The files of every store of one server."""

    def __init__(self, storage: Storage, files: Files, chunks: Chunks, ingestion: Ingestion) -> None:
        self._storage = storage
        self._files = files
        self._chunks = chunks
        self._ingestion = ingestion
        files.before_deletion(self._let_go)

    async def attach(self, owner: str, store: str, wanted: Wanted) -> dict[str, Any]:
        """Attach a file, in place of an earlier attachment; once this returned it comes to an end."""
        await self._living(owner, store)
        await self.run(owner, store, [wanted])
        return await self.get(owner, store, wanted.file)

    async def run(
        self,
        owner: str,
        store: str,
        wanted: Sequence[Wanted],
        before: Sequence[Statement] = (),
        *,
        batch: str | None = None,
    ) -> None:
        """Attach files in one commit, after the statements `before`; raises `NotFound` for one that is not there."""
        once = {want.file: want for want in wanted}
        if len(once) < len(wanted):
            raise InvalidRequest("a file is named twice; name each once", param="file_ids")
        database = await self._storage.database()
        rows = ATTACHMENTS.of(database, owner)
        statements, replaced = [*before], []
        for want in wanted:
            name = (await self._files.get(owner, want.file))["filename"]
            row = {
                "store": store,
                "file": want.file,
                "name": name,
                "batch": batch,
                "status": "in_progress",
                "usage": 0,
                "size": want.chunking[0],
                "overlap": want.chunking[1],
                "attributes": json.dumps(check_attributes(want.attributes)),
            }
            for old in await rows.find({"store": store, "file": want.file}):
                replaced.append(old)
                statements += [rows.deleting(old["id"]), await self._ingestion.forgetting(owner, old)]
            id = ATTACHMENT.new()
            statements += [rows.inserting(id, row), await self._ingestion.ingesting(owner, id)]
        await database.run(*statements)
        (await self._ingestion.queue()).announce()
        for old in replaced:
            await self._ingestion.forget(owner, store, old["id"])

    async def list(
        self,
        owner: str,
        store: str,
        page: PageQuery,
        *,
        status: str | None = None,
        batch: str | None = None,
    ) -> dict[str, Any]:
        """A page of the files of a store or of a batch, of one status if asked."""
        if status is not None and status not in FILE_STATUSES:
            raise InvalidRequest(f"filter must be one of {', '.join(FILE_STATUSES)}, got {found(status)}",
                                 param="filter")  # fmt: skip
        if batch is None:
            await self.store(owner, store)
        else:
            await self._batch(owner, store, batch)
        where = {"store": store}
        where |= {"status": status} if status is not None else {}
        where |= {"batch": batch} if batch is not None else {}
        rows = ATTACHMENTS.of(await self._storage.database(), owner)
        got = await rows.page(
            where=where,
            order=page.order,
            limit=page.limit,
            after=await self._cursor(owner, store, page.after),
            before=await self._cursor(owner, store, page.before),
        )
        return list_body([attachment_body(row) for row in got.rows], has_more=got.has_more)

    async def get(self, owner: str, store: str, file: str) -> dict[str, Any]:
        """A file of a store, or `NotFound`."""
        return attachment_body(await self._row(owner, store, file))

    async def describe(self, owner: str, store: str, file: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Give a file of a store other attributes; searches see them when this returns."""
        row = await self._row(owner, store, file)
        kept = check_attributes(attributes)
        rows = ATTACHMENTS.of(await self._storage.database(), owner)
        await rows.update(row["id"], {"attributes": json.dumps(kept)})
        row = await rows.get(row["id"])
        if row["status"] == "completed":
            await (await self._chunks.library()).describe(owner, store, row["id"], kept)
        return attachment_body(row)

    async def detach(self, owner: str, store: str, file: str) -> dict[str, Any]:
        """Take a file out of a store; the file itself stays."""
        await self._detach(owner, await self._row(owner, store, file))
        return {"id": file, "object": "vector_store.file.deleted", "deleted": True}

    async def content(self, owner: str, store: str, file: str) -> dict[str, Any]:
        """The chunks of a file; `Conflict` as long as it has none."""
        row = await self._row(owner, store, file)
        if row["status"] != "completed":
            raise Conflict(f"file {file} is {row['status']} in {store}; its content is there once it is completed")
        chunks = await (await self._chunks.library()).chunks_of(owner, store, row["id"])
        return content_body([chunk.chunk.text for chunk in chunks])

    async def create_batch(self, owner: str, store: str, wanted: Sequence[Wanted]) -> dict[str, Any]:
        """Attach files together."""
        await self._living(owner, store)
        id = FILE_BATCH.new()
        batches = BATCHES.of(await self._storage.database(), owner)
        inserting = batches.inserting(id, {"store": store, "is_cancelled": 0})
        await self.run(owner, store, wanted, [inserting], batch=id)
        return await self.get_batch(owner, store, id)

    async def get_batch(self, owner: str, store: str, id: str) -> dict[str, Any]:
        """A batch and how far it is, or `NotFound`."""
        row = await self._batch(owner, store, id)
        return batch_body(row, (await tallies(await self._storage.database(), owner, "batch", [id]))[id])

    async def cancel_batch(self, owner: str, store: str, id: str) -> dict[str, Any]:
        """Cancel the files that still wait; those that are done stay. One at its end is answered as it is."""
        batch = await self.get_batch(owner, store, id)
        if batch["status"] == "in_progress":
            database = await self._storage.database()
            await database.run(
                BATCHES.of(database, owner).updating(id, {"is_cancelled": 1}),
                Statement(
                    "UPDATE vector_store_files SET status = 'cancelled' "
                    "WHERE owner = ?1 AND batch = ?2 AND status = 'in_progress'",
                    (owner, id),
                ),
            )
        return await self.get_batch(owner, store, id)

    async def store(self, owner: str, id: str) -> Row:
        """The row of a store, or `NotFound`."""
        VECTOR_STORE.check(id)
        return await STORES.of(await self._storage.database(), owner).get(id)

    async def _living(self, owner: str, store: str) -> None:
        if (await self.store(owner, store))["is_expired"]:
            raise InvalidRequest(f"vector store {store} has expired; make another", param="vector_store_id")

    async def _row(self, owner: str, store: str, file: str) -> Row:
        await self.store(owner, store)
        FILE.check(file)
        rows = await ATTACHMENTS.of(await self._storage.database(), owner).find({"store": store, "file": file})
        if not rows:
            raise FILE.missing(file)
        return rows[0]

    async def _batch(self, owner: str, store: str, id: str) -> Row:
        await self.store(owner, store)
        FILE_BATCH.check(id)
        row = await BATCHES.of(await self._storage.database(), owner).get(id)
        if row["store"] != store:
            raise FILE_BATCH.missing(id)
        return row

    async def _cursor(self, owner: str, store: str, file: str | None) -> str | None:
        """The attachment that the id of a file stands for in a list."""
        if file is None:
            return None
        try:
            return (await self._row(owner, store, file))["id"]
        except NotFound:
            raise InvalidRequest(f"the list has no {found(file)} to go on from", param="after") from None

    async def _detach(self, owner: str, row: Row) -> None:
        database = await self._storage.database()
        await database.run(
            ATTACHMENTS.of(database, owner).deleting(row["id"]), await self._ingestion.forgetting(owner, row)
        )
        await self._ingestion.forget(owner, row["store"], row["id"])

    async def _let_go(self, owner: str, file: str) -> None:
        """Take a file that goes out of every store."""
        for row in await ATTACHMENTS.of(await self._storage.database(), owner).find({"file": file}):
            await self._detach(owner, row)
