"""PostgreSQL as a `Database`, for several server processes: asyncpg under the same statements.

A write is acknowledged after COMMIT with `synchronous_commit=on`. A batch that lost a race
(serialization, deadlock) is run again, since it left nothing behind; one whose connection broke
while committing is not, since nobody knows. asyncpg is imported when a database is opened.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Self

from llamakit.core.errors import Conflict, InvalidRequest, MissingExtra, Overloaded, StorageError, StorageFull
from llamakit.storage.sql import Executor, Outcome, Row, Statement, Value

if TYPE_CHECKING:
    import asyncpg

_RACE_TRIES = 5
_PARAMETER = re.compile(r"\?(\d+)")
_BLOB = re.compile(r"\bBLOB\b")
_COUNT = re.compile(r"(\d+)$")
_RETURNS_ROWS = re.compile(r"\s*(SELECT|WITH|VALUES|SHOW)\b|.*\bRETURNING\b", re.IGNORECASE | re.DOTALL)


@functools.lru_cache(maxsize=4096)
def spelled(sql: str) -> str:
    """The statement as PostgreSQL spells it."""
    return _BLOB.sub("BYTEA", _PARAMETER.sub(r"$\1", sql))


@functools.lru_cache(maxsize=4096)
def _returns_rows(sql: str) -> bool:
    return _RETURNS_ROWS.match(sql) is not None


def _translated(error: Exception) -> Exception:
    import asyncpg

    match error:
        case asyncpg.UniqueViolationError() | asyncpg.ForeignKeyViolationError():
            return Conflict("an object of that id or name exists, or one it refers to does not")
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError() | UnicodeEncodeError():
            return InvalidRequest("a text holds a NUL or half a surrogate pair, which the database cannot keep")
        case asyncpg.DataError():
            return InvalidRequest(f"a value does not fit its column: {error}")
        case asyncpg.DiskFullError():
            return StorageFull("the database's disk is full: nothing was written; free some space and send it again")
        case asyncpg.TooManyConnectionsError() | asyncpg.CannotConnectNowError():
            return Overloaded(f"the database takes no more connections now: {error}")
        case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError():
            return Conflict("another writer changed the same rows at the same time; read them and try again")
        case TimeoutError():
            return Overloaded("the database did not answer in time; try again in a moment")
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            return StorageError(
                f"the database refuses this URL now ({type(error).__name__}): check user, password and name"
            )
        # InternalClientError: the server's farewell arrived between two of our messages.
        case (
            asyncpg.PostgresConnectionError()
            | asyncpg.AdminShutdownError()
            | asyncpg.CrashShutdownError()
            | OSError()
            | asyncpg.InterfaceError()
            | asyncpg.InternalClientError()
        ):
            return StorageError(
                f"the connection to the database broke ({type(error).__name__}); what was sent may or may not be there"
            )
        case _:
            return error


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        ours = _translated(error)
        if ours is error:
            raise
        raise ours from error


class _Connected:
    """Statements on one connection; each batch is a transaction, or a savepoint inside one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, *statements: Statement) -> list[Outcome]:
        with _translating():
            async with self._connection.transaction():
                return [await self._one(statement) for statement in statements]

    async def execute(self, sql: str, *args: Value) -> int:
        return (await self.run(Statement(sql, args)))[0].count

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        with _translating():
            return [dict(record) for record in await self._connection.fetch(spelled(sql), *args)]

    async def _one(self, statement: Statement) -> Outcome:
        sql = spelled(statement.sql)
        if _returns_rows(sql):
            rows = [dict(record) for record in await self._connection.fetch(sql, *statement.args)]
            outcome = Outcome(len(rows), rows)
        else:
            status: str = await self._connection.execute(sql, *statement.args)
            found = _COUNT.search(status)
            outcome = Outcome(int(found.group(1)) if found else 0)
        statement.check(outcome.count)
        return outcome


class PostgresDatabase:
    """A pool of connections to one database. Make it with `open`; it belongs to the event loop that opened it."""

    dialect: Literal["postgres"] = "postgres"

    def __init__(self, pool: asyncpg.Pool, acquire_s: float) -> None:
        self._pool = pool
        self._acquire_s = acquire_s

    @classmethod
    async def open(
        cls, url: str, *, max_connections: int = 10, statement_s: float = 60.0, acquire_s: float = 10.0
    ) -> Self:
        """Connect. `url` is `postgresql://user:password@host:port/database` and never appears in an error.

        Raises `MissingExtra` without asyncpg, `StorageError` where no server answers or it refuses.
        """
        try:
            import asyncpg
        except ImportError as error:
            raise MissingExtra("PostgreSQL needs asyncpg: pip install 'llamakit[postgres]'") from error
        settings = {"synchronous_commit": "on", "application_name": "llamakit"}
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=max_connections,
                command_timeout=statement_s,
                timeout=acquire_s,
                server_settings=settings,
            )
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # The cause is not chained: its text may repeat the URL, and the URL holds the password.
            raise StorageError(
                f"cannot open the PostgreSQL database ({type(error).__name__}): check that the server runs and that "
                "host, user, password and database in its URL are right"
            ) from None
        return cls(pool, acquire_s)

    async def run(self, *statements: Statement) -> list[Outcome]:
        """Run all or none; returns after COMMIT."""
        for attempt in range(_RACE_TRIES):
            try:
                async with self._connection() as connection:
                    return await _Connected(connection).run(*statements)
            except Conflict as error:
                if attempt == _RACE_TRIES - 1 or not _lost_race(error):
                    raise
            await asyncio.sleep(0.01 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def execute(self, sql: str, *args: Value) -> int:
        """Run one changing statement; the number of rows it touched."""
        return (await self.run(Statement(sql, args)))[0].count

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Rows of one reading statement."""
        async with self._connection() as connection:
            return await _Connected(connection).fetch(sql, *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Executor]:
        """Several calls as one; a batch inside is a savepoint."""
        async with self._connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield _Connected(connection)
            except BaseException:
                await _quietly(transaction.rollback())
                raise
            with _translating():
                await transaction.commit()

    async def close(self) -> None:
        """Close every connection once its statement has ended."""
        await self._pool.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        with _translating():
            connection = await self._pool.acquire(timeout=self._acquire_s)
        try:
            yield connection
        except StorageError:
            # A broken connection cannot be reset for the next caller: it is dropped, and the pool opens another.
            _drop(connection)
            raise
        finally:
            await self._pool.release(connection)


def _drop(connection: Any) -> None:
    """Close a broken connection; the pool may have noticed first and taken it back."""
    import asyncpg

    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def _lost_race(error: Conflict) -> bool:
    import asyncpg

    return isinstance(error.__cause__, asyncpg.SerializationError | asyncpg.DeadlockDetectedError)


async def _quietly(rollback: Any) -> None:
    """A rollback on a broken connection fails too; the first error is the one to report."""
    import asyncpg

    try:
        await rollback
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return
