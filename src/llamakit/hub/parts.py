"""GGUF models in several files: which names belong together, as in `name-00002-of-00003.gguf`.

Knows names only. The first part holds the metadata, so it stands for the whole set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

MAX_PARTS = 1000
_PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)


class Part(NamedTuple):
    """What the name of one file of a set says."""

    prefix: str
    number: int
    """From 1."""
    total: int


def part_of(file: str) -> Part | None:
    """What a name says; None for a file that is whole, or a number that no set has."""
    match = _PART.fullmatch(file)
    if match is None:
        return None
    part = Part(match[1], int(match[2]), int(match[3]))
    return part if 1 <= part.number <= part.total <= MAX_PARTS else None


def all_parts(file: str) -> list[str]:
    """The names of the whole set that a file belongs to, the first part first; a whole file is its own set."""
    part = part_of(file)
    if part is None:
        return [file]
    return [f"{part.prefix}-{number:05}-of-{part.total:05}.gguf" for number in range(1, part.total + 1)]


def models_among(files: Iterable[str]) -> list[str]:
    """The GGUF files that stand for a model: whole ones, and the first part of every set that is complete."""
    here = {file for file in files if file.endswith(".gguf")}
    return sorted(file for file in here if all_parts(file)[0] == file and here.issuperset(all_parts(file)))


def missing_parts(files: Iterable[str]) -> list[str]:
    """What the sets among `files` lack."""
    here = {file for file in files if file.endswith(".gguf")}
    return sorted({part for file in here for part in all_parts(file)} - here)
