"""Files and uploads by the inside: contents, owners, expiry, parts, and what a sweep leaves."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest
from tests.kept import kept_stack

from llamakit.api.files import WireUploadCompletion, WireUploadRequest
from llamakit.api.limits import Limits
from llamakit.api.openai_lists import PageQuery
from llamakit.core.errors import InvalidRequest, NotFound
from llamakit.stack.files import Files
from llamakit.stack.uploads import Uploads

PAGE = PageQuery(limit=100)


class Clock:
    """A time of day that a test moves."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture(params=["sqlite", "postgres"])
async def stack(request):
    async with kept_stack(request.param, request) as stack:
        yield stack


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def files(stack, clock):
    return Files(stack.storage, clock=clock)


@pytest.fixture
def uploads(stack, files, clock):
    return Uploads(stack.storage, files, limits=Limits(part_bytes=64, upload_bytes=256), clock=clock)


async def streamed(*pieces: bytes):
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def test_what_was_given_comes_back(files):
    large = bytes(range(256)) * 10_000  # several pieces
    for data in (b"", b"x", large):
        file = await files.create("ann", "a.bin", "user_data", data)
        assert file["bytes"] == len(data) and file["status"] == "processed"
        assert await files.read("ann", file["id"]) == data
        assert b"".join([piece async for piece in files.pieces("ann", file["id"])]) == data
    file = await files.create("ann", "b.bin", "user_data", streamed(large[:999], b"", large[999:]))
    assert await files.read("ann", file["id"]) == large


@pytest.mark.parametrize(
    ("name", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\x\\y.txt", "y.txt"), ("ünï 🦙.md", "ünï 🦙.md"), ("a'\"b", "a'\"b")],
)
async def test_a_name_is_its_last_part(files, name, kept):
    assert (await files.create("ann", name, "user_data", b"x"))["filename"] == kept


@pytest.mark.parametrize("name", ["", "/", "..", "a/..", "x\n", "x\0", "x" * 256, "\ud800"])
async def test_names_that_are_none(files, name):
    with pytest.raises(InvalidRequest, match="file name"):
        await files.create("ann", name, "user_data", b"x")


async def test_too_large_a_file_leaves_nothing(files):
    with pytest.raises(InvalidRequest, match="limit of 3 bytes"):
        await files.receive(streamed(b"ab", b"cd"), limit=3)
    assert (await files.list("ann", PAGE))["data"] == []


async def test_pages_and_purposes(files):
    ids = [(await files.create("ann", f"{n}", "batch" if n % 2 else "assistants", b"same"))["id"] for n in range(5)]
    newest = await files.list("ann", PageQuery(limit=2))
    assert [file["id"] for file in newest["data"]] == [ids[4], ids[3]] and newest["has_more"]
    rest = await files.list("ann", PageQuery(limit=3, after=ids[3]))
    assert [file["id"] for file in rest["data"]] == [ids[2], ids[1], ids[0]] and not rest["has_more"]
    batch = await files.list("ann", PageQuery(order="asc"), "batch")
    assert [file["id"] for file in batch["data"]] == [ids[1], ids[3]]
    with pytest.raises(InvalidRequest, match="go on from"):
        await files.list("ann", PageQuery(after="file-" + "0" * 48))


async def test_nobody_reaches_anothers_file(files):
    file = await files.create("ann", "a", "user_data", b"secret")
    for attempt in (files.get, files.read, files.delete):
        with pytest.raises(NotFound):
            await attempt("bob", file["id"])
    with pytest.raises(NotFound):
        [piece async for piece in files.pieces("bob", file["id"])]
    assert (await files.list("bob", PAGE))["data"] == []


async def test_an_expired_file_is_gone_at_once_and_its_content_with_the_sweep(stack, files, clock):
    kept = await files.create("ann", "kept", "user_data", b"kept")
    lost = await files.create("ann", "lost", "user_data", b"lost", expires_after_s=3600)
    assert lost["expires_at"] == pytest.approx(lost["created_at"] + 3600, abs=1)
    clock.ahead_s = 3601
    with pytest.raises(NotFound):
        await files.get("ann", lost["id"])
    assert [file["id"] for file in (await files.list("ann", PAGE))["data"]] == [kept["id"]]
    blobs = await stack.storage.blobs()
    digest = hashlib.sha256(b"lost").hexdigest()
    assert await blobs.read(digest) == b"lost"
    assert await stack.housekeeping.sweep() == 0  # too young to be taken: its row might be on its way
    referenced = {hashlib.sha256(b"kept").hexdigest()}
    assert await blobs.sweep(referenced, older_than_s=0) == 1
    with pytest.raises(NotFound):
        await blobs.read(digest)
    assert await files.read("ann", kept["id"]) == b"kept"


async def test_the_round_for_expired_files_takes_those_of_everybody(files, clock):
    for owner in ("ann", "bob"):
        await files.create(owner, "x", "user_data", b"x", expires_after_s=3600)
    assert await files.expire() == 0
    clock.ahead_s = 3601
    assert await files.expire() == 2
    assert await files.expire() == 0


@pytest.mark.parametrize("seconds", [0, 3599, 2_592_001])
async def test_expiry_has_bounds(files, seconds):
    with pytest.raises(InvalidRequest, match="seconds"):
        await files.create("ann", "x", "user_data", b"x", expires_after_s=seconds)


def announced(size=10, **fields):
    return WireUploadRequest(filename="x.txt", purpose="user_data", bytes=size, mime_type="text/plain", **fields)


async def test_parts_become_a_file_in_the_order_asked_for(uploads, files):
    upload = await uploads.create("ann", announced(expires_after={"anchor": "created_at", "seconds": 7200}))
    assert upload["status"] == "pending" and upload["file"] is None
    second = await uploads.add("ann", upload["id"], b"world")
    first = await uploads.add("ann", upload["id"], streamed(b"he", b"llo"))
    assert first["upload_id"] == upload["id"] and first["object"] == "upload.part"
    md5 = hashlib.md5(b"helloworld").hexdigest()
    done = await uploads.complete(
        "ann", upload["id"], WireUploadCompletion(part_ids=[first["id"], second["id"]], md5=md5.upper())
    )
    assert done["status"] == "completed" and done["file"]["bytes"] == 10
    assert done["file"]["expires_at"] == pytest.approx(done["file"]["created_at"] + 7200, abs=1)
    assert await files.read("ann", done["file"]["id"]) == b"helloworld"
    for again in (
        uploads.add("ann", upload["id"], b"x"),
        uploads.cancel("ann", upload["id"]),
        uploads.complete("ann", upload["id"], WireUploadCompletion(part_ids=[first["id"]])),
    ):
        with pytest.raises(InvalidRequest, match="is completed"):
            await again


async def test_what_does_not_fit_together_is_refused_and_the_upload_goes_on(uploads):
    upload = await uploads.create("ann", announced())
    other = await uploads.create("ann", announced())
    part = (await uploads.add("ann", upload["id"], b"12345"))["id"]
    foreign = (await uploads.add("ann", other["id"], b"12345"))["id"]
    for ids, md5, reason in (
        ([part], None, "5 bytes together, 10 were announced"),
        ([part, part], None, "named twice"),
        ([part, foreign], None, "has no part"),
        ([part, "part_x"], None, "has no part"),
    ):
        with pytest.raises(InvalidRequest, match=reason):
            await uploads.complete("ann", upload["id"], WireUploadCompletion(part_ids=ids, md5=md5))
    rest = (await uploads.add("ann", upload["id"], b"67890"))["id"]
    with pytest.raises(InvalidRequest, match="MD5"):
        await uploads.complete("ann", upload["id"], WireUploadCompletion(part_ids=[part, rest], md5="0" * 32))
    assert (await uploads.complete("ann", upload["id"], WireUploadCompletion(part_ids=[part, rest])))["file"]


async def test_limits_of_parts_and_uploads(uploads):
    with pytest.raises(InvalidRequest, match="at most 256"):
        await uploads.create("ann", announced(257))
    upload = await uploads.create("ann", announced(256))
    for part in (b"", b"x" * 65):
        with pytest.raises(InvalidRequest):
            await uploads.add("ann", upload["id"], part)


async def test_a_cancelled_upload_forgets_its_parts(stack, uploads):
    upload = await uploads.create("ann", announced())
    await uploads.add("ann", upload["id"], b"12345")
    assert (await uploads.cancel("ann", upload["id"]))["status"] == "cancelled"
    with pytest.raises(InvalidRequest, match="is cancelled"):
        await uploads.add("ann", upload["id"], b"x")
    assert await (await stack.storage.blobs()).sweep(set(), older_than_s=0) == 1


async def test_an_upload_expires_within_the_hour(uploads, clock):
    upload = await uploads.create("ann", announced())
    clock.ahead_s = 3601
    with pytest.raises(InvalidRequest, match="is expired"):
        await uploads.add("ann", upload["id"], b"x")
    assert (await uploads.get("ann", upload["id"]))["status"] == "expired"
    assert await uploads.expire() == 0


async def test_nobody_reaches_anothers_upload(uploads):
    upload = await uploads.create("ann", announced())
    for attempt in (
        uploads.get("bob", upload["id"]),
        uploads.add("bob", upload["id"], b"x"),
        uploads.cancel("bob", upload["id"]),
        uploads.complete("bob", upload["id"], WireUploadCompletion(part_ids=["x"])),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_the_file_of_an_upload_may_be_deleted(uploads, files):
    upload = await uploads.create("ann", announced(1))
    part = await uploads.add("ann", upload["id"], b"1")
    done = await uploads.complete("ann", upload["id"], WireUploadCompletion(part_ids=[part["id"]]))
    await files.delete("ann", done["file"]["id"])
    assert (await uploads.get("ann", upload["id"]))["file"] is None
