"""Containers as rows: kept, shared, leased, owned and expired, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.postgres import empty_database, postgres_server
from tests.tiny import FakeClock

from llamakit.api.openai_lists import PageQuery
from llamakit.core.errors import Conflict, InvalidRequest, NotFound, Overloaded
from llamakit.stack import container_leases, container_rows
from llamakit.stack.container_leases import LEASE_S
from llamakit.stack.container_rows import ContainerRows
from llamakit.stack.housekeeping import Housekeeping
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

__all__ = ["postgres_server"]
ROOM = 1000


@pytest.fixture(params=["sqlite", "postgres"])
async def target(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'server.db'}"
        return
    async with empty_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@asynccontextmanager
async def server(target, clock=None):
    """What one server has of the containers."""
    storage = Storage(target, STEPS)
    try:
        yield ContainerRows(storage) if clock is None else ContainerRows(storage, clock=clock), storage
    finally:
        await storage.aclose()


async def create(rows, owner="ann", idle_s=1200.0, **files):
    made = await rows.create(owner, name="work", memory_bytes=1 << 30, idle_s=idle_s, files=files, most_bytes=ROOM)
    return made.id


async def contents(rows, id, owner="ann"):
    files, _ = await rows.files(owner, id, PageQuery(order="asc"))
    return {file.name: (await rows.read(owner, id, file.id))[1] for file in files}


async def test_containers_outlive_their_server(target):
    async with server(target) as (rows, _):
        id = await create(rows, a=b"one")
        async with rows.hold("ann", id, wait_s=1) as held:
            assert held.files == {"a": b"one"}
            kept = await held.keep({"b": b"two", "c": b""}, ["a"], most_bytes=ROOM)
            assert kept["b"].source == "assistant" and kept["b"].size == 3
        before = await rows.get("ann", id)
    async with server(target) as (rows, storage):
        assert await rows.get("ann", id) == before and before.name == "work"
        assert await contents(rows, id) == {"b": b"two", "c": b""}
        await Housekeeping(storage).sweep()
        assert await contents(rows, id) == {"b": b"two", "c": b""}
        file = await rows.put("ann", id, "b", b"2", "user", most_bytes=ROOM)
        assert (await rows.file("ann", id, file.id)).size == 1 and file.id == kept["b"].id
        await rows.delete_file("ann", id, file.id)
        assert await contents(rows, id) == {"c": b""}
        await rows.delete("ann", id)
        with pytest.raises(NotFound):
            await rows.get("ann", id)


async def test_one_runs_code_in_a_container_at_a_time_whichever_server_it_is(target):
    async with server(target) as (first, _), server(target) as (second, _):
        id = await create(first, n=b"0")

        async def count(rows):
            async with rows.hold("ann", id, wait_s=30) as held:
                n = int(held.files["n"])
                await asyncio.sleep(0.01)
                await held.keep({"n": str(n + 1).encode()}, [], most_bytes=ROOM)

        await asyncio.gather(*(count(rows) for rows in (first, second) * 6))
        assert await contents(second, id) == {"n": b"12"}
        async with first.hold("ann", id, wait_s=1):
            with pytest.raises(Overloaded, match="other code has run"):
                async with second.hold("ann", id, wait_s=0.05):
                    pass


async def test_the_lease_of_a_server_that_was_killed_ends(target):
    clock = FakeClock()
    clock.advance(1e9)
    async with server(target, clock) as (killed, _), server(target, clock) as (other, _):
        id = await create(killed)
        await killed._leases.take("ann", id, "a lease that nobody gives back", 1.0, killed._living)
        with pytest.raises(Overloaded):
            await other._leases.take("ann", id, "mine", 0.05, other._living)
        clock.advance(LEASE_S + 1)
        async with other.hold("ann", id, wait_s=0.05) as held:
            await held.keep({"a": b"1"}, [], most_bytes=ROOM)
        # Should it live after all, what it leaves is not kept.
        late = container_rows.HeldContainer(killed, await killed.get("ann", id), "ann", "a lease that ...", {})
        with pytest.raises(Conflict, match="taken over"):
            await late.keep({"a": b"2"}, [], most_bytes=ROOM)
        assert await contents(other, id) == {"a": b"1"}


async def test_a_lease_is_renewed_as_long_as_the_code_runs(target, monkeypatch):
    monkeypatch.setattr(container_leases, "LEASE_S", 0.4)
    async with server(target) as (first, _), server(target) as (second, _):
        id = await create(first)
        async with first.hold("ann", id, wait_s=1) as held:
            with pytest.raises(Overloaded):
                async with second.hold("ann", id, wait_s=1.0):
                    pass
            await held.keep({"a": b"1"}, [], most_bytes=ROOM)


async def test_what_is_unused_expires_and_is_told_of_for_a_day(target):
    clock = FakeClock()
    clock.advance(1e9)
    async with server(target, clock) as (rows, _):
        old, used = await create(rows, idle_s=60, a=b"1"), await create(rows, idle_s=60)
        clock.advance(40)
        await rows.put("ann", used, "b", b"2", "user", most_bytes=ROOM)
        clock.advance(40)
        assert (await rows.get("ann", old)).is_expired and not (await rows.get("ann", used)).is_expired
        for attempt in (
            rows.files("ann", old, PageQuery()),
            rows.put("ann", old, "c", b"3", "user", most_bytes=ROOM),
            rows.hold("ann", old, wait_s=0).__aenter__(),
        ):
            with pytest.raises(NotFound, match="has expired; make another"):
                await attempt
        assert await rows.expire() == 1 and await rows.expire() == 0
        listed, _ = await rows.page("ann", PageQuery(order="asc"))
        assert [one.is_expired for one in listed] == [True, False]
        async with rows.hold("ann", used, wait_s=0):
            clock.advance(5)
            assert await rows.expire() == 0
        clock.advance(container_rows.KNOWN_S + 61)
        assert await rows.expire() == 1
        with pytest.raises(NotFound):
            await rows.get("ann", old)


async def test_nobody_reaches_anothers_container(target):
    async with server(target) as (rows, _):
        id = await create(rows, a=b"1")
        other = await create(rows, owner="bob")
        (file,), _ = await rows.files("ann", id, PageQuery())
        for attempt in (
            lambda owner, id: rows.get(owner, id),
            lambda owner, id: rows.files(owner, id, PageQuery()),
            lambda owner, id: rows.file(owner, id, file.id),
            lambda owner, id: rows.read(owner, id, file.id),
            lambda owner, id: rows.put(owner, id, "x", b"", "user", most_bytes=ROOM),
            lambda owner, id: rows.delete_file(owner, id, file.id),
            lambda owner, id: rows.delete(owner, id),
            lambda owner, id: rows.hold(owner, id, wait_s=0).__aenter__(),
        ):
            with pytest.raises(NotFound):
                await attempt("bob", id)
        with pytest.raises(NotFound):
            await rows.file("bob", other, file.id)
        assert [one.id for one in (await rows.page("bob", PageQuery()))[0]] == [other]
        assert await contents(rows, id) == {"a": b"1"}


async def test_there_are_bounds(target, monkeypatch):
    async with server(target) as (rows, _):
        id = await create(rows, a=bytes(900))
        for files in ({"b": bytes(101)}, {"b": bytes(ROOM + 1)}, {f"f{n}": b"" for n in range(256)}):
            async with rows.hold("ann", id, wait_s=0) as held:
                with pytest.raises(InvalidRequest, match="at most 256 files of 1000 bytes"):
                    await held.keep(files, [], most_bytes=ROOM)
        assert set(await contents(rows, id)) == {"a"}
        monkeypatch.setattr(container_rows, "MOST_BYTES", 950)
        with pytest.raises(InvalidRequest, match="no room is left"):
            await create(rows, b=bytes(51))
        monkeypatch.setattr(container_rows, "MOST_OF_ONE", 2)
        await create(rows)
        with pytest.raises(Overloaded, match="too many"):
            await create(rows)
        await create(rows, owner="bob")
        monkeypatch.setattr(container_rows, "MOST", 3)
        with pytest.raises(Overloaded, match="too many"):
            await create(rows, owner="bob")


async def test_what_a_client_puts_while_code_runs_stays(target):
    async with server(target) as (rows, _):
        id = await create(rows, a=b"old", b=b"old")
        async with rows.hold("ann", id, wait_s=0) as held:
            await rows.put("ann", id, "a", b"new", "user", most_bytes=ROOM)
            await held.keep({}, ["a", "b"], most_bytes=ROOM)
        assert await contents(rows, id) == {"a": b"new"}
        async with rows.hold("ann", id, wait_s=0) as held:
            await rows.delete("ann", id)
            with pytest.raises(Conflict, match="was deleted"):
                await held.keep({"c": b""}, [], most_bytes=ROOM)
