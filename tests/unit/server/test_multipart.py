"""Forms as they arrive: cut anywhere, broken anywhere, too large, and never held whole."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest
from starlette.requests import Request

from llamakit.api.limits import Limits
from llamakit.core.errors import InvalidRequest
from llamakit.server.errors import BodyTooLarge, BodyTooSlow, WrongMediaType
from llamakit.server.multipart import read_form

TYPE = "multipart/form-data; boundary=XyZ"


def part(name, value=b"x", filename=None, extra=b""):
    tail = b"" if filename is None else b'; filename="' + filename + b'"'
    return (
        b'--XyZ\r\nContent-Disposition: form-data; name="'
        + name
        + b'"'
        + tail
        + b"\r\n"
        + extra
        + b"\r\n"
        + value
        + b"\r\n"
    )


def form(*parts, end=b"--XyZ--\r\n"):
    return b"".join(parts) + end


def request_of(chunks, content_type=TYPE, headers=()):
    left = list(chunks)

    async def receive():
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    made = [(b"content-type", content_type.encode()), *headers]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": made}, receive)


async def keep(pieces):
    return b"".join([piece async for piece in pieces])


async def read(body, *, cuts=(), limits=None, file_bytes=1 << 20, **request):
    places = [0, *sorted(cuts), len(body)]
    chunks = [body[low:high] for low, high in pairwise(places)]
    return await read_form(request_of(chunks, **request), "file", keep, limits or Limits(), file_bytes=file_bytes)


WHOLE = form(
    part(
        b"file", b"line\r\n--Xy\r\n--XyZnot\n" + bytes(range(256)), b"na\xc3\xafve.txt", b"Content-Type: text/plain\r\n"
    ),
    part(b"purpose", b"assistants"),
    part("größe".encode(), "5 €".encode()),
)


@pytest.mark.parametrize("seed", range(40))
async def test_a_form_reads_the_same_however_it_is_cut(seed):
    draw = random.Random(seed)
    cuts = [draw.randrange(len(WHOLE)) for _ in range(draw.choice([0, 1, 5, 60]))]
    fields, file = await read(WHOLE, cuts=cuts)
    assert fields == {"purpose": "assistants", "größe": "5 €"}
    assert file.name == "naïve.txt" and file.kept == b"line\r\n--Xy\r\n--XyZnot\n" + bytes(range(256))


async def test_fields_may_come_first_and_a_file_may_be_empty():
    fields, file = await read(form(part(b"purpose"), part(b"file", b"", b"e.txt")))
    assert fields == {"purpose": "x"} and (file.name, file.kept) == ("e.txt", b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        form(part(b"purpose")),
        form(part(b"file"), part(b"file")),
        form(part(b"purpose"), part(b"purpose"), part(b"file")),
        form(part(b"file"), end=b""),
        WHOLE[:100],
        WHOLE[:-4],
        b"--XyZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XyZ--\r\n",
        b"--XyZ\r\nContent-Disposition: attachment\r\n\r\nx\r\n--XyZ--\r\n",
        form(part(b"\xff"), part(b"file")),
        form(part(b"file"), part(b"purpose", b"\xff")),
        form(*[part(f"f{n}".encode()) for n in range(40)], part(b"file")),
        form(part(b"purpose", b"x" * (65 << 10)), part(b"file")),
        form(part(b"file", extra=b"X: " + b"y" * 9000 + b"\r\n")),
        form(part(b"file", extra=b"".join(b"X%d: y\r\n" % n for n in range(20)))),
    ],
)
async def test_broken_forms_are_bad_requests(body):
    with pytest.raises(InvalidRequest):
        await read(body)


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=XyZ",
     f"multipart/form-data; boundary={'x' * 201}"],
)  # fmt: skip
async def test_other_kinds_of_body(content_type):
    with pytest.raises(WrongMediaType):
        await read(WHOLE, content_type=content_type)


async def test_compressed_forms_are_not_taken():
    with pytest.raises(WrongMediaType, match="compressed"):
        await read(WHOLE, headers=[(b"content-encoding", b"gzip")])


async def test_files_too_large_are_refused_by_their_header_and_by_their_bytes():
    with pytest.raises(BodyTooLarge):
        await read(WHOLE, file_bytes=100)
    with pytest.raises(BodyTooLarge):
        await read(WHOLE, headers=[(b"content-length", b"9999999999")])
    with pytest.raises(BodyTooLarge):
        await read(form(part(b"file"), part(b"file2", b"x" * (2 << 20))), file_bytes=10)


async def test_forms_too_slow_are_given_up():
    async def receive():
        import asyncio

        await asyncio.sleep(30)

    request = request_of([])
    request._receive = receive
    with pytest.raises(BodyTooSlow):
        await read_form(request, "file", keep, Limits(file_s=0.05), file_bytes=10)


async def test_a_large_file_is_never_held_whole():
    async def count(pieces):
        size = 0
        async for piece in pieces:
            size += len(piece)
        return size

    chunk, times = b"y" * (64 << 10), 512
    chunks = [part(b"file", b"", b"l")[:-2], *[chunk] * times, b"\r\n--XyZ--\r\n"]
    tracemalloc.start()
    _, file = await read_form(request_of(chunks), "file", count, Limits(), file_bytes=1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.kept == times * len(chunk) and peak < 2 << 20
