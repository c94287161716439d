"""Containers of the code interpreter as rows, their files as contents beside them.

Everything survives the server, and several servers on one database see the same containers. One that was not used for
its time has expired: its files are gone, and what is known of it stays for a day. Knows no sandbox and no wire.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from llamakit.api.containers import MAX_FILES, KeptContainer, KeptFile
from llamakit.api.openai_lists import PageQuery
from llamakit.core.errors import Conflict, InvalidRequest, NotFound, Overloaded
from llamakit.stack.container_leases import LIVING, ContainerLeases
from llamakit.stack.storage import Storage
from llamakit.storage.ids import CONTAINER, IdKind
from llamakit.storage.sql import Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned, stamp

MOST, MOST_OF_ONE, MOST_BYTES = 1024, 32, 4 << 30
"""Containers in use of all owners and of one, and bytes of all files together."""
KNOWN_S = 86_400.0
"""How long an expired container is told of."""
EXPIRED_AT_ONCE = 1000

CONTAINER_FILE = IdKind("cfile_", "file of this container")
CONTAINERS = Table(
    "containers",
    ("name", "memory_bytes", "idle_ns", "active_ns", "is_expired", "lease", "lease_until_ns"),
    ids=CONTAINER,
)
FILES = Table("container_files", ("container", "name", "digest", "size", "source"), ids=CONTAINER_FILE)


async def create_containers(transaction: Executor) -> None:
    """The migration that makes the tables of containers."""
    statements = [
        *create_owned(
            "containers",
            "name TEXT NOT NULL",
            "memory_bytes BIGINT NOT NULL",
            "idle_ns BIGINT NOT NULL",
            "active_ns BIGINT NOT NULL",
            "is_expired BIGINT NOT NULL",
            "lease TEXT",
            "lease_until_ns BIGINT NOT NULL",
        ),
        *create_owned(
            "container_files",
            "container TEXT NOT NULL",
            "name TEXT NOT NULL",
            "digest TEXT NOT NULL",
            "size BIGINT NOT NULL",
            "source TEXT NOT NULL",
        ),
        "CREATE UNIQUE INDEX container_files_once ON container_files (owner, container, name)",
        "CREATE INDEX container_files_by_digest ON container_files (digest)",
    ]
    for sql in statements:
        await transaction.execute(sql)


class ContainerRows:
    """The containers of one database; fulfils `ContainerShelf`."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock
        self._leases = ContainerLeases(storage, self._now)

    async def create(
        self, owner: str, *, name: str, memory_bytes: int, idle_s: float, files: Mapping[str, bytes], most_bytes: int
    ) -> KeptContainer:
        """A container with these files; `Overloaded` where there are too many, `InvalidRequest` for too large files."""
        id, now = CONTAINER.new(), self._now()
        inserting = Statement(
            "INSERT INTO containers (id, owner, created_ns, name, memory_bytes, idle_ns, active_ns, is_expired, "
            "lease_until_ns) SELECT ?2, ?1, CAST(?4 AS BIGINT), ?5, CAST(?6 AS BIGINT), CAST(?7 AS BIGINT), "
            "CAST(?3 AS BIGINT), 0, 0 WHERE "
            "(SELECT count(*) FROM containers WHERE is_expired = 0 AND active_ns + idle_ns >= ?3) < ?8 AND "
            "(SELECT count(*) FROM containers WHERE owner = ?1 AND is_expired = 0 AND active_ns + idle_ns >= ?3) < ?9",
            (owner, id, now, stamp(), name, memory_bytes, int(idle_s * 1e9), MOST, MOST_OF_ONE),
            expect=1,
            otherwise=Overloaded(
                "too many interpreter containers are in use; delete one, or try again", retry_after_s=30.0
            ),
        )
        keeping = await self._keeping(owner, id, files, "user", most_bytes)
        await (await self._storage.database()).run(inserting, *keeping)
        return await self.get(owner, id)

    async def get(self, owner: str, id: str) -> KeptContainer:
        """A container, also one that has expired; looking at it is no use of it."""
        CONTAINER.check(id)
        return self._kept(await CONTAINERS.of(await self._storage.database(), owner).get(id))

    async def page(self, owner: str, page: PageQuery) -> tuple[list[KeptContainer], bool]:
        """A page of an owner's containers, and whether there are more."""
        rows = CONTAINERS.of(await self._storage.database(), owner)
        found = await rows.page(order=page.order, limit=page.limit, after=page.after, before=page.before)
        return [self._kept(row) for row in found.rows], found.has_more

    async def delete(self, owner: str, id: str) -> None:
        """Forget one and its files; a run that goes on in it keeps nothing."""
        CONTAINER.check(id)
        database = await self._storage.database()
        await database.run(
            CONTAINERS.of(database, owner).deleting(id),
            Statement("DELETE FROM container_files WHERE owner = ?1 AND container = ?2", (owner, id)),
        )

    async def put(
        self, owner: str, id: str, name: str, data: bytes, source: Literal["user", "assistant"], *, most_bytes: int
    ) -> KeptFile:
        """Keep a file, in the place of one of the same name; raises `InvalidRequest` where no room is left."""
        keeping = await self._keeping(owner, CONTAINER.check(id), {name: data}, source, most_bytes)
        await (await self._storage.database()).run(self._using(owner, id), *keeping)
        rows = FILES.of(await self._storage.database(), owner)
        return _file((await rows.find({"container": id, "name": name}))[0])

    async def files(self, owner: str, id: str, page: PageQuery) -> tuple[list[KeptFile], bool]:
        """A page of the files of a container, and whether there are more."""
        await self._living(owner, id)
        rows = FILES.of(await self._storage.database(), owner)
        found = await rows.page(where={"container": id}, order=page.order, limit=page.limit, after=page.after)
        return [_file(row) for row in found.rows], found.has_more

    async def file(self, owner: str, id: str, file_id: str) -> KeptFile:
        """A file, or `NotFound`."""
        return _file(await self._file_row(owner, id, file_id))

    async def read(self, owner: str, id: str, file_id: str) -> tuple[KeptFile, bytes]:
        """A file and its content."""
        row = await self._file_row(owner, id, file_id)
        return _file(row), await (await self._storage.blobs()).read(row["digest"])

    async def delete_file(self, owner: str, id: str, file_id: str) -> None:
        """Take a file out."""
        await self._file_row(owner, id, file_id)
        database = await self._storage.database()
        await database.run(self._using(owner, id), FILES.of(database, owner).deleting(file_id))

    @asynccontextmanager
    async def hold(self, owner: str, id: str, *, wait_s: float) -> AsyncGenerator[HeldContainer, None]:
        """A container for oneself on all servers of the database; `Overloaded` where others hold it for too long."""
        CONTAINER.check(id)
        async with self._leases.taken(owner, id, wait_s, self._living) as lease:
            rows = await FILES.of(await self._storage.database(), owner).find({"container": id})
            blobs = await self._storage.blobs()
            given = {row["name"]: (row["digest"], await blobs.read(row["digest"])) for row in rows}
            yield HeldContainer(self, await self.get(owner, id), owner, lease, given)

    async def expire(self) -> int:
        """Take the files from the containers of everybody that nobody used in their time; how many."""
        database, now = await self._storage.database(), self._now()
        rows = await database.fetch(
            "SELECT id, owner, active_ns FROM containers "
            "WHERE is_expired = 0 AND active_ns + idle_ns < ?1 AND lease_until_ns < ?1 LIMIT ?2",
            now,
            EXPIRED_AT_ONCE,
        )
        expired = 0
        for row in rows:
            try:
                await database.run(
                    Statement(
                        "UPDATE containers SET is_expired = 1 "
                        "WHERE owner = ?1 AND id = ?2 AND active_ns = ?3 AND lease_until_ns < ?4",
                        (row["owner"], row["id"], row["active_ns"], now),
                        expect=1,
                    ),
                    Statement(
                        "DELETE FROM container_files WHERE owner = ?1 AND container = ?2", (row["owner"], row["id"])
                    ),
                )
                expired += 1
            except Conflict:
                continue  # it was used or deleted meanwhile
        await database.execute(
            "DELETE FROM containers WHERE is_expired = 1 AND active_ns + idle_ns < ?1", now - int(KNOWN_S * 1e9)
        )
        return expired

    async def keep(
        self, held: HeldContainer, files: Mapping[str, bytes], gone: Sequence[str], *, most_bytes: int
    ) -> Mapping[str, KeptFile]:
        """Keep what a run left and take out what it removed, all in one commit, as long as the lease holds."""
        owner, id = held.owner, held.container.id
        keeping = await self._keeping(owner, id, files, "assistant", most_bytes)
        sql = "UPDATE containers SET active_ns = ?3 WHERE owner = ?1 AND id = ?2 AND lease = ?4"
        still = Statement(sql, (owner, id, self._now(), held.lease), expect=1, otherwise=_taken_over(id))
        # A file that a client put meanwhile in the place of one that the run removed stays.
        removing = [
            Statement(
                "DELETE FROM container_files WHERE owner = ?1 AND container = ?2 AND name = ?3 AND digest = ?4",
                (owner, id, name, held.digests[name]),
            )
            for name in gone
            if name in held.digests
        ]
        database = await self._storage.database()
        await database.run(still, *removing, *keeping)
        rows = await FILES.of(database, owner).find({"container": id, "name": list(files)})
        return {row["name"]: _file(row) for row in rows}

    async def _keeping(
        self, owner: str, id: str, files: Mapping[str, bytes], source: str, most_bytes: int
    ) -> list[Statement]:
        """The statements that keep files whose contents lie on the disk when this returns, and check the room."""
        blobs = await self._storage.blobs()
        statements = []
        for name, data in files.items():
            if len(data) > most_bytes:
                raise _too_large(most_bytes)
            blob = await blobs.put(data, limit=most_bytes)
            statements.append(
                Statement(
                    "INSERT INTO container_files (id, owner, created_ns, container, name, digest, size, source) "
                    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (owner, container, name) DO UPDATE SET "
                    "digest = excluded.digest, size = excluded.size, source = excluded.source",
                    (CONTAINER_FILE.new(), owner, stamp(), id, name, blob.digest, blob.size, source),
                )
            )
        return [*statements, *_room(owner, id, most_bytes)] if statements else []

    def _using(self, owner: str, id: str) -> Statement:
        """The statement that counts as a use, and stops a batch where the container has expired."""
        sql = f"UPDATE containers SET active_ns = ?3 WHERE {LIVING}"
        return Statement(sql, (owner, id, self._now()), expect=1, otherwise=_expired(id))

    async def _living(self, owner: str, id: str) -> None:
        if (await self.get(owner, id)).is_expired:
            raise _expired(id)

    async def _file_row(self, owner: str, id: str, file_id: str) -> Row:
        await self._living(owner, id)
        CONTAINER_FILE.check(file_id)
        row = await FILES.of(await self._storage.database(), owner).get(file_id)
        if row["container"] != id:
            raise CONTAINER_FILE.missing(file_id)
        return row

    def _kept(self, row: Row) -> KeptContainer:
        now = self._now()
        is_over = row["active_ns"] + row["idle_ns"] < now and row["lease_until_ns"] < now
        return KeptContainer(
            id=row["id"],
            name=row["name"],
            memory_bytes=row["memory_bytes"],
            idle_s=row["idle_ns"] / 1e9,
            created_s=row["created_ns"] / 1e9,
            active_s=row["active_ns"] / 1e9,
            is_expired=bool(row["is_expired"]) or is_over,
        )

    def _now(self) -> int:
        return int(self._clock() * 1e9)


class HeldContainer:
    """A container that nobody else runs code in; fulfils `Held`."""

    def __init__(
        self,
        rows: ContainerRows,
        container: KeptContainer,
        owner: str,
        lease: str,
        given: Mapping[str, tuple[str, bytes]],
    ) -> None:
        self._rows = rows
        self.container = container
        self.owner = owner
        self.lease = lease
        self.files = {name: data for name, (_, data) in given.items()}
        self.digests = {name: digest for name, (digest, _) in given.items()}

    async def keep(self, files: Mapping[str, bytes], gone: Sequence[str], *, most_bytes: int) -> Mapping[str, KeptFile]:
        """Keep what a run left and take out what it removed; raises `InvalidRequest` where no room is left, and
        `Conflict` where the container is not held any more.
        """
        return await self._rows.keep(self, files, gone, most_bytes=most_bytes)


def _room(owner: str, id: str, most_bytes: int) -> list[Statement]:
    """The statements that undo a batch after which a container, or all of them, would be too full."""
    return [
        Statement(
            "SELECT 1 AS fits FROM (SELECT count(*) AS n, sum(size) AS bytes FROM container_files "
            "WHERE owner = ?1 AND container = ?2) AS mine WHERE n <= ?3 AND bytes <= ?4",
            (owner, id, MAX_FILES, most_bytes),
            expect=1,
            otherwise=_too_large(most_bytes),
        ),
        Statement(
            "SELECT 1 AS fits FROM (SELECT sum(size) AS bytes FROM container_files) AS everything WHERE bytes <= ?1",
            (MOST_BYTES,),
            expect=1,
            otherwise=InvalidRequest("no room is left for the files of interpreter containers", param="file"),
        ),
    ]


def _too_large(most_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        f"a container has at most {MAX_FILES} files of {most_bytes} bytes together; take some out", param="file"
    )


def _expired(id: str) -> NotFound:
    return NotFound(f"interpreter container {id} is gone, or was unused for too long and has expired; make another")


def _taken_over(id: str) -> Conflict:
    return Conflict(
        f"interpreter container {id} was deleted, or taken over by other code while this one stood still; "
        "nothing of this run was kept, run it again"
    )


def _file(row: Row) -> KeptFile:
    source: Any = row["source"]
    return KeptFile(id=row["id"], name=row["name"], size=row["size"], source=source, created_s=row["created_ns"] / 1e9)
