import errno
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from llamakit.core.errors import InvalidRequest, StorageError, StorageFull
from llamakit.core.faults import injected
from llamakit.rag.chunk import Chunk
from llamakit.rag.embed import normalized
from llamakit.rag.vector import local
from llamakit.rag.vector.flat import FlatVectors
from llamakit.rag.vector.local import LocalChunks
from llamakit.rag.vector.store import NewChunk, Source


def some(n: int, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(n, dimension)), n, dimension)


def all_of(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64)


def test_search_is_exact(tmp_path: Path):
    vectors = FlatVectors(tmp_path / "v", 8)
    rows = some(500)
    assert vectors.append(rows[:200]) == 0 and vectors.append(rows[200:]) == 200
    query = some(1, seed=1)[0]
    for slots in (all_of(500), all_of(500)[::3], np.array([499], dtype=np.int64)):
        scores = rows[slots].astype(np.float64) @ query
        expected = slots[np.argsort(-scores, kind="stable")][:10]
        assert [slot for slot, _ in vectors.search(query, 10, slots)] == expected.tolist()
    assert vectors.search(query, 5, all_of(0)) == []


def test_ties_have_one_order(tmp_path: Path):
    vectors = FlatVectors(tmp_path / "v", 4)
    vectors.append(normalized(np.ones((6, 4)), 6, 4))
    assert [slot for slot, _ in vectors.search(np.ones(4, np.float32), 6, all_of(6))] == list(range(6))


def test_another_process_sees_what_was_appended(tmp_path: Path):
    first, second = FlatVectors(tmp_path / "v", 8), FlatVectors(tmp_path / "v", 8)
    first.append(some(3))
    assert second.append(some(2)) == 3
    assert len(first.search(some(1)[0], 9, all_of(5))) == 5


def test_a_torn_row_is_written_over(tmp_path: Path):
    vectors = FlatVectors(tmp_path / "v", 8)
    vectors.append(some(2))
    with open(tmp_path / "v", "ab") as file:
        file.write(b"\xff" * 13)
    assert FlatVectors(tmp_path / "v", 8).append(some(1, seed=2)) == 2
    assert np.array_equal(vectors.rows(all_of(3)), np.concatenate([some(2), some(1, seed=2)]))


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path):
    vectors = FlatVectors(tmp_path / "v", 8)
    vectors.append(some(2))

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with injected("flat.before_sync", full), pytest.raises(StorageFull):
        vectors.append(some(100))
    assert vectors.count() == 2


@pytest.mark.parametrize(
    "head", [b"x" * 16, b"llamavec" + struct.pack("<II", 1, 9), b"llamavec" + struct.pack("<II", 2, 8), b"short"]
)
def test_a_foreign_file_is_refused(tmp_path: Path, head: bytes):
    (tmp_path / "v").write_bytes(head)
    with pytest.raises(StorageError, match="not a file of vectors"):
        FlatVectors(tmp_path / "v", 8)


def test_a_file_cut_short_is_told(tmp_path: Path):
    vectors = FlatVectors(tmp_path / "v", 8)
    vectors.append(some(10))
    os.truncate(tmp_path / "v", 16 + 5 * 32)
    with pytest.raises(StorageError, match="holds 5 vectors where 10"):
        FlatVectors(tmp_path / "v", 8).search(some(1)[0], 3, all_of(10))


def test_vectors_are_brought_to_length_one():
    made = normalized([[3.0, 4.0], [0.0, 0.0]], 2, 2)
    assert made.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    for wrong in ([[1.0]], [[1.0, float("inf")]], [["a", "b"]], None):
        with pytest.raises(InvalidRequest):
            normalized(wrong, 1, 2)


def chunks(prefix: str, n: int) -> list[NewChunk]:
    return [NewChunk(f"{prefix}{i}", Chunk(f"text {prefix} {i}", None, 0, 4, 2)) for i in range(n)]


async def test_replacing_over_and_over_does_not_grow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "_COMPACT_FROM", 64)
    store = LocalChunks(tmp_path)
    await store.create("ann", "c", 8)
    for n in range(40):
        await store.put("ann", "c", Source("kept", "k"), chunks("k", 5), some(5, seed=1))
        await store.put("ann", "c", Source("other", "o"), chunks(f"o{n}-", 10), some(10, seed=n + 2))
    (file,) = tmp_path.rglob("vectors.*.f32")
    assert file.stat().st_size < 16 + 32 * 100
    for i, row in enumerate(some(5, seed=1)):
        assert (await store.nearest("ann", "c", row, 1))[0].id == f"k{i}"
    await store.close()


async def test_two_processes_share_a_collection_through_a_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "_COMPACT_FROM", 64)
    first, second = LocalChunks(tmp_path), LocalChunks(tmp_path)
    await first.create("ann", "c", 8)
    await second.put("ann", "c", Source("kept", "k"), chunks("k", 5), some(5, seed=1))
    for n in range(20):
        await first.put("ann", "c", Source("other", "o"), chunks(f"o{n}-", 10), some(10, seed=n + 2))
        assert (await second.nearest("ann", "c", some(5, seed=1)[3], 1))[0].id == "k3"
        await second.put("ann", "c", Source("mine", "m"), chunks(f"m{n}-", 1), some(1, seed=n + 100))
        assert (await first.nearest("ann", "c", some(1, seed=n + 100)[0], 1))[0].id == f"m{n}-0"
    await first.close()
    await second.close()


async def test_few_collections_are_held_open(tmp_path: Path):
    store = LocalChunks(tmp_path, max_open=3)
    for n in range(10):
        await store.create("ann", f"c{n}", 4)
        await store.put("ann", f"c{n}", Source("d", "d"), chunks("k", 1), some(1, 4))
    assert len(store._open) <= 3
    for n in range(10):
        assert len(await store.matching("ann", f"c{n}", "text", 5)) == 1
    await store.close()


async def test_odd_ids_are_only_ids(tmp_path: Path):
    store = LocalChunks(tmp_path / "root")
    for odd in ("../../etc", "/etc/passwd", "a\0b", "", "A", "a", "x" * 1000, "ünï"):
        await store.create("ann", odd, 4)
        await store.put("ann", odd, Source("d", "d"), chunks("k", 1), some(1, 4))
    assert {path.parent for path in (tmp_path / "root").iterdir()} == {tmp_path / "root"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    await store.close()


@pytest.mark.slow
def test_100k_by_384_is_searched_in_milliseconds(tmp_path: Path):
    import time

    vectors = FlatVectors(tmp_path / "v", 384)
    vectors.append(some(100_000, 384))
    query, slots = some(1, 384, 1)[0], all_of(100_000)
    vectors.search(query, 10, slots)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        vectors.search(query, 10, slots)
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 0.2


async def test_words_that_most_chunks_hold_change_no_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = LocalChunks(tmp_path)
    await store.create("ann", "c", 8)
    texts = [f"The {'Häuser' if n % 7 == 0 else 'barn'} is of colour{n % 10} and the hill{n}" for n in range(60)]
    many = [NewChunk(f"c{n}", Chunk(text, None, 0, len(text), 9)) for n, text in enumerate(texts)]
    await store.put("ann", "c", Source("d", "d"), many, some(60))
    for query in ("What is the colour3 of the hauser?", "the THE of", "hill7 the", "nothing", "and hill8 barn"):
        for k in (3, 60):
            monkeypatch.setattr(local, "_COMMON_FROM", 1000)
            every = await store.matching("ann", "c", query, k)
            monkeypatch.setattr(local, "_COMMON_FROM", 10)
            told = await store.matching("ann", "c", query, k)
            assert [hit.id for hit in told] == [hit.id for hit in every], (query, k)
            assert [hit.score for hit in told] == pytest.approx([hit.score for hit in every], abs=1e-4)
    await store.close()
