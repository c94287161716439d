from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from llamakit.checkpoints.gguf_file import GgufArray, GgufFile
from llamakit.core.errors import CheckpointError, UnsupportedFormat


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def array(kind: int, count: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + payload


def info(name: str | bytes = "t", dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A file in its pieces."""

    magic: bytes = b"GGUF"
    version: int = 3
    pairs: tuple[bytes, ...] = ()
    infos: tuple[bytes, ...] = field(default_factory=lambda: (info(),))
    data: bytes = bytes(32)
    num_pairs: int | None = None
    num_tensors: int | None = None

    def build(self) -> bytes:
        num_tensors = len(self.infos) if self.num_tensors is None else self.num_tensors
        num_pairs = len(self.pairs) if self.num_pairs is None else self.num_pairs
        head = self.magic + struct.pack("<IQQ", self.version, num_tensors, num_pairs)
        head += b"".join(self.pairs) + b"".join(self.infos)
        return head + bytes(-len(head) % 32) + self.data


GOOD = Parts()


def _open(path: Path, parts: Parts) -> GgufFile:
    path.write_bytes(parts.build())
    return GgufFile(path)


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    values: list[tuple[str, int, bytes, Any]] = [
        ("u8", 0, b"\xff", 255),
        ("i8", 1, b"\xff", -1),
        ("u16", 2, struct.pack("<H", 65535), 65535),
        ("i16", 3, struct.pack("<h", -2), -2),
        ("u32", 4, struct.pack("<I", 2**32 - 1), 2**32 - 1),
        ("i32", 5, struct.pack("<i", -5), -5),
        ("f32", 6, struct.pack("<f", 0.5), 0.5),
        ("bool", 7, b"\1", True),
        ("string", 8, text("Ġhé"), "Ġhé"),
        ("u64", 10, struct.pack("<Q", 2**64 - 1), 2**64 - 1),
        ("i64", 11, struct.pack("<q", -(2**63)), -(2**63)),
        ("f64", 12, struct.pack("<d", 1e300), 1e300),
    ]
    parts = replace(GOOD, pairs=tuple(pair(key, kind, payload) for key, kind, payload, _ in values))
    with _open(tmp_path / "x.gguf", parts) as file:
        assert file.metadata == {key: value for key, _, _, value in values}


def test_arrays_stay_bytes_until_asked(tmp_path: Path) -> None:
    parts = replace(
        GOOD,
        pairs=(
            pair("words", 9, array(8, 3, text("a") + text("") + text("ü"))),
            pair("numbers", 9, array(5, 2, struct.pack("<2i", -1, 7))),
        ),
    )
    with _open(tmp_path / "x.gguf", parts) as file:
        words, numbers = file.metadata["words"], file.metadata["numbers"]
        assert isinstance(words, GgufArray) and isinstance(numbers, GgufArray)
        assert words.strings("words") == ["a", "", "ü"]
        assert numbers.numbers("numbers") == [-1, 7]
        with pytest.raises(CheckpointError, match="words must be an array of numbers"):
            words.numbers("words")
        with pytest.raises(CheckpointError, match="numbers must be an array of strings"):
            numbers.strings("numbers")


def test_dimensions_are_turned_round(tmp_path: Path) -> None:
    with _open(tmp_path / "x.gguf", replace(GOOD, infos=(info(dims=(2, 3)),))) as file:
        assert file.tensors["t"].shape == (3, 2)


def test_another_alignment_is_honoured(tmp_path: Path) -> None:
    parts = replace(GOOD, pairs=(pair("general.alignment", 4, struct.pack("<I", 64)),))
    raw = parts.build()
    head = len(raw) - 32
    path = tmp_path / "x.gguf"
    path.write_bytes(raw[:head] + bytes(-head % 64) + struct.pack("<4f", 1, 2, 3, 4))
    with GgufFile(path) as file:
        assert file.tensors["t"].load().tolist() == [1, 2, 3, 4]


def _two(first: bytes, second: bytes, size: int = 64) -> Parts:
    return replace(GOOD, infos=(first, second), data=bytes(size))


FAULTS: dict[str, tuple[Parts, str]] = {
    "magic": (replace(GOOD, magic=b"GGML"), "is not a GGUF file"),
    "no tensors": (replace(GOOD, infos=()), "says it has 0 tensors"),
    "too many tensors": (replace(GOOD, num_tensors=100_001), "100001 tensors"),
    "2^64 - 1 tensors": (replace(GOOD, num_tensors=2**64 - 1), "18446744073709551615 tensors"),
    "2^63 pairs": (replace(GOOD, num_pairs=2**63), "9223372036854775808 metadata pairs"),
    "more tensors than there are": (replace(GOOD, num_tensors=90_000), "name of 0 bytes"),
    "more pairs than there are": (replace(GOOD, num_pairs=5), "has the metadata key '' twice"),
    "key longer than the file": (replace(GOOD, pairs=(struct.pack("<Q", 2**40),)), "truncated or damaged"),
    "key of 2^64 - 1": (replace(GOOD, pairs=(struct.pack("<Q", 2**64 - 1),)), "truncated or damaged"),
    "key twice": (replace(GOOD, pairs=(pair("a", 7, b"\0"),) * 2), "key 'a' twice"),
    "key not utf-8": (replace(GOOD, pairs=(pair(b"\xff", 7, b"\0"),)), "is not UTF-8"),
    "unknown value type": (replace(GOOD, pairs=(pair("a", 13, b""),)), "unknown value type 13"),
    "a bool of 2": (replace(GOOD, pairs=(pair("a", 7, b"\2"),)), "must be true or false"),
    "array of arrays": (replace(GOOD, pairs=(pair("a", 9, array(9, 1, array(4, 0, b""))),)), "value type 9"),
    "array of unknown": (replace(GOOD, pairs=(pair("a", 9, array(99, 0, b"")),)), "value type 99"),
    "array that wraps": (replace(GOOD, pairs=(pair("a", 9, array(10, 2**61, b"")),)), "truncated or damaged"),
    "strings that wrap": (replace(GOOD, pairs=(pair("a", 9, array(8, 2**61, b"")),)), "more than the 1000000"),
    "one long string": (
        replace(GOOD, pairs=(pair("a", 9, array(8, 1, struct.pack("<Q", 2**64 - 1))),)),
        "truncated or damaged",
    ),
    "alignment of 0": (replace(GOOD, pairs=(pair("general.alignment", 4, bytes(4)),)), "power of two"),
    "alignment of 48": (
        replace(GOOD, pairs=(pair("general.alignment", 4, struct.pack("<I", 48)),)),
        "power of two",
    ),
    "alignment of 2^31": (
        replace(GOOD, pairs=(pair("general.alignment", 4, struct.pack("<I", 2**31)),)),
        "power of two",
    ),
    "alignment that is text": (replace(GOOD, pairs=(pair("general.alignment", 8, text("32")),)), "power of two"),
    "name of 64 bytes": (replace(GOOD, infos=(info("x" * 64),)), "name of 64 bytes"),
    "no name": (replace(GOOD, infos=(info(""),)), "name of 0 bytes"),
    "no dimensions": (replace(GOOD, infos=(info(dims=()),)), "has 0 dimensions"),
    "five dimensions": (replace(GOOD, infos=(info(dims=(1,) * 5),)), "has 5 dimensions"),
    "2^32 dimensions": (
        replace(GOOD, infos=(text("t") + struct.pack("<I", 2**32 - 1),)),
        "has 4294967295 dimensions",
    ),
    "a size of 0": (replace(GOOD, infos=(info(dims=(4, 0)),)), "wanted rows of whole F32 blocks"),
    "sizes that wrap": (replace(GOOD, infos=(info(dims=(2**32, 2**32)),)), "wanted rows of whole F32 blocks"),
    "sizes that wrap to 4": (replace(GOOD, infos=(info(dims=(2**32, 2**32, 2**2)),)), "wanted rows"),
    "half a block": (replace(GOOD, infos=(info(dims=(16,), kind=8),)), "whole Q8_0 blocks"),
    "beyond the file": (replace(GOOD, infos=(info(dims=(2**40,)),)), "truncated or damaged"),
    "one value beyond the file": (replace(GOOD, infos=(info(dims=(9,)),)), "truncated or damaged"),
    "offset beyond the file": (replace(GOOD, infos=(info(offset=64),)), "truncated or damaged"),
    "offset of 2^64 - 32": (replace(GOOD, infos=(info(offset=2**64 - 32),)), "truncated or damaged"),
    "offset between": (replace(GOOD, infos=(info(offset=4),)), "not a multiple of the alignment 32"),
    "name twice": (_two(info(), info(offset=32)), "has tensor 't' twice"),
    "overlap": (_two(info("a", (16,)), info("b", offset=32)), "tensors 'a' and 'b' overlap"),
    "same place": (_two(info("a"), info("b")), "tensors 'a' and 'b' overlap"),
    "truncated data": (replace(GOOD, data=bytes(15)), "truncated or damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_file(fault: str, tmp_path: Path) -> None:
    parts, message = FAULTS[fault]
    with pytest.raises(CheckpointError, match=message) as caught:
        _open(tmp_path / "x.gguf", parts)
    assert str(caught.value).startswith(f"{tmp_path / 'x.gguf'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: replace(parts, version=1), "is GGUF version 1, readable are 2 and 3"),
        (lambda parts: replace(parts, version=3 << 24), "is a big-endian GGUF"),
        (lambda parts: replace(parts, infos=(info(kind=10),)), "'t' has type Q2_K; readable are F32, F16"),
        (lambda parts: replace(parts, infos=(info(kind=4711),)), "'t' has type number 4711"),
    ],
)
def test_what_this_build_cannot_read_is_said(change: Callable[[Parts], Parts], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match=message):
        _open(tmp_path / "x.gguf", change(GOOD))


def test_version_2_has_the_same_layout(tmp_path: Path) -> None:
    with _open(tmp_path / "x.gguf", replace(GOOD, version=2)) as file:
        assert list(file.tensors) == ["t"]


def test_a_string_that_is_not_utf_8_is_found_when_asked(tmp_path: Path) -> None:
    parts = replace(GOOD, pairs=(pair("a", 9, array(8, 1, text(b"\xff"))),))
    with (
        _open(tmp_path / "x.gguf", parts) as file,
        pytest.raises(CheckpointError, match="the tokens has a string that is not UTF-8"),
    ):
        file.metadata["a"].strings("the tokens")
