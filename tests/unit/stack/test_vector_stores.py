"""Vector stores by the inside: ingestion, conservation, cancelling, detaching, expiry, searches."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.kept import kept_stack, started_stack, until
from tests.postgres import empty_database

from llamakit.api.openai_lists import PageQuery
from llamakit.api.vector_search import WireRanking
from llamakit.api.vector_stores import WireStoreRequest, WireStoreUpdate
from llamakit.core.errors import Conflict, InvalidRequest, NotFound, Overloaded
from llamakit.rag.chunk import Chunk
from llamakit.stack.ingestion import MAX_ATTEMPTS
from llamakit.stack.vector_files import Wanted
from llamakit.stack.vector_search import read_ranking
from llamakit.stack.vector_stores import VectorStores

LLAMAS = b"# Llamas\n\nLlamas live in the Andes. Their wool is soft.\n"
BANKS = b"# Banks\n\nThe central bank sets the rate of interest.\n"


@pytest.fixture(params=["sqlite", "postgres"])
async def stack(request):
    async with kept_stack(request.param, request) as stack:
        yield stack


@pytest.fixture
async def quick(request):
    async with kept_stack("sqlite", request) as stack:
        yield stack


async def file_of(stack, data=LLAMAS, name="llamas.md", owner="ann"):
    return (await stack.files.create(owner, name, "assistants", data))["id"]


async def filled(stack, **fields):
    """A store of two documents, both ingested."""
    ids = [await file_of(stack), await file_of(stack, BANKS, "banks.md")]
    store = await stack.vector_stores.create("ann", WireStoreRequest(file_ids=ids, **fields))
    done = await until(lambda: stack.vector_stores.get("ann", store["id"]))
    assert done["file_counts"]["completed"] == 2, done
    return store["id"], *ids


async def test_documents_in_are_done_or_failed_with_a_reason(stack):
    files = {
        "good.md": LLAMAS,
        "broken.pdf": b"%PDF-1.7 nothing",
        "data.bin": b"\x00\x01",
        "empty.txt": b"  \n ",
        "fine.html": b"<p>The Andes are high.</p>",
    }
    ids = {await file_of(stack, data, name): name for name, data in files.items()}
    store = (await stack.vector_stores.create("ann", WireStoreRequest(name="mixed")))["id"]
    vector_files = stack.vector_stores.files
    batch = await vector_files.create_batch("ann", store, [Wanted(file=id) for id in ids])
    assert batch["file_counts"]["total"] == len(ids)
    done = await until(lambda: vector_files.get_batch("ann", store, batch["id"]))
    assert done["file_counts"] == {"in_progress": 0, "completed": 2, "failed": 3, "cancelled": 0, "total": 5}
    found = (await vector_files.list("ann", store, PageQuery(limit=100)))["data"]
    reasons = {ids[file["id"]]: file["last_error"] for file in found}
    assert reasons["good.md"] is None and reasons["fine.html"] is None
    assert reasons["broken.pdf"]["code"] == "invalid_file" and "PDF" in reasons["broken.pdf"]["message"]
    assert reasons["data.bin"]["code"] == "unsupported_file"
    assert "no text" in reasons["empty.txt"]["message"]
    failed = await vector_files.list("ann", store, PageQuery(), status="failed", batch=batch["id"])
    assert len(failed["data"]) == 3
    shown = await stack.vector_stores.get("ann", store)
    assert shown["status"] == "completed" and shown["usage_bytes"] > len(LLAMAS)


async def test_searches_by_meaning_by_words_and_by_both(stack):
    store, llamas, banks = await filled(stack)
    for mode in ("hybrid", "keyword"):
        found = await stack.vector_stores.search("ann", store, "soft wool", mode=mode, limit=1)
        assert [result.file_id for result in found] == [llamas]
        assert found[0].filename == "llamas.md" and 0 < found[0].score <= 1
        start, end = found[0].span
        assert found[0].text == LLAMAS.decode()[start:end] and found[0].page is None
    exact = await stack.vector_stores.search("ann", store, LLAMAS.decode().strip(), mode="vector", limit=2)
    assert [result.file_id for result in exact] == [llamas, banks]
    assert exact[0].score == pytest.approx(1.0, abs=1e-5)
    several = await stack.vector_stores.search("ann", store, ["soft wool", "rate of interest"], mode="keyword")
    assert {result.file_id for result in several} == {llamas, banks}
    assert await stack.vector_stores.search("ann", store, "soft wool", mode="vector", threshold=1.0) == []


async def test_attributes_filter_and_follow(stack):
    store, llamas, banks = await filled(stack)
    await stack.vector_stores.files.describe("ann", store, llamas, {"kind": "animal", "year": 2020})
    await stack.vector_stores.files.describe("ann", store, banks, {"kind": "money", "year": 2024})

    async def ids(tree):
        found = await stack.vector_stores.search("ann", store, "the", filters=tree)
        return {result.file_id for result in found}

    assert await ids({"type": "eq", "key": "kind", "value": "animal"}) == {llamas}
    assert await ids({"type": "gte", "key": "year", "value": 2024}) == {banks}
    assert await ids({"type": "in", "key": "kind", "value": ["animal", "money"]}) == {llamas, banks}
    with pytest.raises(InvalidRequest):
        await ids({"type": "like", "key": "kind", "value": "x"})


async def test_what_is_detached_or_deleted_is_found_no_more(stack):
    store, llamas, banks = await filled(stack)
    await stack.vector_stores.files.detach("ann", store, llamas)
    assert {found.file_id for found in await stack.vector_stores.search("ann", store, "wool bank")} == {banks}
    assert (await stack.files.get("ann", llamas))["id"] == llamas
    await stack.files.delete("ann", banks)
    assert await stack.vector_stores.search("ann", store, "wool bank") == []
    assert (await stack.vector_stores.get("ann", store))["file_counts"]["total"] == 0
    await stack.vector_stores.delete("ann", store)
    for attempt in (
        stack.vector_stores.get("ann", store),
        stack.vector_stores.search("ann", store, "x"),
        stack.vector_stores.delete("ann", store),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_a_file_attached_again_is_cut_anew(quick):
    store, llamas, _ = await filled(quick)
    again = await quick.vector_stores.attach("ann", store, llamas, {"turn": 2}, (100, 0))
    assert again["status"] == "in_progress"
    done = await until(lambda: quick.vector_stores.files.get("ann", store, llamas))
    assert done["status"] == "completed" and done["attributes"] == {"turn": 2}
    assert done["chunking_strategy"]["static"] == {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}
    found = await quick.vector_stores.search("ann", store, "soft wool", mode="keyword")
    assert [result.file_id for result in found] == [llamas]


async def test_a_cancelled_batch_keeps_what_is_done(quick):
    gate = asyncio.Event()
    library = await quick.vector_stores._chunks.library()
    read = library._read

    async def slow(name, data):
        await gate.wait()
        return await read(name, data)

    library._read = slow
    store = (await quick.vector_stores.create("ann", WireStoreRequest()))["id"]
    ids = [await file_of(quick, name=f"{n}.md") for n in range(4)]
    files = quick.vector_stores.files
    batch = await files.create_batch("ann", store, [Wanted(file=id) for id in ids])
    await asyncio.sleep(0.1)
    cancelled = await files.cancel_batch("ann", store, batch["id"])
    assert cancelled["status"] == "cancelled" and cancelled["file_counts"]["cancelled"] == 4
    gate.set()
    async with asyncio.timeout(20):
        while (await library.counts("ann", store)).total:
            await asyncio.sleep(0.02)
    assert await quick.vector_stores.search("ann", store, "soft wool") == []
    assert (await files.cancel_batch("ann", store, batch["id"]))["status"] == "cancelled"
    with pytest.raises(Conflict, match="cancelled"):
        await files.content("ann", store, ids[0])


async def test_what_passes_is_tried_again_and_what_stays_fails_with_the_reason(quick):
    store = (await quick.vector_stores.create("ann", WireStoreRequest()))["id"]
    library = await quick.vector_stores._chunks.library()
    read, tries = library._read, []

    async def busy(name, data):
        tries.append(name)
        if name == "never.md" or len(tries) == 1:
            raise Overloaded("no room now")
        return await read(name, data)

    library._read = busy
    once = await file_of(quick, name="once.md")
    await quick.vector_stores.attach("ann", store, once)
    assert (await until(lambda: quick.vector_stores.files.get("ann", store, once)))["status"] == "completed"
    tries[:] = ["x"]
    never = await file_of(quick, name="never.md")
    await quick.vector_stores.attach("ann", store, never)
    failed = await until(lambda: quick.vector_stores.files.get("ann", store, never))
    assert failed["last_error"] == {"code": "server_error", "message": "no room now"}
    assert len(tries) - 1 == MAX_ATTEMPTS


async def test_one_that_another_process_completed_stays(quick):
    """A runner that was taken for dead and is only slow ends after its successor."""
    store = (await quick.vector_stores.create("ann", WireStoreRequest()))["id"]
    library = await quick.vector_stores._chunks.library()
    ingest, file = library.ingest, await file_of(quick)

    async def slow(owner, collection, document, data, settings=None):
        made = await ingest(owner, collection, document, data, settings)
        database = await quick.storage.database()
        await database.execute("UPDATE vector_store_files SET status = 'completed' WHERE id = ?1", document)
        return made

    library.ingest = slow
    await quick.vector_stores.attach("ann", store, file)
    await until(lambda: quick.vector_stores.files.get("ann", store, file))
    await asyncio.sleep(0.2)
    assert [found.file_id for found in await quick.vector_stores.search("ann", store, "soft wool")] == [file]


async def test_work_of_a_process_that_stands_alone_is_left_to_such(quick):
    alone = VectorStores(quick.storage, quick.files, quick.embedders, quick.vector_stores._chunks)
    alone.ingestion.stand_alone()
    store = (await alone.create("ann", WireStoreRequest()))["id"]
    await alone.ingestion.background.aclose()
    file = await file_of(quick)
    await alone.attach("ann", store, file)
    await alone.ingestion.background.aclose()
    await asyncio.sleep(1.2)
    assert (await quick.vector_stores.files.get("ann", store, file))["status"] == "in_progress"
    await alone.start()
    assert (await until(lambda: alone.files.get("ann", store, file)))["status"] == "completed"
    await alone.ingestion.background.aclose()


async def test_only_files_that_are_there_are_attached_and_each_once(quick):
    store = (await quick.vector_stores.create("ann", WireStoreRequest()))["id"]
    with pytest.raises(NotFound):
        await quick.vector_stores.attach("ann", store, "file-" + "0" * 48)
    with pytest.raises(InvalidRequest, match="twice"):
        id = await file_of(quick)
        await quick.vector_stores.files.create_batch("ann", store, [Wanted(file=id), Wanted(file=id)])
    assert (await quick.vector_stores.get("ann", store))["file_counts"]["total"] == 0


async def test_a_store_with_an_unknown_file_is_not_made(quick):
    with pytest.raises(NotFound):
        await quick.vector_stores.create("ann", WireStoreRequest(file_ids=["file-" + "0" * 48]))
    assert (await quick.vector_stores.list("ann", PageQuery()))["data"] == []
    with pytest.raises(InvalidRequest, match="not 31"):
        await quick.vector_stores.create("ann", WireStoreRequest(embedding_dimension=31))


async def test_nobody_reaches_anothers_store_nor_file(quick):
    store, llamas, _ = await filled(quick)
    mine = (await quick.vector_stores.create("bob", WireStoreRequest()))["id"]
    batch = await quick.vector_stores.files.create_batch("ann", store, [Wanted(file=llamas)])
    files, stores = quick.vector_stores.files, quick.vector_stores
    for attempt in (
        stores.get("bob", store),
        stores.search("bob", store, "wool"),
        stores.update("bob", store, WireStoreUpdate(name="x")),
        stores.delete("bob", store),
        stores.attach("bob", store, llamas),
        stores.attach("bob", mine, llamas),
        stores.put_chunks("bob", store, "d", "d", []),
        stores.query_chunks("bob", store, "x"),
        files.list("bob", store, PageQuery()),
        files.get("bob", store, llamas),
        files.content("bob", store, llamas),
        files.describe("bob", store, llamas, {}),
        files.detach("bob", store, llamas),
        files.get_batch("bob", store, batch["id"]),
        files.cancel_batch("bob", store, batch["id"]),
        files.list("bob", store, PageQuery(), batch=batch["id"]),
        files.get_batch("ann", (await stores.create("ann", WireStoreRequest()))["id"], batch["id"]),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_stores_are_listed_in_pages_both_ways(quick):
    ids = [(await quick.vector_stores.create("ann", WireStoreRequest(name=f"{n}")))["id"] for n in range(4)]
    newest = await quick.vector_stores.list("ann", PageQuery(limit=2))
    assert [store["name"] for store in newest["data"]] == ["3", "2"] and newest["has_more"]
    older = await quick.vector_stores.list("ann", PageQuery(limit=2, after=ids[2]))
    assert [store["name"] for store in older["data"]] == ["1", "0"] and not older["has_more"]
    back = await quick.vector_stores.list("ann", PageQuery(limit=2, before=ids[1]))
    assert [store["name"] for store in back["data"]] == ["3", "2"]


async def test_an_update_changes_what_it_names(quick):
    request = WireStoreRequest(name="a", metadata={"k": "v"}, expires_after={"anchor": "last_active_at", "days": 3})
    store = await quick.vector_stores.create("ann", request)
    assert store["expires_at"] == store["last_active_at"] + 3 * 86_400
    id = store["id"]
    renamed = await quick.vector_stores.update("ann", id, WireStoreUpdate(name="b"))
    assert (renamed["name"], renamed["metadata"], renamed["expires_after"]["days"]) == ("b", {"k": "v"}, 3)
    emptied = await quick.vector_stores.update("ann", id, WireStoreUpdate(metadata=None, expires_after=None))
    assert (emptied["name"], emptied["metadata"], emptied["expires_at"]) == ("b", {}, None)


async def test_a_store_that_nobody_uses_expires(quick):
    ahead = [0.0]
    stores = VectorStores(
        quick.storage,
        quick.files,
        quick.embedders,
        quick.vector_stores._chunks,
        clock=lambda: time.time() + ahead[0],
    )
    store = await stores.create("ann", WireStoreRequest(expires_after={"anchor": "last_active_at", "days": 1}))
    ahead[0] = 86_000
    await stores.search("ann", store["id"], "a use")
    ahead[0] = 90_000
    assert await stores.expire() == 0
    ahead[0] = 180_000
    assert await stores.expire() == 1
    assert (await stores.get("ann", store["id"]))["status"] == "expired"
    for attempt in (
        stores.search("ann", store["id"], "x"),
        stores.attach("ann", store["id"], await file_of(quick)),
    ):
        with pytest.raises(InvalidRequest, match="expired"):
            await attempt
    assert (await stores.delete("ann", store["id"]))["deleted"]
    await stores.ingestion.background.aclose()


async def test_chunks_that_a_client_cut(quick):
    store = (await quick.vector_stores.create("ann", WireStoreRequest()))["id"]
    chunk = Chunk("soft wool", 3, 5, 14, 2)
    await quick.vector_stores.put_chunks("ann", store, "mine", "mine.txt", [chunk], metadata=[{"k": [1]}])
    (found,) = await quick.vector_stores.query_chunks("ann", store, "wool", mode="keyword")
    assert found.stored.chunk == chunk and found.stored.metadata == {"k": [1]}
    (shown,) = await quick.vector_stores.search("ann", store, "wool", mode="keyword")
    assert (shown.file_id, shown.filename, shown.page, shown.span) == ("mine", "mine.txt", 3, (5, 14))
    with pytest.raises(InvalidRequest, match="vsf_"):
        await quick.vector_stores.put_chunks("ann", store, "vsf_" + "0" * 48, "x", [chunk])


async def test_two_servers_share_files_stores_and_work(request):
    async with (
        empty_database(request.getfixturevalue("postgres_server")) as url,
        started_stack(url) as one,
        started_stack(url) as other,
    ):
        ids = [await file_of(one, f"Document {n} speaks of subject{n}.".encode(), f"{n}.md") for n in range(6)]
        store = (await one.vector_stores.create("ann", WireStoreRequest(file_ids=ids)))["id"]
        done = await until(lambda: other.vector_stores.get("ann", store))
        assert done["file_counts"]["completed"] == 6
        for n, id in enumerate(ids):
            found = await other.vector_stores.search("ann", store, f"subject{n}", mode="keyword")
            assert [result.file_id for result in found] == [id]
            assert await other.files.read("ann", id) == f"Document {n} speaks of subject{n}.".encode()
        await other.files.delete("ann", ids[0])
        assert (await one.vector_stores.get("ann", store))["file_counts"]["total"] == 5


@pytest.mark.parametrize(
    ("options", "kind", "alpha", "impact"),
    [
        ({}, "rrf", 0.5, 60.0),
        ({"ranker": "auto"}, "rrf", 0.5, 60.0),
        ({"ranker": "rrf", "impact_factor": 10.0}, "rrf", 0.5, 10.0),
        ({"ranker": "weighted", "alpha": 0.0}, "weighted", 0.0, 60.0),
        ({"hybrid_search": {"embedding_weight": 3.0, "text_weight": 1.0}}, "weighted", 0.75, 60.0),
    ],
)
def test_ranking_options(options, kind, alpha, impact):
    fusion, threshold = read_ranking(WireRanking(score_threshold=0.25, **options))
    assert (fusion.kind, fusion.alpha, fusion.impact, threshold) == (kind, alpha, impact, 0.25)


def test_ranking_without_any_weight():
    with pytest.raises(InvalidRequest, match="above 0"):
        read_ranking(WireRanking(hybrid_search={"embedding_weight": 0.0, "text_weight": 0.0}))
