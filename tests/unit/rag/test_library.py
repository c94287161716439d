"""The whole road, on the local store and on pgvector: documents in, chunks out, nobody else's."""

import asyncio

import pytest

from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.rag.chunk import Chunk, ChunkSettings
from llamakit.rag.filters import parse_filter
from llamakit.rag.fuse import Fusion
from llamakit.rag.index import Library
from llamakit.rag.parse import Page, Parsed

LLAMAS = b"# Llamas\n\nLlamas live in the Andes and carry loads.\n\n# Alpacas\n\nAlpacas give soft wool for sweaters.\n"
BANKS = b"The central bank raised the interest rate by half a percent on Thursday."


async def plain(name: str, data: bytes) -> Parsed:
    """A reader without a child process, for tests that are not about reading."""
    return Parsed("markdown", (Page(data.decode()),))


async def add(library: Library, collection: str, document: str, data: bytes, owner: str = "ann", **attributes: object):
    await library.add(owner, collection, document, f"{document}.md", attributes)
    return await library.ingest(owner, collection, document, data, ChunkSettings(max_tokens=16, overlap_tokens=0))


@pytest.fixture
async def filled(library: Library) -> Library:
    await library.create("ann", "c1", "words")
    await add(library, "c1", "llamas", LLAMAS, year=2024, topic="animals", wild=False)
    await add(library, "c1", "banks", BANKS, year=2026, topic="money")
    return library


async def test_a_question_finds_its_passage_and_where_it_stood(filled: Library):
    for mode in ("vector", "keyword", "hybrid"):
        found = await filled.search("ann", "c1", "wool sweaters", k=2, mode=mode)
        best = found[0].stored
        assert "soft wool" in best.chunk.text and best.document == "llamas" and best.name == "llamas.md"
        assert best.chunk.text == LLAMAS.decode()[best.chunk.start : best.chunk.end]
        assert best.chunk.headings == ("Alpacas",) and best.attributes["topic"] == "animals"
        assert [result.score for result in found] == sorted((result.score for result in found), reverse=True)


async def test_every_document_is_done_failed_or_waits(library: Library):
    await library.create("ann", "c1", "words")
    await add(library, "c1", "good", BANKS)
    await library.add("ann", "c1", "bad", "bad.docx")
    bad = await library.ingest("ann", "c1", "bad", b"PK\x03\x04 not really")
    await library.add("ann", "c1", "waiting", "waiting.txt")
    counts = await library.counts("ann", "c1")
    assert (counts.done, counts.failed, counts.pending, counts.total) == (1, 1, 1, 3)
    assert bad.state == "failed" and "office file" in (bad.reason or "")
    assert [document.id for document in await library.documents("ann", "c1", "failed")] == ["bad"]
    assert (await library.get("ann", "c1", "good")).chunks == 1


async def test_an_embedder_that_is_away_leaves_the_document_waiting(library: Library, embedders):
    await library.create("ann", "c1", "words")
    await library.add("ann", "c1", "d", "d.txt")
    embedders.down = True
    with pytest.raises(ConnectionError):
        await library.ingest("ann", "c1", "d", BANKS)
    assert (await library.get("ann", "c1", "d")).state == "pending"
    embedders.down = False
    assert (await library.ingest("ann", "c1", "d", BANKS)).state == "done"


async def test_ingesting_again_replaces(filled: Library):
    await add(filled, "c1", "llamas", b"Camels have humps.")
    assert len(await filled.chunks_of("ann", "c1", "llamas")) == 1
    found = await filled.search("ann", "c1", "soft wool sweaters", mode="keyword")
    assert found == []
    assert (await filled.counts("ann", "c1")).total == 2


async def test_filters_apply_before_ranking(filled: Library):
    async def documents(tree: dict, **options) -> set[str]:
        found = await filled.search("ann", "c1", "llamas wool bank rate", filter=parse_filter(tree), **options)
        return {result.stored.document for result in found}

    for mode in ("vector", "keyword", "hybrid"):
        assert await documents({"type": "eq", "key": "topic", "value": "money"}, mode=mode, k=1) == {"banks"}
        assert await documents({"type": "lt", "key": "year", "value": 2025}, mode=mode) == {"llamas"}
        assert await documents({"type": "eq", "key": "wild", "value": False}, mode=mode) == {"llamas"}
        assert await documents({"type": "eq", "key": "topic", "value": "' OR 1=1 --"}, mode=mode) == set()
        everything = {
            "type": "or",
            "filters": [{"type": "ne", "key": "x", "value": 1}, {"type": "eq", "key": "y", "value": 1}],
        }
        assert await documents(everything, mode=mode) == {"llamas", "banks"}
    await filled.describe("ann", "c1", "banks", {"topic": "animals"})
    assert await documents({"type": "eq", "key": "topic", "value": "money"}) == set()


async def test_nobody_reaches_anothers_collection(filled: Library):
    for attempt in (
        lambda owner, c: filled.search(owner, c, "wool"),
        lambda owner, c: filled.get(owner, c, "llamas"),
        lambda owner, c: filled.documents(owner, c),
        lambda owner, c: filled.counts(owner, c),
        lambda owner, c: filled.chunks_of(owner, c, "llamas"),
        lambda owner, c: filled.add(owner, c, "mine", "mine.txt"),
        lambda owner, c: filled.ingest(owner, c, "llamas", b"mine"),
        lambda owner, c: filled.describe(owner, c, "llamas", {}),
        lambda owner, c: filled.remove(owner, c, "llamas"),
        lambda owner, c: filled.drop(owner, c),
    ):
        with pytest.raises(NotFound) as foreign:
            await attempt("bob", "c1")
        with pytest.raises(NotFound) as absent:
            await attempt("bob", "c2")
        assert str(foreign.value) == str(absent.value).replace("c2", "c1")
    assert len(await filled.search("ann", "c1", "wool", mode="keyword")) == 1


async def test_another_tenants_text_never_comes_up_nor_changes_the_ranking(filled: Library):
    before = await filled.search("ann", "c1", "soft wool for sweaters", k=5)
    await filled.create("bob", "c1", "words")  # the same id is another collection
    for n in range(6):
        await add(filled, "c1", f"d{n}", b"Alpacas give soft wool for sweaters.", owner="bob")
    after = await filled.search("ann", "c1", "soft wool for sweaters", k=5)
    assert [(found.stored.id, found.score) for found in after] == [(found.stored.id, found.score) for found in before]
    assert {found.stored.document for found in after} <= {"llamas", "banks"}
    theirs = await filled.search("bob", "c1", "llamas Andes central bank", k=50)
    assert {found.stored.document for found in theirs} <= {f"d{n}" for n in range(6)}


async def test_removing_removes(filled: Library):
    await filled.remove("ann", "c1", "llamas")
    assert await filled.search("ann", "c1", "wool", mode="keyword") == []
    assert {found.stored.document for found in await filled.search("ann", "c1", "wool", mode="vector")} == {"banks"}
    with pytest.raises(NotFound):
        await filled.get("ann", "c1", "llamas")
    await filled.drop("ann", "c1")
    with pytest.raises(NotFound):
        await filled.search("ann", "c1", "wool")
    await filled.create("ann", "c1", "words")
    assert (await filled.counts("ann", "c1")).total == 0


async def test_a_collection_is_made_once(filled: Library):
    with pytest.raises(Conflict):
        await filled.create("ann", "c1", "words")


async def test_a_collection_half_made_or_half_dropped_can_be_dropped(stores, filled: Library):
    await stores[1].drop("ann", "c1")
    await filled.drop("ann", "c1")
    await filled.create("ann", "c1", "words")
    assert await filled.search("ann", "c1", "wool") == []


async def test_chunks_with_vectors_of_their_own(filled: Library):
    chunk = Chunk("given", None, 0, 5, 1)
    await filled.add("ann", "c1", "own", "own.txt")
    kept = await filled.put("ann", "c1", "own", [chunk], vectors=[[1.0] * 64], metadata=[{"k": [1, {"n": None}]}])
    assert kept.state == "done"
    (stored,) = await filled.chunks_of("ann", "c1", "own")
    assert stored.metadata == {"k": [1, {"n": None}]} and stored.chunk == chunk
    for wrong in ([[1.0] * 63], [[1.0] * 64] * 2, [[float("nan")] * 64], [["x"] * 64], [], [[[1.0] * 64]], "text"):
        with pytest.raises(InvalidRequest, match="embedding"):
            await filled.put("ann", "c1", "own", [chunk], vectors=wrong)


async def test_searches_that_cannot_be(filled: Library):
    for options in ({"k": 0}, {"k": 201}, {"mode": "magic"}, {"rerank": True}):
        with pytest.raises(InvalidRequest):
            await filled.search("ann", "c1", "wool", **options)


@pytest.mark.parametrize(
    "query", ["", "   ", "?!*", '" OR 1', "NEAR(a b)", "text:wool", "wool*", "a" * 5000, "ünï 🦙", "-wool", "(wool"]
)
async def test_any_words_may_be_asked(filled: Library, query: str):
    await filled.search("ann", "c1", query, mode="hybrid")
    await filled.search("ann", "c1", query, mode="keyword")


async def test_scores_rank_and_cut(filled: Library):
    found = await filled.search("ann", "c1", "soft wool for sweaters", fusion=Fusion(kind="weighted", alpha=0.7), k=3)
    assert found[0].score == pytest.approx(1.0)
    cut = await filled.search("ann", "c1", "soft wool for sweaters", mode="vector", least=0.5)
    assert all(result.score >= 0.5 for result in cut) and cut


async def test_a_reranker_has_the_last_word(stores, embedders, filled: Library):
    async def shortest(query: str, texts):
        return [-len(text) for text in texts]

    database, store = stores
    library = Library(database, store, embedders, len, rerank=shortest)
    found = await library.search("ann", "c1", "wool", k=3, rerank=True)
    lengths = [len(result.stored.chunk.text) for result in found]
    assert lengths == sorted(lengths)


async def test_a_document_removed_while_it_is_embedded_leaves_no_chunks(stores, embedders, filled: Library):
    database, store = stores

    async def read(name: str, data: bytes) -> Parsed:
        await filled.remove("ann", "c1", "banks")
        return await plain(name, data)

    library = Library(database, store, embedders, len, read=read)
    with pytest.raises(NotFound):
        await library.ingest("ann", "c1", "banks", BANKS)
    assert {found.stored.document for found in await filled.search("ann", "c1", "bank rate")} == {"llamas"}


async def test_many_writers_and_searchers_at_once(stores, embedders, library: Library):
    database, store = stores
    quick = Library(database, store, embedders, lambda text: len(text.split()), read=plain)
    await quick.create("ann", "c1", "words")

    async def write(n: int) -> None:
        await add(quick, "c1", f"d{n}", f"Document number{n} speaks of subject{n}.".encode())

    async def ask(n: int) -> None:
        await quick.search("ann", "c1", f"subject{n}")

    await asyncio.gather(*(write(n) for n in range(40)), *(ask(n) for n in range(40)))
    assert (await quick.counts("ann", "c1")).done == 40
    for n in range(40):
        assert (await quick.search("ann", "c1", f"subject{n}", k=1))[0].stored.document == f"d{n}"
