"""Which embedder finds the right document, alone and beside word search?

The documents are source files of this package: their docstrings but the first. The question is the first line of
the first docstring, which says what the file is. For each embedder: how high the right file ranks (mean reciprocal
rank, and how often it is first) by vectors alone and in hybrid search, through the whole library. Files and
sentences share words, which favours embedders that look at words.

    python bench/retrieval.py                                  # ngrams, cria, and all-minilm-l6-v2 if installed
    python bench/retrieval.py --embedder cria --files 100 --json out.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from pathlib import Path

from llamakit.core.errors import MissingExtra
from llamakit.rag.chunk import Chunk
from llamakit.rag.index import Library, create_library
from llamakit.rag.tokens import estimate_tokens
from llamakit.rag.vector.local import LocalChunks
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single
from llamakit.storage.migrations import migrate
from llamakit.storage.sqlite import SqliteDatabase

ROOT = Path(__file__).parents[1] / "src" / "llamakit"
DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
MAX_CHARS = 1200
MIN_CHARS = 200
OWNER, STORE = "bench", "files"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", action="append", help="may be repeated")
    parser.add_argument("--files", type=int, default=60, help="documents, spread over the package")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
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


if __name__ == "__main__":
    main()
