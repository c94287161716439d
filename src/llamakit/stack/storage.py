"""Where a server keeps its rows: one database, opened on first use, its tables brought up to date once.

A target is text: `local` (a file under the data home), `sqlite:PATH`, `:memory:` (a private file that is gone
with the server), or a PostgreSQL URL, which several servers may share.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from llamakit.core.config import data_home
from llamakit.core.errors import ConfigError, StorageError
from llamakit.storage.blobs import Blobs, BlobStore
from llamakit.storage.database_blobs import DatabaseBlobs, create_blobs
from llamakit.storage.migrations import Migration, migrate
from llamakit.storage.sql import Database
from llamakit.storage.sqlite import SqliteDatabase

LOCAL = "local"
TEMPORARY = ":memory:"
LOCAL_FILE = "server.db"
_POSTGRES = ("postgresql://", "postgres://")
_SQLITE = "sqlite:"


def check_target(target: str) -> None:
    """Raise `ConfigError` for a text that is no target; never repeats it, since a URL may hold a password."""
    is_file = target.startswith(_SQLITE) and len(target) > len(_SQLITE)
    if target not in (LOCAL, TEMPORARY) and not is_file and not target.startswith(_POSTGRES):
        raise ConfigError(
            f"storage is {LOCAL!r}, '{_SQLITE}PATH', {TEMPORARY!r} or a URL that begins with {_POSTGRES[0]}; "
            f"got {len(target)} characters that are none of these"
        )


class Storage:
    """The database of one server."""

    def __init__(self, target: str, steps: Sequence[Migration]) -> None:
        check_target(target)
        self._target = target
        self._steps = tuple(steps)
        self._lock = asyncio.Lock()
        self._remove: weakref.finalize[..., Storage] | None = None
        self._opened: Database | None = None
        self._blobs: Blobs | None = None
        self._temporary: Path | None = None
        self._is_closed = False

    async def database(self) -> Database:
        """The open database, its tables as this build wants them; raises `ConfigError` or `StorageError`."""
        if self._opened is None:
            async with self._lock:
                if self._opened is None:
                    self._opened = await self._open()
        return self._opened

    async def blobs(self) -> Blobs:
        """Where contents lie: a folder beside a SQLite file; the database itself where several servers share it."""
        database = await self.database()
        if self._blobs is None:
            if database.dialect == "postgres":
                await migrate(database, [create_blobs], subject="blobs")
                self._blobs = self._blobs or DatabaseBlobs(database)
            else:
                self._blobs = await asyncio.to_thread(BlobStore, self.folder("contents"))
        return self._blobs

    def folder(self, name: str) -> Path:
        """A place for files beside the SQLite file, once that is open; raises `ConfigError` on PostgreSQL."""
        if self._target.startswith(_POSTGRES):
            raise ConfigError(f"{name} would lie in a folder, and servers on one PostgreSQL share none")
        if self._target == LOCAL:
            return data_home() / name
        if self._temporary is not None:
            return self._temporary / name
        path = Path(self._target.removeprefix(_SQLITE)).expanduser()
        return path.with_name(f"{path.name}.{name}")

    async def aclose(self) -> None:
        """Finish accepted writes and close; a private file is removed. A second call does nothing."""
        self._is_closed = True
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()
        if self._remove is not None:
            await asyncio.to_thread(self._remove)

    async def _open(self) -> Database:
        if self._is_closed:
            raise StorageError("the database is closed because the server is stopping")
        opened = await self._connect()
        try:
            await migrate(opened, self._steps)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def _connect(self) -> Database:
        if self._target.startswith(_POSTGRES):
            from llamakit.storage.postgres import PostgresDatabase

            return await PostgresDatabase.open(self._target)
        if self._target == LOCAL:
            return await SqliteDatabase.open(data_home() / LOCAL_FILE)
        if self._target == TEMPORARY:
            self._temporary = Path(tempfile.mkdtemp(prefix="llamakit-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
            return await SqliteDatabase.open(self._temporary / LOCAL_FILE)
        return await SqliteDatabase.open(Path(self._target.removeprefix(_SQLITE)).expanduser())
