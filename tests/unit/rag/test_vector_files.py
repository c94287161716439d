"""The other files of vectors: the graph against exact search, SQLite's own, and what each does when it is behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llamakit.core.errors import StorageError
from llamakit.rag.embed import normalized
from llamakit.rag.vector.flat import FlatVectors


def some(n: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(n, dimension)), n, dimension)


def all_of(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64)


@pytest.fixture
def hnsw(monkeypatch):
    pytest.importorskip("faiss")
    from llamakit.rag.vector import hnsw

    monkeypatch.setattr(hnsw, "EXACT_BELOW", 1)
    return hnsw


def recall(found, exact) -> float:
    return len({slot for slot, _ in found} & {slot for slot, _ in exact}) / len(exact)


def test_the_graph_finds_nearly_what_exact_search_finds(hnsw, tmp_path: Path):
    vectors = hnsw.HnswVectors(tmp_path / "v.f32", 16)
    vectors.append(some(2000))
    exact = FlatVectors(tmp_path / "v.f32", 16)
    for slots in (all_of(2000), all_of(2000)[::4], all_of(2000)[1900:]):
        shares = []
        for query in some(20, seed=1):
            found, best = vectors.search(query, 10, slots), exact.search(query, 10, slots)
            assert {slot for slot, _ in found} <= set(slots.tolist())
            scores = [score for _, score in found]
            assert scores == sorted(scores, reverse=True)
            shares.append(recall(found, best))
        assert np.mean(shares) > 0.9


def test_the_graph_grows_with_the_rows_and_is_read_again(hnsw, tmp_path: Path):
    vectors = hnsw.HnswVectors(tmp_path / "v.f32", 16)
    rows = some(500)
    vectors.append(rows[:300])
    assert vectors.search(rows[7], 1, all_of(300))[0][0] == 7
    assert vectors.graph_path.is_file()
    vectors.append(rows[300:])
    assert vectors.search(rows[450], 1, all_of(500))[0][0] == 450
    again = hnsw.HnswVectors(tmp_path / "v.f32", 16)
    assert again.search(rows[450], 1, all_of(500))[0][0] == 450


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_graph_that_does_not_fit_is_grown_anew(hnsw, tmp_path: Path, damage):
    vectors = hnsw.HnswVectors(tmp_path / "v.f32", 16)
    rows = some(100)
    vectors.append(rows)
    vectors.search(rows[0], 1, all_of(100))
    if damage == "cut":
        vectors.graph_path.write_bytes(vectors.graph_path.read_bytes()[:50])
    else:
        other = hnsw.HnswVectors(tmp_path / "w.f32", 16)
        other.append(some(200, seed=3))
        other.search(rows[0], 1, all_of(200))
        vectors.graph_path.write_bytes(other.graph_path.read_bytes())
    assert hnsw.HnswVectors(tmp_path / "v.f32", 16).search(rows[42], 1, all_of(100))[0][0] == 42


def test_graphs_of_rows_that_are_gone_go_too(hnsw, tmp_path: Path):
    (tmp_path / "vectors.0.f32.hnsw").write_bytes(b"old")
    hnsw.HnswVectors(tmp_path / "vectors.1.f32", 16)
    assert not (tmp_path / "vectors.0.f32.hnsw").exists()


@pytest.fixture
def vec0():
    pytest.importorskip("apsw")
    pytest.importorskip("sqlite_vec")
    from llamakit.rag.vector import vec0

    return vec0


def test_sqlite_searches_as_numpy_does(vec0, tmp_path: Path):
    rows = some(300)
    rows[5] = 0
    exact, vectors = FlatVectors(tmp_path / "f", 16), vec0.SqliteVectors(tmp_path / "v", 16)
    assert exact.append(rows) == vectors.append(rows[:100]) == 0
    assert vectors.append(rows[100:]) == 100 and vectors.count() == 300
    for slots in (all_of(300), all_of(300)[::7], all_of(300)[5:6]):
        for query in some(5, seed=2):
            found, best = vectors.search(query, 10, slots), exact.search(query, 10, slots)
            assert [slot for slot, _ in found] == [slot for slot, _ in best]
            assert np.allclose([score for _, score in found], [score for _, score in best], atol=1e-5)
    assert np.array_equal(vectors.rows(np.array([299, 0])), rows[[299, 0]])
    assert vectors.search(rows[0], 3, all_of(0)) == [] and vectors.rows(all_of(0)).shape == (0, 16)
    assert vec0.SqliteVectors(tmp_path / "v", 16).count() == 300
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("v")] == ["v"]


def test_what_is_no_file_of_vectors(vec0, tmp_path: Path):
    (tmp_path / "v").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        vec0.SqliteVectors(tmp_path / "v", 16)
    with pytest.raises(ValueError, match="rows of 16"):
        vec0.SqliteVectors(tmp_path / "w", 16).append(some(1, dimension=8))
