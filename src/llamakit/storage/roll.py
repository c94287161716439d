"""Who of this machine is at work: each worker holds the lock of a file of its own name in one folder.

The system lets go of a lock when its process ends, however it ends, so that a file whose lock is free is the last
sign of a worker that was killed. Knows no database; a worker that could not leave its sign is merely not known here.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

_COMING = ".coming-"
"""What the name of a file begins with whose lock is not held yet."""


class Roll:
    """The workers that share a folder on a local disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def present(self, name: str) -> Iterator[None]:
        """Be at work under a name that nobody else has, until the block or the process ends."""
        try:
            descriptor = self._enter(name)
        except OSError as error:
            log.warning("that %s is at work cannot be shown in %s: %s", name, self._folder, error.strerror)
            yield
            return
        try:
            yield
        finally:
            self.forget([name])
            os.close(descriptor)

    def gone(self) -> set[str]:
        """Those that were here and are no longer."""
        try:
            names = [name for name in os.listdir(self._folder) if not name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {name for name in names if self._is_free(name)}

    def forget(self, names: Collection[str]) -> None:
        """Remove the last signs of workers."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def _enter(self, name: str) -> int:
        """The open file, its lock held before anybody finds it under the name."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        coming = self._folder / f"{_COMING}{name}"
        descriptor = os.open(coming, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            coming.rename(self._folder / name)
        except BaseException:
            os.close(descriptor)
            coming.unlink(missing_ok=True)
            raise
        return descriptor

    def _is_free(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            finally:
                os.close(descriptor)
            return True
        return False
