"""The archive that torch.save writes, read with our own arithmetic; knows bytes and member names only.

It is a zip of stored (never compressed) members under one directory: data.pkl and data/0, data/1, ...
General zip readers disagree on files whose two headers disagree, and attacks live in that gap. So
everything said twice must be said equally here, and ranges may neither overlap nor leave the file.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from llamakit.checkpoints.checked_file import MAX_HEADER_BYTES, MAX_TENSORS, CheckedFile

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800
_MAX_NAME = 512
_MEMBER = re.compile(
    r"(?P<root>[A-Za-z0-9_.+-]{1,200})/"
    r"(?P<name>data\.pkl|data/(?:0|[1-9][0-9]{0,8})|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


class Member(NamedTuple):
    """Where a member's bytes lie in the file."""

    offset: int
    size: int
    crc: int


def read_members(file: CheckedFile) -> dict[str, Member]:
    """Member name without the archive's directory -> place; raises `CheckpointError` for anything unusual."""
    start = file.read(0, min(file.size, len(_LEGACY_MAGIC)), "the start")
    if start == _LEGACY_MAGIC:
        file.fail(
            "was written by torch before 1.6; load and save it again with a newer torch, or get it as safetensors"
        )
    if not start.startswith(b"PK\x03\x04"):
        file.fail("is not a torch archive: it does not start with a zip header")
    directory, count = _central_directory(file)
    raw = file.read(directory.start, len(directory), "the zip directory")
    file.allowance.spend(500 * count, "the zip directory")
    members: dict[str, Member] = {}
    used: list[tuple[int, int]] = []
    roots: set[str] = set()
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(raw):
            file.fail(f"its zip directory ends before its {count} entries do")
        begin, name, member, position = _entry(file, raw, position)
        match = _MEMBER.fullmatch(name)
        if match is None:
            file.fail(f"holds {name!r}, which torch.save of plain tensors does not write")
        if match["name"] in members:
            file.fail(f"holds {match['name']!r} twice")
        roots.add(match["root"])
        members[match["name"]] = member
        used.append((begin, member.offset + member.size))
    if position != len(raw):
        file.fail("its zip directory is longer than its entries")
    if len(roots) != 1:
        file.fail("its members lie in more than one directory")
    _check_ranges(file, used, directory.start)
    _check_byte_order(file, members)
    return members


def read_member(file: CheckedFile, member: Member, what: str) -> bytes:
    """A small member's bytes, with its checksum verified."""
    if member.size > MAX_HEADER_BYTES:
        file.fail(f"{what} has {member.size} bytes, at most {MAX_HEADER_BYTES} are read")
    data = file.read(member.offset, member.size, what)
    if zlib.crc32(data) != member.crc:
        file.fail(f"the checksum of {what} is wrong; the file is damaged")
    return data


def _central_directory(file: CheckedFile) -> tuple[range, int]:
    end_at = file.size - _END.size
    signature, *numbers, comment = _END.unpack(file.read(end_at, _END.size, "the zip end record"))
    disk, start_disk, here, count, size, offset = numbers
    if signature != b"PK\x05\x06" or comment:
        file.fail("does not end with a zip end record; it is truncated or damaged")
    if disk or start_disk or here != count:
        file.fail("is one part of a zip over several files")
    locator_at = end_at - _END64_LOCATOR.size
    if locator_at >= 0 and file.read(locator_at, 4, "the zip end record") == b"PK\x06\x07":
        end_at, wide = _wide_end(file, locator_at)
        for narrow, full, value in zip((count, size, offset), (_FULL16, _FULL32, _FULL32), wide, strict=True):
            if narrow not in (full, value):
                file.fail("its two zip end records disagree")
        count, size, offset = wide
    if size > MAX_HEADER_BYTES or count > MAX_TENSORS:
        file.fail(f"its zip directory has {count} entries in {size} bytes, more than is read")
    if offset + size != end_at:
        file.fail("its zip directory does not end where the end record starts")
    return range(offset, offset + size), count


def _wide_end(file: CheckedFile, locator_at: int) -> tuple[int, tuple[int, int, int]]:
    _, disk, at, disks = _END64_LOCATOR.unpack(file.read(locator_at, _END64_LOCATOR.size, "the zip64 locator"))
    if disk or disks > 1 or at != locator_at - _END64.size:
        file.fail("its zip64 locator points to the wrong place")
    fields = _END64.unpack(file.read(at, _END64.size, "the zip64 end record"))
    signature, length, _, _, disk, start_disk, here, count, size, offset = fields
    if signature != b"PK\x06\x06" or length != _END64.size - 12 or disk or start_disk or here != count:
        file.fail("its zip64 end record is damaged")
    return at, (count, size, offset)


def _entry(file: CheckedFile, raw: bytes, position: int) -> tuple[int, str, Member, int]:
    fields = _CENTRAL.unpack_from(raw, position)
    signature, _, _, flags, method, _, _, crc, packed, size, name_len, extra_len, comment_len, disk, _, _, begin = (
        fields
    )
    if signature != b"PK\x01\x02":
        file.fail("its zip directory is damaged")
    if method or packed != size:
        file.fail("holds a compressed member; torch.save stores members as they are")
    if flags & ~(_SIZES_FOLLOW | _UTF8):
        file.fail(f"holds a member with zip flags {flags:#06x} (encrypted or patched)")
    names_at = position + _CENTRAL.size
    end = names_at + name_len + extra_len + comment_len
    if name_len > _MAX_NAME or comment_len or end > len(raw):
        file.fail("its zip directory is damaged")
    name = raw[names_at : names_at + name_len]
    size, begin, disk = _widen(file, raw[names_at + name_len : end], size, begin, disk)
    if disk:
        file.fail("is one part of a zip over several files")
    offset = _check_local(file, begin, name, flags, crc, size)
    try:
        return begin, name.decode("ascii"), Member(offset, size, crc), end
    except UnicodeDecodeError:
        file.fail("holds a member whose name is not ASCII")


def _widen(file: CheckedFile, extra: bytes, size: int, begin: int, disk: int) -> tuple[int, int, int]:
    """Replace full 32-bit fields by the zip64 values; sizes come twice there (plain, packed) and must agree."""
    position, wide = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    needed = (2 if size == _FULL32 else 0) + (1 if begin == _FULL32 else 0)
    if needed == 0:
        return size, begin, disk
    if position > len(extra) or len(wide) < 8 * needed:
        file.fail("a zip64 entry of its directory is damaged")
    values = list(struct.unpack_from(f"<{needed}Q", wide))
    if size == _FULL32:
        size, packed = values.pop(0), values.pop(0)
        if size != packed:
            file.fail("holds a compressed member; torch.save stores members as they are")
    return size, values.pop(0) if values else begin, disk


def _check_local(file: CheckedFile, begin: int, name: bytes, flags: int, crc: int, size: int) -> int:
    """Compare the header before the data with the directory's entry; returns where the data starts."""
    header = _LOCAL.unpack(file.read(begin, _LOCAL.size, "a zip member"))
    signature, _, local_flags, method, _, _, local_crc, packed, plain, name_len, extra_len = header
    if signature != b"PK\x03\x04":
        file.fail("a zip member does not start with a header")
    if (local_flags, method) != (flags, 0) or file.read(begin + _LOCAL.size, name_len, "a name") != name:
        file.fail("the two headers of a zip member disagree")
    # Sizes and checksum may follow the data instead; then they are zero here. 64-bit sizes are full here.
    unset = (0,) if flags & _SIZES_FOLLOW else ()
    if local_crc not in (crc, *unset) or any(s not in (min(size, _FULL32), _FULL32, *unset) for s in (packed, plain)):
        file.fail("the two headers of a zip member disagree")
    offset = begin + _LOCAL.size + name_len + extra_len
    file.check_range(offset, size, "a zip member")
    return offset


def _check_ranges(file: CheckedFile, used: list[tuple[int, int]], directory_at: int) -> None:
    position = 0
    for begin, end in sorted(used):
        if begin < position:
            file.fail("members of the zip overlap")
        position = end
    if position > directory_at:
        file.fail("members of the zip overlap its directory")
    if not used or min(used)[0] != 0:
        file.fail("has bytes before its first zip member")


def _check_byte_order(file: CheckedFile, members: dict[str, Member]) -> None:
    order = members.get("byteorder")
    if order is not None and read_member(file, order, "byteorder") != b"little":
        file.fail("was written on a big-endian machine")
    if "data.pkl" not in members:
        file.fail("has no data.pkl")


def open_archive(path: Path) -> tuple[CheckedFile, dict[str, Member]]:
    """The open file and its members; the caller closes it."""
    file = CheckedFile(path)
    try:
        return file, read_members(file)
    except BaseException:
        file.close()
        raise
