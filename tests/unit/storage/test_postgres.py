import pytest

from llamakit.core.errors import InvalidRequest, StorageError
from llamakit.storage.postgres import PostgresDatabase, spelled
from llamakit.storage.sql import Statement


def test_statements_are_spelled_for_postgres():
    assert spelled("INSERT INTO t (a, b) VALUES (?1, ?12)") == "INSERT INTO t (a, b) VALUES ($1, $12)"
    assert spelled("CREATE TABLE t (data BLOB, blobs TEXT)") == "CREATE TABLE t (data BYTEA, blobs TEXT)"


async def test_a_password_never_appears_in_an_error():
    pytest.importorskip("asyncpg")
    with pytest.raises(StorageError, match="check that the server runs") as error:
        await PostgresDatabase.open("postgresql://ann:hunter2secret@127.0.0.1:1/none", acquire_s=2)
    chain, text = error.value, ""
    while chain is not None:
        text += str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    assert "hunter2secret" not in text


async def test_commits_wait_for_the_disk(postgres_url: str):
    database = await PostgresDatabase.open(postgres_url)
    assert await database.fetch("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]
    await database.close()


async def test_a_nul_is_the_callers_mistake(postgres_url: str):
    database = await PostgresDatabase.open(postgres_url)
    await database.execute("CREATE TABLE t (v TEXT)")
    with pytest.raises(InvalidRequest, match="NUL"):
        await database.execute("INSERT INTO t VALUES (?1)", "a\0b")
    await database.close()


async def test_a_connection_killed_between_writes_costs_no_acknowledged_row(postgres_url: str):
    database = await PostgresDatabase.open(postgres_url, max_connections=3)
    await database.execute("CREATE TABLE t (k BIGINT PRIMARY KEY)")
    acknowledged = set()
    for k in range(60):
        if k % 7 == 3:
            admin = await PostgresDatabase.open(postgres_url, max_connections=1)
            await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await admin.close()
        try:
            await database.run(Statement("INSERT INTO t VALUES (?1)", (k,), expect=1))
            acknowledged.add(k)
        except StorageError:
            continue
    stored = {row["k"] for row in await database.fetch("SELECT k FROM t")}
    assert acknowledged <= stored and len(acknowledged) > 40
    await database.close()


async def test_a_farewell_between_two_messages_is_a_broken_connection_and_the_next_write_works(postgres_url: str):
    asyncpg = pytest.importorskip("asyncpg")
    database = await PostgresDatabase.open(postgres_url, max_connections=1)
    await database.execute("CREATE TABLE t (k BIGINT PRIMARY KEY)")
    with pytest.raises(StorageError, match="may or may not"):
        async with database.transaction() as rows:
            await rows.run(Statement("INSERT INTO t VALUES (?1)", (1,)))
            # What the driver raises when the server ends the session while a message is being written.
            rows._connection = _Farewell(asyncpg)
            await rows.run(Statement("INSERT INTO t VALUES (?1)", (2,)))
    await database.execute("INSERT INTO t VALUES (?1)", 3)
    assert [row["k"] for row in await database.fetch("SELECT k FROM t")] == [3]
    await database.close()


class _Farewell:
    def __init__(self, asyncpg) -> None:
        self._error = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    def transaction(self):
        raise self._error
