import errno
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llamakit.core.errors import InvalidRequest, NotFound, StorageError, StorageFull, StorageReadOnly
from llamakit.core.faults import injected
from llamakit.storage.blobs import BlobStore, write_file

POINTS = ("blobs.before_write", "blobs.before_sync", "blobs.before_rename", "blobs.before_folder_sync")


def raising(code: int) -> Callable[[], None]:
    def action() -> None:
        raise OSError(code, os.strerror(code))

    return action


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_content_comes_back_whole_and_in_stretches(tmp_path: Path):
    store = BlobStore(tmp_path)
    content = os.urandom(3_000_000)
    blob = await store.put(content, limit=len(content))
    assert blob.digest == hashlib.sha256(content).hexdigest() and blob.size == len(content)
    assert await store.read(blob.digest) == content
    assert await store.read(blob.digest, 5, 10) == content[5:15]
    assert b"".join([piece async for piece in store.pieces(blob.digest)]) == content
    assert stat.S_IMODE(store.path(blob.digest).stat().st_mode) == 0o600


async def test_the_same_content_is_kept_once(tmp_path: Path):
    store = BlobStore(tmp_path)
    first = await store.put(b"same", limit=10)
    second = await store.put(pieces(b"sa", b"", b"me"), limit=10)
    assert first == second
    assert files(tmp_path) == [store.path(first.digest)]


async def test_too_much_is_refused_while_it_arrives(tmp_path: Path):
    store = BlobStore(tmp_path)
    served = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal served
        while True:
            served += 1
            yield b"x" * 1000

    with pytest.raises(InvalidRequest, match="limit of 2500"):
        await store.put(endless(), limit=2500)
    assert served == 3
    assert files(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "a/" * 32])
async def test_an_ill_formed_digest_leads_nowhere(tmp_path: Path, digest: str):
    store = BlobStore(tmp_path)
    with pytest.raises(NotFound):
        store.path(digest)
    with pytest.raises(NotFound):
        await store.read("0" * 64)


@pytest.mark.parametrize("point", POINTS)
async def test_a_full_disk_leaves_nothing_behind_and_heals(tmp_path: Path, point: str):
    store = BlobStore(tmp_path)
    kept = await store.put(b"old", limit=10)
    with injected(point, raising(errno.ENOSPC)), pytest.raises(StorageFull):
        await store.put(b"new", limit=10)
    assert await store.read(kept.digest) == b"old"
    blob = await store.put(b"new", limit=10)
    assert await store.read(blob.digest) == b"new"


@pytest.mark.parametrize("point", POINTS)
async def test_a_failed_sync_closes_the_store_for_writing(tmp_path: Path, point: str):
    store = BlobStore(tmp_path)
    kept = await store.put(b"old", limit=10)
    with injected(point, raising(errno.EIO)), pytest.raises(StorageReadOnly):
        await store.put(b"new", limit=10)
    with pytest.raises(StorageReadOnly):
        await store.put(b"more", limit=10)
    assert await store.read(kept.digest) == b"old"


async def test_a_sweep_takes_only_what_is_old_and_unnamed(tmp_path: Path):
    store = BlobStore(tmp_path)
    named, unnamed, young = [await store.put(text, limit=10) for text in (b"named", b"unnamed", b"young")]
    torn = tmp_path / "incoming" / "torn"
    torn.write_bytes(b"half")
    old = time.time() - 7200
    for path in (store.path(named.digest), store.path(unnamed.digest), torn):
        os.utime(path, (old, old))
    assert await store.sweep({named.digest}) == 2
    assert store.has(named.digest) and store.has(young.digest)
    assert not store.has(unnamed.digest) and not torn.exists()


async def test_storing_again_saves_old_content_from_the_sweep(tmp_path: Path):
    store = BlobStore(tmp_path)
    blob = await store.put(b"again", limit=10)
    os.utime(store.path(blob.digest), (0, 0))
    await store.put(b"again", limit=10)
    assert await store.sweep(set()) == 0


@pytest.mark.parametrize("point", POINTS[1:3])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, point: str):
    path = tmp_path / "settings.json"
    write_file(path, b"old")
    with injected(point, raising(errno.EIO)), pytest.raises(StorageReadOnly):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == [path]
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot write"):
        write_file(tmp_path / "missing" / "file", b"x")
