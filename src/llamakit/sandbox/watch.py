"""Run a process and hold it to its word: bytes of output, seconds of wall clock, then it dies.

The process is killed, never asked. Killing bubblewrap ends everything inside, because the namespace
of processes goes with its first one. Knows pipes and seconds; does not know what runs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llamakit.core.errors import SandboxUnavailable

_PIECE = 1 << 16
_PAGE = os.sysconf("SC_PAGE_SIZE")

Cut = Literal["timeout", "output limit", "memory limit"]
_LOOK_S = 0.05
"""How often the memory of a tree of processes is looked at."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a process left behind."""

    exit_code: int
    """As the kernel or bubblewrap reports it: negative or above 128 for a signal."""
    cut: Cut | None
    """Why it was killed, if it was."""
    stdout: bytes
    stderr: bytes
    back: bytes
    """What came through the extra pipe."""
    wall_s: float


class _Budget:
    """Bytes that several pipes share; `spent` fires when they are gone."""

    def __init__(self, size: int, spent: asyncio.Event) -> None:
        self._left = size
        self._spent = spent

    def take(self, piece: bytes) -> bytes:
        """As much of the piece as is left."""
        kept = piece[: self._left]
        self._left -= len(kept)
        if len(kept) < len(piece):
            self._spent.set()
        return kept


@contextmanager
def held(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` can be read."""
    descriptor = os.memfd_create("llamakit", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


async def watch(
    command: Callable[[int], Sequence[str]],
    descriptors: Sequence[int],
    stdin: bytes,
    *,
    wall_s: float,
    output_bytes: int,
    back_bytes: int,
    environment: dict[str, str] | None = None,
    tree_bytes: int | None = None,
) -> Left:
    """Run `command` (told the descriptor of the extra pipe) to its end or to a limit; nothing of it is left then.

    With `tree_bytes` all its processes together may have so much memory: limits of the kernel are for each.
    """
    started = time.monotonic()
    back_read, back_write = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command(back_write),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(*descriptors, back_write),
            env=environment or {},
            cwd="/",
        )
    except OSError as error:
        os.close(back_read)
        raise SandboxUnavailable(f"the process could not be started: {error}") from error
    finally:
        os.close(back_write)
    spent = asyncio.Event()
    output, back = _Budget(output_bytes, spent), _Budget(back_bytes, spent)
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("three pipes were asked for")
    work = [
        asyncio.create_task(_read(process.stdout, output)),
        asyncio.create_task(_read(process.stderr, output)),
        asyncio.create_task(_read_descriptor(back_read, back)),
        asyncio.create_task(_feed(process.stdin, stdin)),
    ]
    try:
        cut = await _until_end_or_limit(process, spent, wall_s, tree_bytes)
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.shield(_reap(process, work))
    stdout, stderr, came_back, _ = await asyncio.gather(*work)
    if cut is None and spent.is_set():
        cut = "output limit"
    return Left(process.returncode or 0, cut, stdout, stderr, came_back, time.monotonic() - started)


async def _until_end_or_limit(
    process: asyncio.subprocess.Process, spent: asyncio.Event, wall_s: float, tree_bytes: int | None
) -> Cut | None:
    ends: dict[asyncio.Task[Any], Cut | None] = {
        asyncio.create_task(process.wait()): None,
        asyncio.create_task(spent.wait()): "output limit",
    }
    if tree_bytes is not None:
        ends[asyncio.create_task(_until_large(process.pid, tree_bytes))] = "memory limit"
    try:
        done, _ = await asyncio.wait(ends, timeout=wall_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ends:
            task.cancel()
    if not done:
        return "timeout"
    return "output limit" if spent.is_set() else next((ends[task] for task in done if ends[task]), None)


async def _until_large(pid: int, most: int) -> None:
    """Until a process and all below it have more memory of their own than `most`."""
    while memory_of_tree(pid) <= most:
        await asyncio.sleep(_LOOK_S)


def memory_of_tree(pid: int) -> int:
    """Bytes that a process and all below it have to themselves; of those that end meanwhile, nothing."""
    total, left = 0, [pid]
    while left:
        pid = left.pop()
        try:
            resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
            total += (int(resident) - int(shared)) * _PAGE
            for task in os.listdir(f"/proc/{pid}/task"):
                left += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except (OSError, ValueError):
            continue
    return total


async def _reap(process: asyncio.subprocess.Process, work: Sequence[asyncio.Task[bytes]]) -> None:
    """Wait for the death and for the pipes' ends; all writers are dead, so both come."""
    await process.wait()
    await asyncio.wait(work)


async def _read(stream: asyncio.StreamReader, budget: _Budget) -> bytes:
    pieces = []
    while piece := await stream.read(_PIECE):
        pieces.append(budget.take(piece))
    return b"".join(pieces)


async def _read_descriptor(descriptor: int, budget: _Budget) -> bytes:
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await _read(stream, budget)
    finally:
        transport.close()


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> bytes:
    try:
        stream.write(data)
        await stream.drain()
    except (BrokenPipeError, ConnectionResetError):
        return b""  # the process does not read its input, which is its own business
    finally:
        stream.close()
    return b""
