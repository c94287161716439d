"""Files that are wholly there or wholly absent, and a store of them named by their content.

A file is written under a temporary name, synced, renamed, and its folder synced: only then is it
acknowledged. A failed sync is never tried again, because the kernel may have dropped the bytes it
could not write; the store then takes no more.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamakit.core.errors import InvalidRequest, NotFound, StorageError, StorageFull, StorageReadOnly
from llamakit.core.faults import fault

PIECE_BYTES = 1 << 20
"""Bytes read from or written to the disk in one go."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNTRUSTED = (errno.EIO, errno.EROFS)


def _translated(error: OSError, path: Path) -> StorageError:
    if error.errno in _FULL:
        return StorageFull(f"no room to write {path.name}: {error.strerror}; free some space and send it again")
    if error.errno in _UNTRUSTED:
        return StorageReadOnly(f"the disk failed while writing {path.name}: {error.strerror}; have it looked at")
    return StorageError(f"cannot write {path}: {error.strerror}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fault("blobs.before_folder_sync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    """A new file of its own, readable by its user only."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _settle(temporary: Path, path: Path) -> None:
    """Sync a filled file and give it its name."""
    descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
    try:
        fault("blobs.before_sync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fault("blobs.before_rename")
    os.replace(temporary, path)
    sync_folder(path.parent)


def publish(path: Path, fill: Callable[[Path], None]) -> None:
    """Make `path` appear whole: `fill` writes into a private temporary file beside it.

    Raises `StorageFull`, `StorageReadOnly` or `StorageError`; an older file of that name stays then.
    """
    temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}.tmp")
    try:
        os.close(_create(temporary))
        fill(temporary)
        _settle(temporary, path)
    except OSError as error:
        raise error if isinstance(error, StorageError) else _translated(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a small file durably; an older one is replaced as a whole or not at all."""
    publish(path, lambda temporary: _overwrite(temporary, data))


def _overwrite(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored content."""

    digest: str
    """SHA-256 of the content, lower-case hexadecimal."""
    size: int


class Blobs(Protocol):
    """Content by its SHA-256, wherever it lies."""

    async def put(self, data: bytes | AsyncIterable[bytes], *, limit: int) -> Blob:
        """Store content durably; `InvalidRequest` beyond `limit` bytes."""
        ...

    async def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """A stretch of stored content, or `NotFound`."""
        ...

    def pieces(self, digest: str, size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
        """Stored content, piece by piece."""
        ...

    async def sweep(self, referenced: set[str], *, older_than_s: float = 3600.0) -> int:
        """Remove content that is not `referenced` and was put longer ago; how many."""
        ...


def check_digest(digest: str) -> str:
    """`digest` itself; an ill-formed one is `NotFound`, as an absent one is."""
    if not _DIGEST.fullmatch(digest):
        raise NotFound(f"no stored content {digest[:80]!r}")
    return digest


class BlobStore:
    """Content by its SHA-256 under one folder. Knows no owner: rows that name a digest do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self.failure: StorageReadOnly | None = None
        try:
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(root)
        except OSError as error:
            raise _translated(error, root) from error

    def path(self, digest: str) -> Path:
        """Where content lies, whether or not it is there; an ill-formed digest is `NotFound`."""
        return self._root / check_digest(digest)[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether the content is there."""
        return self.path(digest).is_file()

    async def put(self, data: bytes | AsyncIterable[bytes], *, limit: int) -> Blob:
        """Store content durably; the same content twice takes room once.

        Raises `InvalidRequest` beyond `limit` bytes, `StorageFull`, `StorageReadOnly`, `StorageError`.
        """
        if self.failure is not None:
            raise self.failure
        temporary = self._incoming / secrets.token_hex(16)
        digest = hashlib.sha256()
        size = 0
        try:
            descriptor = await asyncio.to_thread(_create, temporary)
            try:
                async for piece in pieces_of(data):
                    size += len(piece)
                    if size > limit:
                        raise InvalidRequest(f"content exceeds the limit of {limit} bytes; send less", param="file")
                    digest.update(piece)
                    await asyncio.to_thread(_write_all, descriptor, piece)
            finally:
                os.close(descriptor)
            blob = Blob(digest.hexdigest(), size)
            await asyncio.to_thread(self._keep, temporary, blob)
        except OSError as error:
            failure = error if isinstance(error, StorageError) else _translated(error, temporary)
            if isinstance(failure, StorageReadOnly):
                self.failure = failure
            raise failure from error
        finally:
            temporary.unlink(missing_ok=True)
        return blob

    async def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """A stretch of stored content, to its end by default."""
        return await asyncio.to_thread(_read, self.path(digest), start, length)

    async def pieces(self, digest: str, size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
        """Stored content, piece by piece."""
        start = 0
        while piece := await self.read(digest, start, size):
            yield piece
            start += len(piece)

    async def sweep(self, referenced: set[str], *, older_than_s: float = 3600.0) -> int:
        """Remove content no row names and leftovers of broken writes, once they are old enough; how many."""
        return await asyncio.to_thread(self._sweep, referenced, older_than_s)

    def _keep(self, temporary: Path, blob: Blob) -> None:
        path = self.path(blob.digest)
        with self._lock():
            if path.is_file() and path.stat().st_size == blob.size:
                os.utime(path)  # young again, so that a sweep under way leaves it
                return
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700)
                sync_folder(self._root)
            _settle(temporary, path)

    def _sweep(self, referenced: set[str], older_than_s: float) -> int:
        removed = 0
        with self._lock():
            before = time.time() - older_than_s
            for path in (*self._incoming.iterdir(), *self._root.glob("[0-9a-f][0-9a-f]/*")):
                if path.name not in referenced and path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process and thread at a time: a sweep must not take what a write is about to rely on."""
        descriptor = os.open(self._root / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


async def pieces_of(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Content of either form, piece by piece."""
    if not isinstance(data, bytes):
        async for piece in data:
            yield piece
        return
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        fault("blobs.before_write")
        view = view[os.write(descriptor, view) :]


def _read(path: Path, start: int, length: int | None) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)
    except FileNotFoundError as error:
        raise NotFound(f"no stored content {path.name!r}") from error
