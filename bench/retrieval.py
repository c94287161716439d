"""Which embedder finds the right document, alone and beside word search?

The documents are source files of this package: their docstrings but the first. The question is the first line of
the first docstring, which says what the file is. For each embedder: how high the right file ranks (mean reciprocal
rank, and how often it is first) by vectors alone and in hybrid search, through the whole library. Files and
sentences share words, which favours embedders that look at words.

    python bench/retrieval.py                                  # ngrams, cria, and all-minilm-l6-v2 if installed
    python bench/retrieval.py --embedder cria --files 100 --json out.json

With `--chunks`, the other question: how long the default store takes to search that many chunks of random vectors and
of words as rare as words are (Zipf), with and without filters, and right after a write.

    python bench/retrieval.py --chunks 100000 --dimension 384
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from llamakit.core.errors import MissingExtra
from llamakit.rag.chunk import Chunk
from llamakit.rag.embed import normalized
from llamakit.rag.filters import Compare
from llamakit.rag.index import Library, create_library
from llamakit.rag.tokens import estimate_tokens
from llamakit.rag.vector.local import LocalChunks
from llamakit.rag.vector.store import NewChunk, Source
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single
from llamakit.storage.migrations import migrate
from llamakit.storage.sqlite import SqliteDatabase

ROOT = Path(__file__).parents[1] / "src" / "llamakit"
DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
MAX_CHARS = 1200
MIN_CHARS = 200
OWNER, STORE = "bench", "files"
PER_DOCUMENT, REPEATS = 500, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", action="append", help="may be repeated")
    parser.add_argument("--files", type=int, default=60, help="documents, spread over the package")
    parser.add_argument("--chunks", type=int, help="measure time instead, over this many chunks")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.chunks is not None:
        timed = asyncio.run(at_size(args.chunks, args.dimension))
        for name, row in timed.items():
            print(f"{name:32}", "  ".join(f"{key} {value:9.2f}" for key, value in row.items()))
        if args.json is not None:
            args.json.write_text(json.dumps(timed, indent=2))
        return
    embedders = args.embedder or ["ngrams", "all-minilm-l6-v2", "cria"]
    results = asyncio.run(measure(embedders, pairs(args.files)))
    for name, row in results.items():
        print(f"{name:20}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2))


def pairs(count: int) -> list[tuple[str, str]]:
    """Questions and the texts that answer them."""
    found = []
    for path in sorted(ROOT.glob("*/*.py")):
        about, *rest = DOCSTRING.findall(path.read_text(encoding="utf-8")) or [""]
        text = " ".join(rest)[:MAX_CHARS]
        if len(text) >= MIN_CHARS and about:
            found.append((about.strip().splitlines()[0], text))
    step = max(1, len(found) // count)
    return found[::step][:count]


async def measure(embedders: list[str], documents: list[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Every embedder over the same documents; word search first, once."""
    results: dict[str, dict[str, float]] = {}
    stack = build_stack(single(models=("cria",), database=":memory:"))
    try:
        for name in embedders:
            with tempfile.TemporaryDirectory() as folder:
                database = await SqliteDatabase.open(Path(folder) / "library.db")
                await migrate(database, [create_library])
                library = Library(database, LocalChunks(Path(folder) / "chunks"), stack.embedders, estimate_tokens)
                try:
                    results[name] = await one(library, name, documents)
                except MissingExtra as missing:
                    print(f"{name:20} left out: {missing}")
                await database.close()
    finally:
        await stack.aclose()
    return results


async def one(library: Library, embedder: str, documents: list[tuple[str, str]]) -> dict[str, float]:
    """One embedder: rows of the table."""
    await library.create(OWNER, STORE, embedder)
    began = time.perf_counter()
    for number, (_, text) in enumerate(documents):
        await library.add(OWNER, STORE, str(number), f"{number}.txt")
        await library.put(OWNER, STORE, str(number), [Chunk(text, None, 0, len(text), estimate_tokens(text))])
    elapsed = time.perf_counter() - began
    row = {"documents": float(len(documents)), "documents_per_s": len(documents) / elapsed}
    for mode in ("keyword", "vector", "hybrid"):
        ranks = []
        for number, (question, _) in enumerate(documents):
            found = await library.search(OWNER, STORE, question, k=50, mode=mode)
            order = [result.stored.document for result in found]
            ranks.append(order.index(str(number)) + 1 if str(number) in order else None)
        row[f"{mode}_mrr"] = sum(1 / rank for rank in ranks if rank) / len(ranks)
        row[f"{mode}_first"] = sum(rank == 1 for rank in ranks) / len(ranks)
    return row


async def at_size(count: int, dimension: int) -> dict[str, dict[str, float]]:
    """Milliseconds of searches in one collection: minimum, median and maximum of several."""
    draw, words = np.random.default_rng(0), [f"word{n}" for n in range(5000)]
    query = normalized(draw.normal(size=(1, dimension)), 1, dimension)[0]
    year, common, rare = Compare("eq", "year", (2003,)), "word0 word1 word20 word100", "word3000 word4000"
    with tempfile.TemporaryDirectory() as folder:
        store = LocalChunks(Path(folder) / "chunks")
        await store.create(OWNER, STORE, dimension)
        began = time.perf_counter()
        for document in range(count // PER_DOCUMENT):
            ranks = np.minimum(draw.zipf(1.3, (PER_DOCUMENT, 80)) - 1, len(words) - 1)
            texts = [" ".join(words[rank] for rank in row) for row in ranks]
            chunks = [NewChunk(f"{document}-{n}", Chunk(text, 1, 0, len(text), 80)) for n, text in enumerate(texts)]
            source = Source(f"{document}", "d", {"year": 2000 + document % 20})
            vectors = normalized(draw.normal(size=(PER_DOCUMENT, dimension)), PER_DOCUMENT, dimension)
            await store.put(OWNER, STORE, source, chunks, vectors)
        rate = count / (time.perf_counter() - began)

        async def after_a_write() -> None:
            await store.describe(OWNER, STORE, Source("0", "d", {"year": 2000}))
            await store.nearest(OWNER, STORE, query, 10)

        searches = {
            "vectors": lambda: store.nearest(OWNER, STORE, query, 10),
            "vectors, one year of 20": lambda: store.nearest(OWNER, STORE, query, 10, year),
            "vectors, all years but one": lambda: store.nearest(OWNER, STORE, query, 10, replace(year, operator="ne")),
            "vectors, right after a write": after_a_write,
            "rare words": lambda: store.matching(OWNER, STORE, rare, 10),
            "common words": lambda: store.matching(OWNER, STORE, common, 10),
            "common words, one year of 20": lambda: store.matching(OWNER, STORE, common, 10, year),
        }
        results = {"chunks written a second": {"mean": rate}}
        for name, search in searches.items():
            await search()
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                await search()
                times.append(1000 * (time.perf_counter() - began))
            results[name] = {"min_ms": min(times), "median_ms": median(times), "max_ms": max(times)}
        await store.close()
    return results


if __name__ == "__main__":
    main()
