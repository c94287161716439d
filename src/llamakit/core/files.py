"""Durable small writes: a reader sees the old file or the new one, also after a crash; knows no format."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, move it into place and flush the directory.

    Creates missing parent directories. Raises `OSError`; the old file is then untouched.
    """
    with writing_durably(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing_durably(path: Path) -> Iterator[BinaryIO]:
    """The same for data in pieces: what the block writes takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries; does nothing where the platform cannot open directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
