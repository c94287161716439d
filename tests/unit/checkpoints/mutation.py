"""A structure-aware mutator of checkpoint files, seeded, without dependencies.

It knows where each format keeps its integers and words, and puts there what breaks parsers: zeros, ones,
powers of two and their neighbours, values around the file's own size. The rest is bytes flipped, cut,
doubled and swapped, mostly in headers, because that is where decisions are made.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

_POWERS = [2**n for n in (7, 8, 15, 16, 24, 31, 32, 40, 53, 62, 63, 64)]
_STRANGE_JSON: list[Any] = [
    None, True, False, "", "x", "\ud83d\ude00" * 3, [], {}, [[]], {"a": 1}, -1, 0, 1, 0.5, -0.0, 1e308, 2**31, 2**63,
    2**64, 10**30, "F32", "BF16", "U8", [0, 0], [2**62, 4], [1] * 9, "../x.safetensors", "model.norm.weight",
]  # fmt: skip


def interesting(rng: random.Random, size: int) -> int:
    """An integer that tends to break bounds checks."""
    base = rng.choice([0, 0, size, size, rng.choice(_POWERS), rng.randrange(1, 300)])
    return base + rng.choice([-8, -1, 0, 0, 1, 8, 32])


def mutate_bytes(rng: random.Random, data: bytes, header: int) -> bytes:
    """A few changes of raw bytes, nine of ten within the first `header`."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(min(header, len(out)) if rng.random() < 0.9 else len(out)) if out else 0
        span = rng.choice([1, 2, 4, 8, 64])
        match rng.randrange(7):
            case 0:
                out[at : at + 1] = bytes([out[at] ^ 1 << rng.randrange(8)])
            case 1:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                form = rng.choice(["<H", "<I", "<Q"])
                width = struct.calcsize(form)
                out[at : at + width] = struct.pack(form, interesting(rng, len(data)) % 2 ** (8 * width))
            case 3:
                del out[at : at + span]
            case 4:
                out[at:at] = out[at : at + span]
            case 5:
                other = rng.randrange(len(out))
                out[at : at + span], out[other : other + span] = out[other : other + span], out[at : at + span]
            case 6:
                del out[rng.randrange(len(out)) :]
        if not out:
            return b"x"
    return bytes(out)


def mutate_json(rng: random.Random, value: Any, size: int) -> Any:
    """The value with one part replaced, renamed, dropped, doubled or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        out = dict(value)
        match rng.randrange(8):
            case 0:
                del out[key]
            case 1:
                out[rng.choice(["", "x", key + "\0", key * 2, rng.choice(list(value))])] = out.pop(key)
            case 2:
                out[rng.choice(["extra", key + "2"])] = out[key]
            case _:
                out[key] = mutate_json(rng, out[key], size)
        return out
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        match rng.randrange(5):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value + value
            case _:
                return [*value[:at], mutate_json(rng, value[at], size), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.7:
        return rng.choice([interesting(rng, size), -value, value + 1, value * 2, float(value), str(value)])
    return rng.choice(_STRANGE_JSON)


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Half of the time inside the JSON header, with its length put right."""
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.4:
        return mutate_bytes(rng, data, 8 + length)
    header = json.loads(data[8 : 8 + length])
    for _ in range(rng.choice([1, 1, 2, 3])):
        header = mutate_json(rng, header, len(data))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutate_text_json(rng: random.Random, data: bytes) -> bytes:
    """A JSON file, by its tree or by its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, len(data))
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = mutate_json(rng, value, len(data))
    return json.dumps(value).encode()


def at_sites(sites: Callable[[bytes], list[tuple[int, int]]], header: Callable[[bytes], int]):
    """A mutator that puts interesting integers at known places (offset, width), or changes raw bytes."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.4:
            return mutate_bytes(rng, data, header(data))
        out = bytearray(data)
        found = sites(data)
        for _ in range(rng.choice([1, 1, 2, 3])):
            at, width = rng.choice(found)
            old = int.from_bytes(out[at : at + width], "little")
            new = rng.choice(
                [interesting(rng, len(data)), old + 1, old - 1, old ^ 1 << rng.randrange(8 * width), old * 2]
            )
            out[at : at + width] = (new % 2 ** (8 * width)).to_bytes(width, "little")
        return bytes(out)

    return mutate


def gguf_sites(data: bytes) -> list[tuple[int, int]]:
    """Every integer of a good GGUF header."""
    sites = [(4, 4), (8, 8), (16, 8)]
    num_tensors, num_pairs = struct.unpack_from("<QQ", data, 8)
    widths = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at = 24

    def string() -> None:
        nonlocal at
        sites.append((at, 8))
        at += 8 + int.from_bytes(data[at : at + 8], "little")

    for _ in range(num_pairs):
        string()
        kind = int.from_bytes(data[at : at + 4], "little")
        sites.append((at, 4))
        at += 4
        if kind == 8:
            string()
        elif kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            sites.extend([(at, 4), (at + 4, 8)])
            at += 12
            for _ in range(count):
                if inner == 8:
                    string()
                else:
                    at += widths[inner]
        else:
            sites.append((at, widths[kind]))
            at += widths[kind]
    for _ in range(num_tensors):
        string()
        dims = int.from_bytes(data[at : at + 4], "little")
        sites.append((at, 4))
        sites.extend((at + 4 + 8 * i, 8) for i in range(dims))
        at += 4 + 8 * dims
        sites.extend([(at, 4), (at + 4, 8)])
        at += 12
    return sites


def zip_sites(data: bytes) -> list[tuple[int, int]]:
    """Every integer of the zip structures and every byte of the pickle."""
    sites: list[tuple[int, int]] = []
    layouts = {
        b"PK\x03\x04": [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
        b"PK\x01\x02": [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4)],
        b"PK\x05\x06": [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
        b"PK\x06\x06": [(4, 8), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 8)],
        b"PK\x06\x07": [(4, 4), (8, 8), (16, 4)],
    }  # fmt: skip
    for signature, fields in layouts.items():
        at = data.find(signature)
        while at >= 0:
            sites.extend((at + offset, width) for offset, width in fields)
            at = data.find(signature, at + 1)
    start = data.find(b"\x80\x02")
    end = data.find(b"PK", start)
    sites.extend((at, 1) for at in range(start, end))
    return sites
