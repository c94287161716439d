"""Which CPU kernels run: the compiled ones at the best level of this processor, or the references.

`LLAMA_KERNELS` decides when set: `reference`, `native` (an error when there is no library), or one level by name
(`amx`, `avx512bf16`, `avx512vnni`, `avx512`, `avxvnni`, `avx2`, `portable`). Otherwise the library is used when it
is there, and said once when it is not. `LLAMA_THREADS` limits the threads; the default is PyTorch's own limit.
`LLAMA_PIN_THREADS=1` keeps each of them at a processor of its own: for machines that do nothing else. On two cores it
changed nothing, and a pinned thread cannot make way for somebody else's, so it is off.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from llamakit.core.errors import ConfigError
from llamakit.kernels.cpu.build import HERE, library_name
from llamakit.kernels.cpu.library import DTYPES, Library, takes

__all__ = [
    "BUILD_HINT",
    "DTYPES",
    "LEVELS",
    "is_traced",
    "kernels_only",
    "level",
    "library",
    "num_threads",
    "takes",
    "using",
]

LEVELS = ("amx", "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "portable")
"""Instruction sets the sources know, best first."""

_log = logging.getLogger(__name__)
BUILD_HINT = "build them with `python -m llamakit.kernels.cpu.build` (needs cmake and a C++17 compiler)"


class _Choice:
    """What the process decided; `made` is False until the first question."""

    made = False
    library: Library | None = None
    threads: int | None = None


class _Mine(threading.local):
    """What a thread decided for itself."""

    threads: int | None = None


_mine = _Mine()


def library() -> Library | None:
    """The compiled kernels, or None where the references run. The first call decides."""
    if not _Choice.made:
        _decide()
    return _Choice.library


def num_threads() -> int:
    """Threads a kernel may use."""
    return _mine.threads or _Choice.threads or torch.get_num_threads()


def level() -> str:
    """Name of what runs: a level, or `reference`."""
    found = library()
    return "reference" if found is None else found.level


def is_traced(x: Tensor) -> bool:
    """Whether `x` stands for a tensor (torch.compile, fake tensors): then the registered op runs, not a kernel."""
    return torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter)


@contextmanager
def kernels_only() -> Iterator[None]:
    """For a piece of work that the compiled kernels do, with PyTorch's small operations between them.

    Threads of PyTorch's own would come for operations that take a hundredth of a kernel, and spin for milliseconds
    afterwards on the cores that the kernels want. Nothing changes where the references run: they are PyTorch.
    """
    threads = torch.get_num_threads()
    if threads == 1 or library() is None:
        yield
        return
    _mine.threads = num_threads()
    torch.set_num_threads(1)  # of this thread: others that have computed something keep their number
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _mine.threads = None


@contextmanager
def using(name: str, threads: int | None = None) -> Iterator[None]:
    """Run with another level (or `reference`) and thread limit for a while; for tests and benchmarks."""
    library()
    before = (_Choice.library, _Choice.library.level if _Choice.library else None, _Choice.threads)
    try:
        _Choice.library = _resolve(name)
        _Choice.threads = threads or _Choice.threads
        yield
    finally:
        _Choice.library, old_level, _Choice.threads = before
        if _Choice.library is not None and old_level is not None:
            _Choice.library.select(old_level)


def _decide() -> None:
    wanted = os.environ.get("LLAMA_KERNELS", "")
    _Choice.threads = _thread_limit(os.environ.get("LLAMA_THREADS", ""))
    if wanted:
        _Choice.library = _resolve(wanted)
    else:
        try:
            _Choice.library = _load()
        except OSError as error:
            _log.warning("no compiled CPU kernels (%s): the slower PyTorch references run; %s", error, BUILD_HINT)
    if _Choice.library is not None and _flag("LLAMA_PIN_THREADS"):
        _Choice.library.pin_threads()
    _Choice.made = True


def _resolve(name: str) -> Library | None:
    if name == "reference":
        return None
    if name != "native" and name not in LEVELS:
        raise ConfigError(f"LLAMA_KERNELS wants reference, native or one of {', '.join(LEVELS)}, got {name!r}")
    try:
        found = _load()
    except OSError as error:
        raise ConfigError(f"LLAMA_KERNELS={name} wants the compiled CPU kernels: {error}; {BUILD_HINT}") from error
    if name == "native":
        name = found.levels[0]
    if name not in found.levels:
        raise ConfigError(f"this processor or build has no level {name!r}; it has {', '.join(found.levels)}")
    found.select(name)
    return found


_loaded: list[Library] = []


def _load() -> Library:
    if not _loaded:
        path = HERE / library_name()
        if not path.is_file():
            raise OSError(f"{path} does not exist")
        _loaded.append(Library(path))
    return _loaded[0]


def _thread_limit(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 256:
        raise ConfigError(f"LLAMA_THREADS wants a number from 1 to 256, got {text!r}")
    return int(text)


def _flag(name: str) -> bool:
    text = os.environ.get(name, "")
    if text not in ("", "0", "1"):
        raise ConfigError(f"{name} wants 0 or 1, got {text!r}")
    return text == "1"
