"""The zip reader against archives whose two headers tell two stories."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from llamakit.checkpoints.torch_zip import Member, open_archive
from llamakit.core.errors import CheckpointError

FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member, and what each of its two headers says about it; None is the truth."""

    name: bytes
    data: bytes = b"data"
    local_name: bytes | None = None
    flags: int = 0
    local_flags: int | None = None
    method: int = 0
    local_method: int | None = None
    packed: int | None = None
    size: int | None = None
    local_size: int | None = None
    local_crc: int | None = None
    crc: int | None = None
    begin: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    local_extra_length: int | None = None
    comment: bytes = b""
    disk: int = 0
    signature: bytes = b"PK\x01\x02"
    local_signature: bytes = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class Archive:
    entries: tuple[Entry, ...]
    prefix: bytes = b""
    gap: bytes = b""
    comment: bytes = b""
    suffix: bytes = b""
    count: int | None = None
    size: int | None = None
    offset: int | None = None
    disk: int = 0
    wide: dict[str, int] = field(default_factory=dict)
    """Fields of a zip64 end record; with any, the narrow ones are full unless given."""


def _or(value, truth):
    return truth if value is None else value


def build(archive: Archive) -> bytes:
    body, central = bytearray(archive.prefix), bytearray()
    for e in archive.entries:
        begin, crc, size = len(body), zlib.crc32(e.data), len(e.data)
        name = _or(e.local_name, e.name)
        local_size = _or(e.local_size, size)
        body += struct.pack(
            "<4s5H3I2H", e.local_signature, 20, _or(e.local_flags, e.flags), _or(e.local_method, e.method), 0, 0,
            _or(e.local_crc, crc), local_size, local_size, len(name), _or(e.local_extra_length, len(e.local_extra)),
        )  # fmt: skip
        body += name + e.local_extra + e.data
        central += struct.pack(
            "<4s6H3I5H2I", e.signature, 20, 20, e.flags, e.method, 0, 0, _or(e.crc, crc), _or(e.packed, size),
            _or(e.size, size), len(e.name), len(e.extra), len(e.comment), e.disk, 0, 0, _or(e.begin, begin),
        )  # fmt: skip
        central += e.name + e.extra + e.comment
    body += archive.gap
    count, size, offset = len(archive.entries), len(central), len(body)
    body += central
    if archive.wide:
        w = {"count": count, "size": size, "offset": offset, "at": len(body), "length": 44} | archive.wide
        body += struct.pack(
            "<4sQ2H2I4Q", b"PK\x06\x06", w["length"], 20, 20, 0, 0, w["count"], w["count"], w["size"], w["offset"]
        )
        body += struct.pack("<4sIQI", b"PK\x06\x07", 0, w["at"], 1)
        count, size, offset = FULL16, FULL32, FULL32
    narrow = (_or(archive.count, count), _or(archive.size, size), _or(archive.offset, offset))
    body += struct.pack(
        "<4s4H2IH", b"PK\x05\x06", archive.disk, 0, narrow[0], narrow[0], narrow[1], narrow[2], len(archive.comment)
    )
    return bytes(body + archive.comment + archive.suffix)


PICKLE = Entry(name=b"a/data.pkl", data=b"\x80\x02}.")
GOOD = Archive(entries=(PICKLE, Entry(name=b"a/version", data=b"3\n"), Entry(name=b"a/data/0", data=bytes(16))))


def _members(path: Path, data: bytes) -> dict[str, Member]:
    path.write_bytes(data)
    file, members = open_archive(path)
    file.close()
    return members


def _with(entry: Entry) -> Archive:
    return replace(GOOD, entries=(*GOOD.entries[:2], entry))


def test_members_are_found_where_they_lie(tmp_path: Path) -> None:
    data = build(GOOD)
    members = _members(tmp_path / "x.pth", data)
    assert list(members) == ["data.pkl", "version", "data/0"]
    assert data[members["version"].offset :][:2] == b"3\n"


def test_agrees_with_the_standard_library_on_real_files(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({f"t{i}": torch.full((i + 1, 3), float(i)) for i in range(20)}, path)
    members = _members(path, path.read_bytes())
    with zipfile.ZipFile(path) as other:
        assert {f"x/{name}" for name in members} == set(other.namelist())
        for name, member in members.items():
            assert path.read_bytes()[member.offset :][: member.size] == other.read(f"x/{name}")


LARGE = Entry(name=b"a/data/0", data=bytes(16))
ACCEPTED = {
    "sizes after the data": _with(replace(LARGE, flags=8, local_size=0, local_crc=0)),
    "utf-8 flag": _with(replace(LARGE, flags=0x800)),
    "padding before the data": _with(replace(LARGE, local_extra=b"FB\x04\x00ZZZZ")),
    "64-bit sizes": _with(
        replace(LARGE, packed=FULL32, size=FULL32, extra=struct.pack("<2H2Q", 1, 16, 16, 16), flags=8, local_size=0)
    ),
    "64-bit offset": _with(replace(LARGE, begin=FULL32, extra=struct.pack("<2HQ", 1, 8, 87))),
    "64-bit end record": replace(GOOD, wide={"length": 44}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_large_files_need_is_read(case: str, tmp_path: Path) -> None:
    archive = ACCEPTED[case]
    if case == "64-bit offset":
        # The member's true place: after the two members before it.
        before = build(replace(GOOD, entries=GOOD.entries[:2]))
        begin = before.index(b"PK\x01\x02")
        archive = _with(replace(LARGE, begin=FULL32, extra=struct.pack("<2HQ", 1, 8, begin)))
    assert _members(tmp_path / "x.pth", build(archive))["data/0"].size == 16


REFUSED: dict[str, Archive] = {
    "compressed": _with(replace(LARGE, method=8)),
    "compressed, says the directory": _with(replace(LARGE, method=8, local_method=0)),
    "compressed, says the member": _with(replace(LARGE, local_method=8)),
    "packed and plain sizes differ": _with(replace(LARGE, packed=8)),
    "encrypted": _with(replace(LARGE, flags=1)),
    "encrypted, says the member": _with(replace(LARGE, local_flags=1)),
    "strongly encrypted": _with(replace(LARGE, flags=0x40)),
    "masked": _with(replace(LARGE, flags=0x2000)),
    "patched": _with(replace(LARGE, flags=0x20)),
    "two names": _with(replace(LARGE, local_name=b"a/data/1")),
    "two names of two lengths": _with(replace(LARGE, local_name=b"a/data/00")),
    "two sizes": _with(replace(LARGE, local_size=8)),
    "size beyond the file": _with(replace(LARGE, packed=10**6, size=10**6, local_size=10**6)),
    "two checksums": _with(replace(LARGE, local_crc=1)),
    "no size without the flag": _with(replace(LARGE, local_size=0)),
    "data moved by the member": _with(replace(LARGE, local_extra_length=60)),
    "member beyond the file": _with(replace(LARGE, begin=10**6)),
    "member in the directory": _with(replace(LARGE, local_signature=b"PK\x01\x02")),
    "same bytes under two names": _with(Entry(name=b"a/data/0", data=b"", begin=0)),
    "same name twice": replace(GOOD, entries=(*GOOD.entries, LARGE)),
    "overlap": _with(replace(LARGE, begin=4)),
    "two roots": _with(replace(LARGE, name=b"b/data/0")),
    "no root": _with(replace(LARGE, name=b"data/0")),
    "parent": _with(replace(LARGE, name=b"a/../data/0")),
    "absolute": _with(replace(LARGE, name=b"/a/data/0")),
    "backslash": _with(replace(LARGE, name=b"a\\data\\0")),
    "other member": _with(replace(LARGE, name=b"a/code/x.py")),
    "leading zero": _with(replace(LARGE, name=b"a/data/00")),
    "not ascii": _with(replace(LARGE, name="a/data/٠".encode(), flags=0x800)),
    "zero in the name": _with(replace(LARGE, name=b"a/data/0\0")),
    "line end in the name": _with(replace(LARGE, name=b"a/data/0\n")),
    "long name": _with(replace(LARGE, name=b"a/" + b"x" * 600)),
    "entry comment": _with(replace(LARGE, comment=b"x")),
    "entry on another disk": _with(replace(LARGE, disk=1)),
    "directory signature": _with(replace(LARGE, signature=b"PK\x01\x03")),
    "bytes before": replace(GOOD, prefix=b"PK\x03\x04junk"),
    "bytes before that are no zip": replace(GOOD, prefix=b"#!/bin/sh\n"),
    "archive comment": replace(GOOD, comment=b"hello"),
    "bytes after": replace(GOOD, suffix=b"\0"),
    "another archive after": replace(GOOD, suffix=build(GOOD)),
    "several disks": replace(GOOD, disk=1),
    "too few entries": replace(GOOD, count=2),
    "too many entries": replace(GOOD, count=4),
    "no entries": replace(GOOD, entries=()),
    "directory elsewhere": replace(GOOD, offset=0),
    "directory too long": replace(GOOD, size=10**6),
    "end records disagree": replace(GOOD, wide={"length": 44}, count=2),
    "wide record of another length": replace(GOOD, wide={"length": 45}),
    "wide record elsewhere": replace(GOOD, wide={"at": 3}),
    "wide count": replace(GOOD, wide={"count": 2**63}),
    "wide size": replace(GOOD, wide={"size": 2**64 - 1}),
    "wide offset": replace(GOOD, wide={"offset": 2**64 - 1}),
    "wide sizes differ": _with(
        replace(LARGE, packed=FULL32, size=FULL32, extra=struct.pack("<2H2Q", 1, 16, 16, 8), flags=8, local_size=0)
    ),
    "wide sizes absent": _with(replace(LARGE, packed=FULL32, size=FULL32, flags=8, local_size=0)),
    "wide size beyond the file": _with(
        replace(
            LARGE, packed=FULL32, size=FULL32, extra=struct.pack("<2H2Q", 1, 16, 2**63, 2**63), flags=8, local_size=0
        )
    ),
    "wide field cut": _with(replace(LARGE, begin=FULL32, extra=struct.pack("<2HI", 1, 8, 0))),
    "no data.pkl": replace(GOOD, entries=GOOD.entries[1:]),
    "big-endian": _with(Entry(name=b"a/byteorder", data=b"big")),
    "order with a wrong checksum": _with(Entry(name=b"a/byteorder", data=b"little", crc=1, local_crc=1)),
}


def test_a_member_inside_another_is_refused(tmp_path: Path) -> None:
    inner = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, zlib.crc32(b"\1"), 1, 1, 8, 0) + b"a/data/1" + b"\1"
    outer = Entry(name=b"a/data/0", data=inner)
    begin = build(_with(outer)).index(inner)
    hidden = Entry(name=b"a/data/1", data=b"\1", begin=begin)
    with pytest.raises(CheckpointError, match="members of the zip overlap"):
        _members(tmp_path / "x.pth", build(replace(GOOD, entries=(*GOOD.entries[:2], outer, hidden))))


@pytest.mark.parametrize("case", REFUSED)
def test_whatever_is_unusual_is_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x.pth: ") as caught:
        _members(tmp_path / "x.pth", build(REFUSED[case]))
    assert "\n" not in str(caught.value)
