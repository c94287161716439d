"""The stores that `llama rag` works on, in process: the same rows and files that a server on this machine has.

Knows paths, stores and questions; prints nothing. A store is found by its name and made when something is added.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.api.openai_lists import PageQuery
from llamakit.api.vector_stores import WireStoreRequest
from llamakit.core.errors import DocumentError, InvalidRequest, NotFound
from llamakit.rag.fuse import Mode
from llamakit.rag.parse import MAX_DOCUMENT_BYTES, kind_of
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import Distribution, single
from llamakit.stack.embedders import IN_PROCESS
from llamakit.stack.vector_files import Wanted
from llamakit.stack.vector_search import Found

OWNER = "local"
"""As whom a server without keys acts, so that it shows these stores too."""
CHUNK = (400, 100)
"""Tokens of a chunk and of what it repeats: small, so that several fit the prompt of a small model."""
_HEAD_BYTES = 4096
_BATCH = 500
_PIECE_BYTES = 1 << 20
_LOOK_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file that was found."""

    path: Path
    reason: str | None = None
    """Why it cannot be added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A file of a store, as it stands."""

    file_id: str
    path: str
    status: str
    reason: str | None
    usage_bytes: int
    sha256: str | None


def find(paths: Sequence[Path]) -> list[Candidate]:
    """The files of paths, folders with all that lies in them but what is hidden; raises for a path that is none."""
    found: dict[Path, Candidate] = {}
    for path in paths:
        if not path.exists():
            raise InvalidRequest(f"no file or folder {path}")
        for file in [path] if path.is_file() else _files_in(path):
            resolved = file.resolve()
            found.setdefault(resolved, _looked_at(resolved))
    return list(found.values())


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files_in(path)
        elif path.is_file():
            yield path


def _looked_at(path: Path) -> Candidate:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        size = path.stat().st_size
    except OSError as error:
        return Candidate(path=path, reason=error.strerror or "it cannot be read")
    if size > MAX_DOCUMENT_BYTES:
        return Candidate(path=path, reason=f"it has {size} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    try:
        kind_of(path.name, head)
    except DocumentError:
        return Candidate(path=path, reason="no document of a known kind")
    return Candidate(path=path)


class Shelf:
    """One store by its name."""

    def __init__(self, stack: Stack, name: str, store: str | None) -> None:
        self.stack = stack
        self.name = name
        self._store = store

    @property
    def id(self) -> str:
        """Id of the store; `NotFound` where nothing was added yet."""
        if self._store is None:
            raise NotFound(f"there is no store {self.name!r} yet; put something in: llama rag add PATH --store NAME")
        return self._store

    async def make(self, embedder: str | None) -> None:
        """Make the store if it is not there; raises `InvalidRequest` where it has another embedder than asked for."""
        if self._store is None:
            wire = WireStoreRequest(name=self.name, embedding_model=embedder)
            self._store = (await self.stack.vector_stores.create(OWNER, wire))["id"]
        elif embedder is not None:
            has = (await self.stack.vector_stores.get(OWNER, self.id))["embedding_model"]
            if has != embedder:
                raise InvalidRequest(f"store {self.name!r} embeds with {has}; choose another --store for {embedder}")

    async def documents(self) -> list[Document]:
        """All files of the store, the first added first."""
        made, after = [], None
        while True:
            page = await self.stack.vector_stores.files.list(
                OWNER, self.id, PageQuery(limit=1000, order="asc", after=after)
            )
            made += [await self._document(file) for file in page["data"]]
            if not page["has_more"]:
                return made
            after = page["last_id"]

    async def add(self, paths: Sequence[Path]) -> AsyncGenerator[Document, None]:
        """Read files into the store, each told when it is at its end. One that has changed takes the place of the old;
        one that has not is told as `unchanged`.
        """
        known = {document.path: document for document in await self.documents()}
        wanted: list[Wanted] = []
        for path in paths:
            digest, old = await asyncio.to_thread(_digest, path), known.get(str(path))
            if old is not None and old.sha256 == digest and old.status == "completed":
                yield Document(
                    file_id=old.file_id, path=old.path, status="unchanged", reason=None,
                    usage_bytes=old.usage_bytes, sha256=digest,
                )  # fmt: skip
                continue
            file = await self.stack.files.create(OWNER, path.name, "assistants", _pieces(path))
            if old is not None:
                await self.stack.files.delete(OWNER, old.file_id)
            attributes = {"path": str(path), "sha256": digest}
            wanted.append(Wanted(file=file["id"], attributes=attributes, chunking=CHUNK))
        for start in range(0, len(wanted), _BATCH):
            async for document in self._ended(wanted[start : start + _BATCH]):
                yield document

    async def _ended(self, wanted: Sequence[Wanted]) -> AsyncIterator[Document]:
        """Attach files and tell each as it comes to its end."""
        files = self.stack.vector_stores.files
        batch = (await files.create_batch(OWNER, self.id, wanted))["id"]
        left = {want.file for want in wanted}
        while left:
            page = await files.list(OWNER, self.id, PageQuery(limit=1000), batch=batch)
            for file in page["data"]:
                if file["status"] != "in_progress" and file["id"] in left:
                    left.remove(file["id"])
                    yield await self._document(file)
            if left:
                await asyncio.sleep(_LOOK_S)

    async def remove(self, names: Sequence[str]) -> list[Document]:
        """Remove documents by path, file name or id, contents and all; raises `NotFound` for a name of none."""
        documents = await self.documents()
        chosen: dict[str, Document] = {}
        for name in names:
            path = str(Path(name).resolve())
            matching = [d for d in documents if name in (d.file_id, Path(d.path).name) or path == d.path]
            if not matching:
                raise NotFound(f"store {self.name!r} has no document {name!r}; see them: llama rag list --store NAME")
            chosen |= {document.file_id: document for document in matching}
        for document in chosen.values():
            await self.stack.files.delete(OWNER, document.file_id)
        return list(chosen.values())

    async def drop(self) -> list[Document]:
        """Remove the store and all documents of it."""
        documents = await self.documents()
        for document in documents:
            await self.stack.files.delete(OWNER, document.file_id)
        await self.stack.vector_stores.delete(OWNER, self.id)
        return documents

    async def search(self, query: str, *, limit: int, mode: Mode) -> Sequence[Found]:
        """The best chunks, best first."""
        return await self.stack.vector_stores.search(OWNER, self.id, query, limit=limit, mode=mode)

    async def _document(self, file: dict[str, Any]) -> Document:
        attributes, error = file["attributes"], file["last_error"]
        path = attributes.get("path")
        if path is None:  # it came over HTTP
            path = (await self.stack.files.get(OWNER, file["id"]))["filename"]
        return Document(
            file_id=file["id"],
            path=str(path),
            status=file["status"],
            reason=error and error["message"],
            usage_bytes=file["usage_bytes"],
            sha256=attributes.get("sha256"),
        )


@asynccontextmanager
async def opened(name: str, *, model: str | None = None, embedder: str | None = None) -> AsyncIterator[Shelf]:
    """The store of a name, with `model` there to be asked; without one, nothing that can load a model is built."""
    if model is None and embedder is None:
        async with _stack(Distribution(providers={})) as stack:
            embedder = None if (store := await _named(stack, name)) is None else store["embedding_model"]
    if model is None and (embedder is None or embedder in IN_PROCESS):
        distribution = Distribution(providers={})
    else:
        distribution = single(
            models=dict.fromkeys(each for each in (model, embedder) if each not in (None, *IN_PROCESS))
        )
    async with _stack(distribution) as stack:
        store = await _named(stack, name)
        yield Shelf(stack, name, None if store is None else store["id"])


async def stores() -> list[dict[str, Any]]:
    """Every store there is, the first made first."""
    async with _stack(Distribution(providers={})) as stack:
        return [store async for store in _all(stack)]


@asynccontextmanager
async def _stack(distribution: Distribution) -> AsyncIterator[Stack]:
    stack = build_stack(distribution)
    stack.vector_stores.ingestion.stand_alone()
    try:
        yield stack
    finally:
        await stack.aclose()


async def _named(stack: Stack, name: str) -> dict[str, Any] | None:
    async for store in _all(stack):
        if name in (store["name"], store["id"]):
            return store
    return None


async def _all(stack: Stack) -> AsyncIterator[dict[str, Any]]:
    after = None
    while True:
        page = await stack.vector_stores.list(OWNER, PageQuery(limit=100, order="asc", after=after))
        for store in page["data"]:
            yield store
        if not page["has_more"]:
            return
        after = page["last_id"]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
