"""The default chunk store: a folder a collection, with a SQLite file of chunks and words and a file of vectors.

Each collection has its own files, so ranks, word statistics and timings of one say nothing about
another, and dropping one is removing a folder. Vectors are on the disk before the row that names
them; words are found with FTS5 and ranked by BM25.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llamakit.core.errors import Conflict, NotFound
from llamakit.rag.chunk import Chunk
from llamakit.rag.embed import Vectors
from llamakit.rag.filters import Filter, columns, sequence_sql, to_sql
from llamakit.rag.vector.file import OpenVectors, VectorFile, open_flat
from llamakit.rag.vector.store import Hit, NewChunk, Source, StoredChunk
from llamakit.storage.blobs import sync_folder
from llamakit.storage.migrations import migrate
from llamakit.storage.sql import Executor, Row, Statement, Value
from llamakit.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    # Brings numpy, which a server without vectors does without.
    from llamakit.rag.vector.flat import Slots

_WORD = re.compile(r"\w+")
MAX_WORDS = 64
"""Words of a query that are looked up."""
_COMMON_FROM = 5000
"""Chunks from which on it is worth while to leave out words that most of them hold."""
_COMPACT_BELOW = 0.5
"""A file of vectors whose living share is smaller is written anew."""
_COMPACT_FROM = 1024
_COMPACTION_S = 600.0
"""How long writers wait for a compaction at most."""

_CHUNK_COLUMNS = (
    "c.id, c.document, d.name, c.text, c.page, c.start_at, c.end_at, c.tokens, c.headings, c.metadata, d.attributes"
)


async def _create_tables(transaction: Executor) -> None:
    for sql in (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE TABLE documents (id TEXT PRIMARY KEY, name TEXT NOT NULL, attributes TEXT NOT NULL)",
        "CREATE TABLE attributes (document TEXT NOT NULL, name TEXT NOT NULL, text TEXT, number DOUBLE PRECISION, "
        "PRIMARY KEY (document, name))",
        "CREATE TABLE chunks (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL, "
        "position BIGINT NOT NULL, slot BIGINT NOT NULL, text TEXT NOT NULL, page BIGINT, start_at BIGINT NOT NULL, "
        "end_at BIGINT NOT NULL, tokens BIGINT NOT NULL, headings TEXT NOT NULL, metadata TEXT NOT NULL)",
        "CREATE INDEX chunks_of_document ON chunks (document, position)",
        "CREATE INDEX chunks_by_slot ON chunks (slot)",
        "CREATE VIRTUAL TABLE words USING fts5 (text, content='chunks', content_rowid='n', "
        "tokenize='unicode61 remove_diacritics 2')",
    ):
        await transaction.execute(sql)


async def _create_vocabulary(transaction: Executor) -> None:
    await transaction.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab (words, 'row')")


_STEPS = (_create_tables, _create_vocabulary)


@dataclass(slots=True)
class _Open:
    """One open collection."""

    database: SqliteDatabase
    vectors: VectorFile
    version: str = ""
    """Of the rows that `living` was read from."""
    living: Slots | None = None
    users: int = 0


class LocalChunks:
    """Chunk stores under one folder. Keeps the most recently used collections open."""

    def __init__(self, root: Path, *, vectors: OpenVectors = open_flat, max_open: int = 32) -> None:
        self._root = root
        self._vectors = vectors
        self._max_open = max_open
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = asyncio.Lock()

    async def create(self, owner: str, collection: str, dimension: int) -> None:
        """Make an empty collection."""
        folder = self._folder(owner, collection)
        async with self._lock:
            if folder.exists():
                raise Conflict(f"a collection {collection!r} exists; choose another id")
            making = folder.with_name(f".{folder.name}.new")
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)
            database = await SqliteDatabase.open(making / "chunks.db")
            await migrate(database, _STEPS, subject="chunks")
            facts = {
                "owner": owner,
                "collection": collection,
                "dimension": str(dimension),
                "version": "0",
                "generation": "0",
            }
            await database.run(
                *(Statement("INSERT INTO meta (name, value) VALUES (?1, ?2)", fact) for fact in facts.items())
            )
            await database.close()
            await asyncio.to_thread(self._vectors, making / _vector_file("0"), dimension)
            try:
                making.rename(folder)  # now it is there, whole
            except OSError as error:
                raise Conflict(f"a collection {collection!r} exists; choose another id") from error
            await asyncio.to_thread(sync_folder, self._root)

    async def drop(self, owner: str, collection: str) -> None:
        """Remove a collection's folder."""
        folder = self._folder(owner, collection)
        async with self._lock:
            if not folder.is_dir():
                raise _missing(collection)
            opened = self._open.pop(folder, None)
            if opened is not None:
                await opened.database.close()
            gone = folder.with_name(f".{folder.name}.gone")
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
            folder.rename(gone)  # now it is gone, whole
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    async def put(
        self, owner: str, collection: str, source: Source, chunks: Sequence[NewChunk], vectors: Vectors
    ) -> None:
        """Replace a document's chunks."""
        async with self._using(owner, collection) as opened:
            await _until_undisturbed(lambda: self._put(opened, source, chunks, vectors))
            await self._compact_if_wasteful(opened)

    async def describe(self, owner: str, collection: str, source: Source) -> None:
        """Change a document's name and attributes."""
        async with self._using(owner, collection) as opened:
            await opened.database.run(*_describing(source), _TOUCH)

    async def remove(self, owner: str, collection: str, document: str) -> None:
        """Remove a document."""
        async with self._using(owner, collection) as opened:
            gone = Statement("DELETE FROM documents WHERE id = ?1", (document,))
            await opened.database.run(*_forgetting(document), gone, _TOUCH)
            await self._compact_if_wasteful(opened)

    async def nearest(
        self, owner: str, collection: str, vector: Vectors, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """Exact cosine search over the chunks the filter leaves."""
        async with self._using(owner, collection) as opened:
            return await _until_undisturbed(lambda: self._nearest(opened, vector, k, filter))

    async def matching(
        self, owner: str, collection: str, query: str, k: int, filter: Filter | None = None
    ) -> list[Hit]:
        """BM25 over the words of the query."""
        words = _WORD.findall(query)[:MAX_WORDS]
        if not words:
            return []
        async with self._using(owner, collection) as opened:
            telling = await _telling(opened.database, words)
            hits = await _matching(opened.database, telling, k, filter)
            if len(hits) < k and len(telling) < len(words):
                hits = await _matching(opened.database, words, k, filter)
            return hits

    async def load(self, owner: str, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """These chunks, in this order."""
        async with self._using(owner, collection) as opened:
            args: list[Value] = []
            rows = await opened.database.fetch(
                f"SELECT {_CHUNK_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document "
                f"WHERE c.id IN {sequence_sql(ids, args)}",
                *args,
            )
            found = {row["id"]: stored(row) for row in rows}
            return [found[id] for id in ids if id in found]

    async def chunks_of(self, owner: str, collection: str, document: str) -> list[StoredChunk]:
        """Every chunk of a document."""
        async with self._using(owner, collection) as opened:
            rows = await opened.database.fetch(
                f"SELECT {_CHUNK_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document "
                "WHERE c.document = ?1 ORDER BY c.position",
                document,
            )
            return [stored(row) for row in rows]

    async def close(self) -> None:
        """Close every collection."""
        async with self._lock:
            while self._open:
                await self._open.popitem()[1].database.close()

    def _folder(self, owner: str, collection: str) -> Path:
        """A folder that only this owner's collection of this id has, whatever characters they are spelled with."""
        return self._root / hashlib.sha256(f"{len(owner)} {owner} {collection}".encode()).hexdigest()[:40]

    @asynccontextmanager
    async def _using(self, owner: str, collection: str) -> AsyncIterator[_Open]:
        folder = self._folder(owner, collection)
        async with self._lock:
            opened = self._open.get(folder)
            if opened is None:
                if not (folder / "chunks.db").is_file():
                    raise _missing(collection)
                opened = self._open[folder] = await _opened(folder, self._vectors)
            self._open.move_to_end(folder)
            opened.users += 1
            await self._close_idle()
        try:
            yield opened
        finally:
            opened.users -= 1

    async def _close_idle(self) -> None:
        for folder in [folder for folder, opened in self._open.items() if opened.users == 0]:
            if len(self._open) <= self._max_open:
                return
            await self._open.pop(folder).database.close()

    async def _put(self, opened: _Open, source: Source, chunks: Sequence[NewChunk], vectors: Vectors) -> None:
        generation = await self._follow(opened)
        first = await asyncio.to_thread(opened.vectors.append, vectors) if chunks else 0
        await opened.database.run(
            _still(generation),
            *_forgetting(source.id),
            *_describing(source),
            *(_inserting(source.id, n, first + n, chunk) for n, chunk in enumerate(chunks)),
            Statement("INSERT INTO words (rowid, text) SELECT n, text FROM chunks WHERE document = ?1", (source.id,)),
            _TOUCH,
        )

    async def _nearest(self, opened: _Open, vector: Vectors, k: int, filter: Filter | None) -> list[Hit]:
        generation = await self._follow(opened)
        slots = await self._living(opened) if filter is None else await _filtered(opened.database, filter)
        found = await asyncio.to_thread(opened.vectors.search, vector, k, slots)
        args: list[Value] = []
        inside = sequence_sql([slot for slot, _ in found], args)
        rows = await opened.database.fetch(f"SELECT id, slot FROM chunks WHERE slot IN {inside}", *args)
        if (await _meta(opened.database))["generation"] != generation:
            raise _Disturbed
        ids = {row["slot"]: row["id"] for row in rows}
        return [Hit(ids[slot], score) for slot, score in found if slot in ids]

    async def _living(self, opened: _Open) -> Slots:
        """The slots in use, read again when any process has changed them."""
        version = (await _meta(opened.database))["version"]
        if opened.living is None or opened.version != version:
            opened.living, opened.version = await _slots(opened.database), version
        return opened.living

    async def _follow(self, opened: _Open) -> str:
        """Open the file of vectors that the rows speak of, where it was compacted; its generation."""
        generation = (await _meta(opened.database))["generation"]
        path = opened.vectors.path.with_name(_vector_file(generation))
        if path != opened.vectors.path:
            opened.vectors = await asyncio.to_thread(self._vectors, path, opened.vectors.dimension)
            opened.living = None
        return generation

    async def _compact_if_wasteful(self, opened: _Open) -> None:
        total = opened.vectors.count()
        if total >= _COMPACT_FROM and len(await self._living(opened)) < _COMPACT_BELOW * total:
            await self._compact(opened)

    async def _compact(self, opened: _Open) -> None:
        """Copy the living rows into a new file and name it, while the database takes no other write."""
        async with opened.database.transaction() as transaction:
            rows = await transaction.fetch("SELECT value FROM meta WHERE name = 'generation'")
            following = str(int(rows[0]["value"]) + 1)
            old, new = opened.vectors.path, opened.vectors.path.with_name(_vector_file(following))
            if old.name != _vector_file(rows[0]["value"]):
                return  # another process was quicker
            slots = await _slots(transaction)
            new.unlink(missing_ok=True)
            vectors = await asyncio.to_thread(_copied, opened.vectors, slots, new, self._vectors)
            await transaction.execute(
                "UPDATE chunks SET slot = m.place FROM "
                "(SELECT n, row_number() OVER (ORDER BY slot) - 1 AS place FROM chunks) m WHERE m.n = chunks.n"
            )
            await transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'generation'", following)
            await transaction.run(_TOUCH)
        opened.vectors, opened.living = vectors, None
        old.unlink(missing_ok=True)


async def _opened(folder: Path, opening: OpenVectors) -> _Open:
    database = await SqliteDatabase.open(folder / "chunks.db", idle_s=_COMPACTION_S)
    if not await database.fetch("SELECT name FROM sqlite_master WHERE name = 'vocabulary'"):
        await migrate(database, _STEPS, subject="chunks")
    meta = await _meta(database)
    path = folder / _vector_file(meta["generation"])
    return _Open(database, await asyncio.to_thread(opening, path, int(meta["dimension"])))


class _Disturbed(Conflict):
    """The vectors were compacted between two looks; look again."""

    def __init__(self) -> None:
        super().__init__("the collection was compacted meanwhile")


_Result = TypeVar("_Result")


async def _until_undisturbed(attempt: Callable[[], Awaitable[_Result]]) -> _Result:
    for _ in range(4):
        try:
            return await attempt()
        except _Disturbed:
            continue
    return await attempt()


_TOUCH = Statement("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'version'", expect=1)


def _still(generation: str) -> Statement:
    sql = "UPDATE meta SET value = value WHERE name = 'generation' AND value = ?1"
    return Statement(sql, (generation,), expect=1, otherwise=_Disturbed())


def _forgetting(document: str) -> list[Statement]:
    """A document's chunks, words and attributes go; its row stays for what follows."""
    return [
        Statement(
            "INSERT INTO words (words, rowid, text) SELECT 'delete', n, text FROM chunks WHERE document = ?1",
            (document,),
        ),
        Statement("DELETE FROM chunks WHERE document = ?1", (document,)),
        Statement("DELETE FROM attributes WHERE document = ?1", (document,)),
    ]


def _describing(source: Source) -> list[Statement]:
    upsert = (
        "INSERT INTO documents (id, name, attributes) VALUES (?1, ?2, ?3) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, attributes = excluded.attributes"
    )
    insert = "INSERT INTO attributes (document, name, text, number) VALUES (?1, ?2, ?3, ?4)"
    return [
        Statement(upsert, (source.id, source.name, json.dumps(dict(source.attributes)))),
        Statement("DELETE FROM attributes WHERE document = ?1", (source.id,)),
        *(Statement(insert, (source.id, name, *columns(value))) for name, value in source.attributes.items()),
    ]


def _inserting(document: str, position: int, slot: int, new: NewChunk) -> Statement:
    chunk = new.chunk
    return Statement(
        "INSERT INTO chunks (id, document, position, slot, text, page, start_at, end_at, tokens, headings, metadata) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        (
            new.id,
            document,
            position,
            slot,
            chunk.text,
            chunk.page,
            chunk.start,
            chunk.end,
            chunk.tokens,
            json.dumps(chunk.headings),
            json.dumps(dict(new.metadata)),
        ),
    )


def stored(row: Row) -> StoredChunk:
    """The chunk of a row of `_CHUNK_COLUMNS`."""
    headings = tuple(json.loads(row["headings"]))
    chunk = Chunk(row["text"], row["page"], row["start_at"], row["end_at"], row["tokens"], headings)
    attributes, metadata = json.loads(row["attributes"]), json.loads(row["metadata"])
    return StoredChunk(row["id"], row["document"], row["name"], chunk, attributes, metadata)


async def _meta(executor: Executor) -> dict[str, str]:
    return {row["name"]: row["value"] for row in await executor.fetch("SELECT name, value FROM meta")}


async def _telling(executor: Executor, words: Sequence[str]) -> Sequence[str]:
    """The words without those that most of many chunks hold: BM25 gives these no weight, and they take the most time.

    All of them, where no other is among them.
    """
    total = (await executor.fetch("SELECT count(*) AS n FROM chunks"))[0]["n"]
    if total < _COMMON_FROM or len(words) == 1:
        return words
    args: list[Value] = []
    terms = sequence_sql([plain_word(word) for word in words], args)
    rows = await executor.fetch(f"SELECT term, doc FROM vocabulary WHERE term IN {terms}", *args)
    common = {row["term"] for row in rows if row["doc"] > total / 2}
    return [word for word in words if plain_word(word) not in common] or words


def plain_word(word: str) -> str:
    """A word without case and without marks on its letters."""
    parts = unicodedata.normalize("NFD", word.lower())
    return "".join(char for char in parts if not unicodedata.combining(char))


async def _matching(executor: Executor, words: Sequence[str], k: int, filter: Filter | None) -> list[Hit]:
    args: list[Value] = [" OR ".join(f'"{word}"' for word in words)]
    condition = "" if filter is None else " AND " + to_sql(filter, args, document="c.document")
    args.append(k)
    rows = await executor.fetch(
        "SELECT c.id, bm25(words) AS cost FROM words JOIN chunks c ON c.n = words.rowid "
        f"WHERE words MATCH ?1{condition} ORDER BY cost, c.n LIMIT ?{len(args)}",
        *args,
    )
    return [Hit(row["id"], -row["cost"]) for row in rows]


async def _filtered(executor: Executor, filter: Filter) -> Slots:
    args: list[Value] = []
    return await _slots(executor, to_sql(filter, args, document="c.document"), *args)


async def _slots(executor: Executor, condition: str = "1 = 1", *args: Value) -> Slots:
    """The slots of the chunks for which a condition holds, in order."""
    import numpy as np

    # As one text, since a hundred thousand rows would take ten times as long.
    rows = await executor.fetch(f"SELECT group_concat(c.slot) AS slots FROM chunks c WHERE {condition}", *args)
    return np.sort(np.fromstring(rows[0]["slots"] or "", dtype=np.int64, sep=","))


def _copied(vectors: VectorFile, slots: Slots, path: Path, opening: OpenVectors) -> VectorFile:
    new = opening(path, vectors.dimension)
    for start in range(0, len(slots), 65536):
        new.append(vectors.rows(slots[start : start + 65536]))
    return new


def _vector_file(generation: str) -> str:
    return f"vectors.{generation}.f32"


def _missing(collection: str) -> NotFound:
    return NotFound(f"no collection {collection[:80]!r}; list what you have first")
