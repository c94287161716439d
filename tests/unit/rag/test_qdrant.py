"""What is particular to Qdrant: its filters, puts that are seen at once or not at all, and what travels."""

from __future__ import annotations

import asyncio
import random
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tests.qdrant import qdrant_at
from tests.unit.rag.test_filters import TREES

from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.core.faults import injected
from llamakit.providers.remote.vector_io.qdrant import QdrantSettings, QdrantWire
from llamakit.rag.chunk import Chunk
from llamakit.rag.embed import normalized
from llamakit.rag.filters import Compare, matches, parse_filter
from llamakit.rag.vector import qdrant
from llamakit.rag.vector.qdrant import QdrantChunks
from llamakit.rag.vector.store import NewChunk, Source

AWKWARD = ("a", "b", "c'; --", "ü")
VALUES = ("", "a", "b", "a\0", "ü", "0", "1 a=b", -9, -1, 0, 1, 5, 9, -0.0, 0.5, 2.25, True, False)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with qdrant_at(tmp_path_factory.mktemp("qdrant")) as found:
        yield found


@pytest.fixture
async def store(served):
    wire = QdrantWire(QdrantSettings(url=served[0], private=True))
    served[1].seen.clear()
    yield QdrantChunks(wire.call)
    await wire.aclose()


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(n, 8)), n, 8)


def chunks(prefix: str, n: int) -> list[NewChunk]:
    return [NewChunk(f"{prefix}{i}", Chunk(f"text {prefix} {i}", None, 0, 4, 2)) for i in range(n)]


async def found(store: QdrantChunks, collection: str) -> set[str]:
    return {hit.id for hit in await store.nearest("ann", collection, vectors(1)[0], 200)}


def test_qdrant_decides_filters_as_the_plain_rule_does(served):
    draw = random.Random(7)
    documents = [{name: draw.choice(VALUES) for name in AWKWARD if draw.random() < 0.6} for _ in range(24)]

    async def fill() -> None:
        wire = QdrantWire(QdrantSettings(url=served[0], private=True))
        store = QdrantChunks(wire.call)
        await store.create("ann", "filters", 8)
        for n, attributes in enumerate(documents):
            await store.put("ann", "filters", Source(f"{n}", "d", attributes), chunks(f"{n}-", 1), vectors(1, n))
        await wire.aclose()

    asyncio.run(fill())

    @given(TREES)
    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(tree) -> None:
        try:
            filter = parse_filter(tree)
        except InvalidRequest:
            return

        async def ask() -> set[str]:
            wire = QdrantWire(QdrantSettings(url=served[0], private=True))
            hits = await QdrantChunks(wire.call).nearest("ann", "filters", vectors(1)[0], 200, filter)
            await wire.aclose()
            return {hit.id for hit in hits}

        expected = {f"{n}-0" for n, attributes in enumerate(documents) if matches(filter, attributes)}
        assert asyncio.run(ask()) == expected

    check()


async def test_texts_are_put_in_order_as_long_as_they_are_few(store, monkeypatch):
    await store.create("ann", "ordered", 8)
    for n in range(6):
        await store.put("ann", "ordered", Source(f"d{n}", "d", {"day": f"2026-0{n}"}), chunks(f"c{n}-", 1), vectors(1))
    later = Compare("gte", "day", ("2026-03",))
    hits = await store.nearest("ann", "ordered", vectors(1)[0], 20, later)
    assert {hit.id for hit in hits} == {"c3-0", "c4-0", "c5-0"}
    monkeypatch.setattr(qdrant, "MAX_FACTS", 5)
    with pytest.raises(InvalidRequest, match=r"more than 5 .* eq or in"):
        await store.nearest("ann", "ordered", vectors(1)[0], 20, later)


async def test_a_put_that_breaks_off_leaves_what_was_there(store, monkeypatch):
    monkeypatch.setattr(qdrant, "_BATCH_POINTS", 4)
    await store.create("ann", "torn", 8)
    await store.put("ann", "torn", Source("d", "d"), chunks("old", 5), vectors(5))
    before = await found(store, "torn")
    assert before == {f"old{n}" for n in range(5)}

    def broken() -> None:
        raise RuntimeError("killed")

    with injected("qdrant.between_batches", broken), pytest.raises(RuntimeError):
        await store.put("ann", "torn", Source("d", "d"), chunks("new", 9), vectors(9))
    assert await found(store, "torn") == before
    assert [chunk.id for chunk in await store.chunks_of("ann", "torn", "d")] == [f"old{n}" for n in range(5)]
    assert await store.load("ann", "torn", ["new0", "old0"]) == (await store.chunks_of("ann", "torn", "d"))[:1]
    await store.put("ann", "torn", Source("d", "d"), chunks("newer", 9), vectors(9))
    assert await found(store, "torn") == {f"newer{n}" for n in range(9)}


async def test_of_two_puts_at_once_one_stays_whole(store, monkeypatch):
    monkeypatch.setattr(qdrant, "_BATCH_POINTS", 2)
    await store.create("ann", "raced", 8)
    for round in range(8):
        names = [f"{round}{letter}" for letter in "abcd"]
        await asyncio.gather(
            *(store.put("ann", "raced", Source("d", "d"), chunks(name, 7), vectors(7)) for name in names)
        )
        (kept,) = {id[:2] for id in await found(store, "raced")}
        assert await found(store, "raced") == {f"{kept}{n}" for n in range(7)}


async def test_an_older_put_that_comes_late_gives_way(store):
    await store.create("ann", "late", 8)
    await store.put("ann", "late", Source("d", "d"), chunks("young", 3), vectors(3))
    late = QdrantChunks(store._call)
    late._generation = -1
    clock = qdrant.time.time_ns
    try:
        qdrant.time.time_ns = lambda: 10**15
        await late.put("ann", "late", Source("d", "d"), chunks("old", 3), vectors(3))
    finally:
        qdrant.time.time_ns = clock
    assert await found(store, "late") == {"young0", "young1", "young2"}


async def test_owner_and_state_go_with_every_request(served, store):
    await store.create("ann", "scoped", 8)
    await store.put("ann", "scoped", Source("d", "d"), chunks("c", 2), vectors(2))
    await store.nearest("ann", "scoped", vectors(1)[0], 3)
    await store.matching("ann", "scoped", "text", 3)
    await store.chunks_of("ann", "scoped", "d")
    await store.remove("ann", "scoped", "d")
    asked = [(path, body) for _, path, body in served[1].seen if body]
    filters = [
        filter
        for path, body in asked
        for filter in ([body["filter"]] if "filter" in body else [])
        + [operation[kind]["filter"] for operation in body.get("operations", ()) for kind in operation]
    ]
    assert len(filters) == 7
    assert all({"key": "owner", "match": {"value": "ann"}} in filter["must"] for filter in filters)
    points = [point for path, body in asked for point in body.get("points", ())]
    assert len(points) == 2 and all(point["payload"]["owner"] == "ann" for point in points)
    for call in (
        store.nearest("bob", "scoped", vectors(1)[0], 3),
        store.matching("bob", "scoped", "text", 3),
        store.load("bob", "scoped", ["c0"]),
        store.remove("bob", "scoped", "d"),
        store.put("bob", "scoped", Source("d", "d"), chunks("c", 1), vectors(1)),
        store.drop("bob", "scoped"),
    ):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(Conflict):
        await store.create("ann", "scoped", 8)


async def test_large_documents_go_in_bounded_requests(served, store):
    await store.create("ann", "large", 8)
    text = 'wörd "quoted" \\ \n' * 4000
    many = [NewChunk(f"c{n}", Chunk(text, None, 0, len(text), 9)) for n in range(300)]
    await store.put("ann", "large", Source("d", "d"), many, vectors(300))
    sizes = [len(body["points"]) for _, path, body in served[1].seen if path.endswith("/points") and "points" in body]
    assert sum(sizes) == 300 and len(sizes) > 2
    assert len(await store.chunks_of("ann", "large", "d")) == 300
    assert [hit.id for hit in await store.matching("ann", "large", "WORD", 3)] != []


async def test_routes_are_published_and_qdrants_own_client_reads_what_was_written(served, store):
    import inspect

    from qdrant_client import QdrantClient, models
    from qdrant_client.http.api import collections_api, indexes_api, points_api, search_api

    await store.create("ann", "read", 8)
    await store.put("ann", "read", Source("d", "d", {"year": 2024}), chunks("c", 3), vectors(3))
    await store.describe("ann", "read", Source("d", "d", {"year": 2026}))
    year = Compare("gt", "year", (2025,))
    best = await store.nearest("ann", "read", vectors(3)[1], 3, year)
    await store.matching("ann", "read", "text", 3)
    await store.load("ann", "read", ["c0"])
    await store.chunks_of("ann", "read", "d")
    await store.nearest("ann", "read", vectors(1)[0], 3, Compare("gt", "day", ("a",)))
    used = {(method, "/".join(["/collections/{collection_name}", *path.split("/")[3:]])) for method, path, _ in
            served[1].seen}  # fmt: skip
    sources = [inspect.getsource(module) for module in (collections_api, indexes_api, points_api, search_api)]
    published = re.findall(r'method="(\w+)",\s+url="([^"]+)"', "\n".join(sources))
    assert used <= set(published) and len(used) == 9

    def read() -> tuple[int, list[str], list[str]]:
        client = QdrantClient(url=served[0], check_compatibility=False)
        name = store._path("ann", "read").rpartition("/")[2]
        only = models.Filter(must=[models.FieldCondition(key="state", match=models.MatchValue(value="live"))])
        found = client.query_points(name, query=vectors(3)[1].tolist(), using="meaning", query_filter=only).points
        points, _ = client.scroll(name, scroll_filter=only)
        client.close()
        counted = len(points)
        return counted, [point.payload["id"] for point in found], [point.payload["text"] for point in points]

    counted, order, texts = await asyncio.to_thread(read)
    assert counted == 3 and order == [hit.id for hit in best] and sorted(texts) == [f"text c {n}" for n in range(3)]
