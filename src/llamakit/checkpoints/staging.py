"""Outputs that appear whole or not at all: written beside their place, flushed, then moved there."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llamakit.core.errors import ConfigError
from llamakit.core.faults import fault
from llamakit.core.files import sync_directory


@contextlib.contextmanager
def staged_file(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well; an existing one stays unless `force`."""
    if path.is_dir() or (not force and os.path.lexists(path)):
        raise ConfigError(f"{path} exists; choose another name{'' if path.is_dir() else ' or force overwriting'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        fault("staging.before_rename")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def staged_directory(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A new directory that takes the place of `path` when the block ends well.

    With `force` an existing checkpoint directory is replaced; any other directory never is.
    """
    if os.path.lexists(path) and not (force and (path / "config.json").is_file() and not path.is_symlink()):
        advice = "choose another name" if force else "choose another name or force overwriting a checkpoint"
        raise ConfigError(f"{path} exists; {advice}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        sync_directory(temporary)
        fault("staging.before_rename")
        if path.exists():
            _swap(temporary, path)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(path.parent)


def _swap(new: Path, path: Path) -> None:
    """Put `new` in the place of the directory `path`, which stays when that fails."""
    old = _beside(path)
    path.rename(old)
    try:
        fault("staging.between_renames")
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
