"""GGUF models in several files: the first holds the metadata, each its own tensors; all checked against one another.

The keys are those of `llama-gguf-split`: `split.no` (from 0), `split.count`, and `split.tensors.count` of all parts
together. A file without them is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoints.gguf_file import SPLIT_COUNT, GgufFile, Value
from llamakit.checkpoints.stored import StoredTensor
from llamakit.core.errors import CheckpointError
from llamakit.hub.parts import all_parts, part_of

NUMBER, COUNT, TENSORS = "split.no", SPLIT_COUNT, "split.tensors.count"


@dataclass(frozen=True, slots=True)
class GgufParts:
    """The open files of one model."""

    files: tuple[GgufFile, ...]
    metadata: dict[str, Value]
    """Of the first file."""
    tensors: dict[str, StoredTensor]
    """Of all files."""

    def close(self) -> None:
        """Close all files; mapped tensors stay valid."""
        for file in self.files:
            file.close()


def part_paths(path: Path) -> list[Path]:
    """The files that belong together with the first one, by their names; the file alone when it is whole."""
    return [path.with_name(name) for name in all_parts(path.name)]


def open_parts(path: Path) -> GgufParts:
    """Open a GGUF file and, where it is the first part of a model, all the others.

    Raises `CheckpointError` when `path` is a later part, a part is missing, or the parts do not fit together, and what
    `GgufFile` raises.
    """
    first = GgufFile(path)
    opened = [first]
    try:
        count = first.metadata.get(COUNT, 1)
        if count in (0, 1):
            return GgufParts((first,), first.metadata, first.tensors)
        paths = _checked_names(path, first.metadata)
        tensors = dict(first.tensors)
        for number, other in enumerate(paths[1:], 1):
            opened.append(GgufFile(other))
            _check_part(other, opened[-1].metadata, number, first.metadata)
            twice = tensors.keys() & opened[-1].tensors.keys()
            if twice:
                raise CheckpointError(f"{other}: has tensor {min(twice)!r}, which an earlier part has, too")
            tensors |= opened[-1].tensors
        if len(tensors) != first.metadata.get(TENSORS):
            raise CheckpointError(
                f"{path}: {TENSORS} is {first.metadata.get(TENSORS)!r}, the {len(paths)} parts hold {len(tensors)}"
            )
        return GgufParts(tuple(opened), first.metadata, tensors)
    except BaseException:
        for file in opened:
            file.close()
        raise


def _checked_names(path: Path, metadata: dict[str, Value]) -> list[Path]:
    """The paths of all parts; raises where the first one's name and metadata do not agree or a file is missing."""
    number, count = metadata.get(NUMBER), metadata[COUNT]
    part = part_of(path.name)
    if type(number) is not int or type(count) is not int or part is None or part.total != count:
        raise CheckpointError(
            f"{path}: is part {number!r} of {count!r} by its metadata ({NUMBER}, {COUNT}), but its name does not say "
            f"so; wanted a name like {path.stem.split('-00')[0]}-00001-of-0000N.gguf"
        )
    paths = part_paths(path)
    if number != 0 or part.number != 1:
        raise CheckpointError(f"{path}: is part {number + 1} of {count}; open the first one, {paths[0].name}")
    missing = [other.name for other in paths if not other.is_file()]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} of {count} parts are not beside it: {', '.join(missing[:5])}")
    return paths


def _check_part(path: Path, found: dict[str, Value], number: int, first: dict[str, Value]) -> None:
    wanted = {NUMBER: number, COUNT: first[COUNT], TENSORS: first.get(TENSORS)}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise CheckpointError(f"{path}: {key} must be {value!r}, found {found.get(key)!r}; is it of another model?")
