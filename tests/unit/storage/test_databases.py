"""What every `Database` promises, on SQLite and on a real PostgreSQL."""

import asyncio

import pytest

from llamakit.core.errors import ConfigError, Conflict, InvalidRequest, NotFound
from llamakit.core.faults import injected
from llamakit.storage.ids import IdKind
from llamakit.storage.migrations import migrate
from llamakit.storage.sql import Database, Executor, Statement, fetch_one
from llamakit.storage.tables import Table, create_owned

THING = IdKind("thing_", "thing")
THINGS = Table("things", ("name", "size", "data", "ratio"), ids=THING)


async def create_things(transaction: Executor) -> None:
    columns = ("name TEXT", "size BIGINT", "data BLOB", "ratio DOUBLE PRECISION")
    for sql in create_owned("things", *columns):
        await transaction.execute(sql)
    await transaction.execute("CREATE UNIQUE INDEX things_by_name ON things (owner, name)")


async def add_colour(transaction: Executor) -> None:
    await transaction.execute("ALTER TABLE things ADD COLUMN colour TEXT")


@pytest.fixture
async def things(database: Database) -> Database:
    await migrate(database, [create_things])
    return database


async def test_values_come_back_as_they_went(things: Database):
    owned = THINGS.of(things, "ann")
    row = {"name": "späß 🦙", "size": 2**63 - 1, "data": bytes(range(256)), "ratio": 0.1}
    id = THING.new()
    await owned.insert(id, row)
    found = await owned.get(id)
    assert {name: found[name] for name in row} == row
    assert found["owner"] == "ann"
    await owned.update(id, {"name": None, "data": None})
    assert (await owned.get(id))["name"] is None


@pytest.mark.parametrize(
    "row", [{"size": 2**63}, {"size": -(2**63) - 1}, {"name": "half \ud800"}], ids=["big", "low", "surrogate"]
)
async def test_a_value_no_column_holds_is_the_callers_mistake(things: Database, row: dict):
    with pytest.raises(InvalidRequest):
        await THINGS.of(things, "ann").insert(THING.new(), row)
    await THINGS.of(things, "ann").insert(THING.new(), {"name": "next"})


async def test_nobody_reaches_what_another_owns(things: Database):
    ann, bob = THINGS.of(things, "ann"), THINGS.of(things, "bob")
    id = THING.new()
    await ann.insert(id, {"name": "mine", "size": 1})
    absent = THING.new()
    for attempt in (
        lambda key: bob.get(key),
        lambda key: bob.update(key, {"size": 2}),
        lambda key: bob.update(key, {"size": 2}, when={"size": 1}),
        lambda key: bob.delete(key),
        lambda key: things.run(bob.updating(key, {"size": 2})),
        lambda key: things.run(bob.deleting(key)),
    ):
        with pytest.raises(NotFound) as foreign:
            await attempt(id)
        with pytest.raises(NotFound) as missing:
            await attempt(absent)
        assert str(foreign.value).replace(id, absent) == str(missing.value)
    assert await bob.find() == [] and await bob.count() == 0
    assert await bob.delete_where({"name": "mine"}) == 0
    assert await bob.select("1 = 1 OR 1 = 1") == []
    assert (await bob.page()).rows == []
    assert (await ann.get(id))["size"] == 1


async def test_two_owners_may_use_the_same_id(things: Database):
    await THINGS.of(things, "ann").insert("shared", {"name": "a"})
    await THINGS.of(things, "bob").insert("shared", {"name": "b"})
    await THINGS.of(things, "bob").delete("shared")
    assert (await THINGS.of(things, "ann").get("shared"))["name"] == "a"
    with pytest.raises(Conflict):
        await THINGS.of(things, "ann").insert("shared", {"name": "other"})


def test_a_table_wants_an_owner():
    with pytest.raises(ValueError, match="without an owner"):
        THINGS.of(None, "")  # type: ignore[arg-type]


async def test_a_column_that_is_not_declared_never_reaches_sql(things: Database):
    owned = THINGS.of(things, "ann")
    for attempt in (
        lambda: owned.insert(THING.new(), {"name) --": "x"}),
        lambda: owned.update("x", {"owner": "bob"}),
        lambda: owned.find({"1=1 OR name": "x"}),
        lambda: owned.select("1 = 1", columns=("secret",)),
    ):
        with pytest.raises(ValueError, match="no column"):
            await attempt()


async def test_a_change_may_demand_what_it_changes(things: Database):
    owned = THINGS.of(things, "ann")
    id = THING.new()
    await owned.insert(id, {"size": 1})
    await owned.update(id, {"size": 2}, when={"size": 1})
    with pytest.raises(Conflict):
        await owned.update(id, {"size": 3}, when={"size": 1})
    assert (await owned.get(id))["size"] == 2


async def test_where_takes_null_and_lists(things: Database):
    owned = THINGS.of(things, "ann")
    for name in ("a", "b", None):
        await owned.insert(THING.new(), {"name": name, "size": 5})
    assert await owned.count({"name": None}) == 1
    assert await owned.count({"name": ("a", "b", "z")}) == 2
    assert await owned.count({"name": ()}) == 0
    assert [row["name"] for row in await owned.find({"size": 5}, limit=2)] == ["a", "b"]
    assert len(await owned.select("size > ?1 AND name IS NOT NULL", 4, columns=("id", "name"))) == 2


async def test_pages_cover_the_list_once_in_either_direction(things: Database):
    owned = THINGS.of(things, "ann")
    ids = [THING.new() for _ in range(7)]
    for n, id in enumerate(ids):
        await owned.insert(id, {"name": str(n)}, created_ns=1000 + n // 2)  # ties are broken by id
    for order in ("asc", "desc"):
        seen, after = [], None
        while True:
            page = await owned.page(order=order, limit=3, after=after)
            seen += [row["id"] for row in page.rows]
            if not page.has_more:
                break
            after = seen[-1]
        assert sorted(seen) == sorted(ids) and len(seen) == 7
        back = await owned.page(order=order, limit=3, before=seen[5])
        assert [row["id"] for row in back.rows] == seen[2:5] and back.has_more
        between = await owned.page(order=order, limit=10, after=seen[1], before=seen[5])
        assert [row["id"] for row in between.rows] == seen[2:5]
    with pytest.raises(InvalidRequest, match="go on from"):
        await owned.page(after=THING.new())
    with pytest.raises(InvalidRequest, match="limit"):
        await owned.page(limit=0)


async def test_a_batch_stands_or_falls_as_one(things: Database):
    owned = THINGS.of(things, "ann")
    first = THING.new()
    await owned.insert(first, {"name": "first"})
    with pytest.raises(Conflict):
        await things.run(owned.inserting(THING.new(), {"name": "new"}), owned.inserting(THING.new(), {"name": "first"}))
    with pytest.raises(NotFound):
        await things.run(owned.inserting(THING.new(), {"name": "new"}), owned.deleting(THING.new()))
    assert await owned.count() == 1
    outcomes = await things.run(
        Statement("UPDATE things SET size = 1 WHERE owner = ?1 RETURNING id", ("ann",)),
        Statement("UPDATE things SET size = 2 WHERE owner = ?1", ("nobody",)),
    )
    assert outcomes[0].rows == [{"id": first}] and outcomes[0].count == 1
    assert outcomes[1].count == 0


async def test_a_failing_batch_leaves_its_neighbours_alone(things: Database):
    owned = THINGS.of(things, "ann")
    writes = [owned.insert(THING.new(), {"name": f"n{n // 2}"}) for n in range(100)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 50
    assert await owned.count() == 50


async def test_what_was_acknowledged_is_read(things: Database):
    owned = THINGS.of(things, "ann")

    async def write_and_read(n: int) -> None:
        id = THING.new()
        await owned.insert(id, {"size": n})
        assert (await owned.get(id))["size"] == n

    await asyncio.gather(*(write_and_read(n) for n in range(50)))


async def test_a_transaction_commits_at_its_end(things: Database):
    async with things.transaction() as transaction:
        owned = THINGS.of(transaction, "ann")
        await owned.insert("one", {"size": 1})
        assert (await owned.get("one"))["size"] == 1
        with pytest.raises(Conflict):
            await owned.insert("one", {"size": 2})
        await owned.insert("two", {"size": 2})
        assert await THINGS.of(things, "ann").count() == 0
    assert await THINGS.of(things, "ann").count() == 2


async def test_a_transaction_that_raises_is_undone(things: Database):
    owned = THINGS.of(things, "ann")
    with pytest.raises(RuntimeError, match="changed my mind"):
        async with things.transaction() as transaction:
            await THINGS.of(transaction, "ann").insert("one", {"size": 1})
            raise RuntimeError("changed my mind")
    await owned.insert("two", {"size": 2})
    assert [row["id"] for row in await owned.find()] == ["two"]


async def test_a_cancelled_transaction_is_undone_and_blocks_nobody(things: Database):
    inside = asyncio.Event()

    async def never_ends() -> None:
        async with things.transaction() as transaction:
            await THINGS.of(transaction, "ann").insert("one", {"size": 1})
            inside.set()
            await asyncio.sleep(3600)

    task = asyncio.create_task(never_ends())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(THINGS.of(things, "ann").insert("one", {"size": 2}), 5)


async def test_owners_do_not_mix_under_concurrency(things: Database):
    async def work(owner: str, n: int) -> None:
        await THINGS.of(things, owner).insert(THING.new(), {"name": f"{owner} {n}"})

    await asyncio.gather(*(work(f"owner{n % 8}", n) for n in range(400)))
    rows = await things.fetch("SELECT owner, name FROM things")
    assert len(rows) == 400
    assert all(row["name"].split()[0] == row["owner"] for row in rows)


async def test_migrations_run_once_and_in_order(database: Database):
    assert await migrate(database, [create_things]) == 1
    assert await migrate(database, [create_things]) == 0
    assert await migrate(database, [create_things, add_colour]) == 1
    await database.execute("INSERT INTO things (id, owner, created_ns, colour) VALUES ('a', 'b', 1, 'red')")
    with pytest.raises(ConfigError, match="newer version"):
        await migrate(database, [create_things])
    with pytest.raises(ConfigError, match="other steps"):
        await migrate(database, [add_colour, create_things])


async def test_a_step_that_breaks_leaves_nothing(database: Database):
    def break_off() -> None:
        raise RuntimeError("power cut")

    with injected("migrations.before_record", break_off), pytest.raises(RuntimeError):
        await migrate(database, [create_things])
    assert await migrate(database, [create_things, add_colour]) == 2


async def test_processes_that_start_together_migrate_once(database: Database):
    ran = await asyncio.gather(*(migrate(database, [create_things, add_colour]) for _ in range(4)))
    assert sum(ran) == 2


async def test_fetch_one(things: Database):
    assert await fetch_one(things, "SELECT id FROM things") is None
    await THINGS.of(things, "ann").insert("one", {})
    assert await fetch_one(things, "SELECT id FROM things WHERE owner = ?1", "ann") == {"id": "one"}


async def test_hostile_text_is_only_text(things: Database):
    owned = THINGS.of(things, "ann'; DROP TABLE things; --")
    hostile = "'; DELETE FROM things; -- ?1 $1 \\ %s \""
    await owned.insert(hostile, {"name": hostile})
    assert (await owned.get(hostile))["name"] == hostile
    assert await owned.count({"name": hostile}) == 1
