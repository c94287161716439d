"""Code in containers: working folders that are kept between runs of the interpreter, each with one owner.

What is kept are files. Every run is a fresh interpreter, so variables are not. Where containers lie is a shelf that
is passed in; this file runs code between taking files from it and putting them back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llamakit.api.containers import MAX_FILES, ContainerShelf, Held, KeptContainer, KeptFile
from llamakit.core.errors import InvalidRequest
from llamakit.sandbox.interpreter import Sandbox, SandboxResult, is_file_name

IDLE_S = 20 * 60.0
RESERVED = "main.py"
"""Where the code of a run lies; a file of that name would take its place."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of code left."""

    result: SandboxResult
    """With `files` that are kept, and `left_out` with those that are not."""
    kept: Mapping[str, KeptFile]


class ContainerPool:
    """The containers of one server."""

    def __init__(self, sandbox: Sandbox, shelf: ContainerShelf, *, idle_s: float = IDLE_S) -> None:
        self.shelf = shelf
        self._sandbox = sandbox
        self._shells: Sandbox | None = None
        self._idle_s = idle_s

    async def create(
        self,
        owner: str,
        files: Mapping[str, bytes],
        *,
        memory_bytes: int,
        name: str = "auto",
        idle_s: float | None = None,
    ) -> KeptContainer:
        """A container with these files; raises `InvalidRequest` for a bad name, `Overloaded` where no room is left."""
        for file in files:
            _check_name(file)
        return await self.shelf.create(
            owner,
            name=name,
            memory_bytes=memory_bytes,
            idle_s=min(self._idle_s, idle_s or self._idle_s),
            files=files,
            most_bytes=self._most_bytes,
        )

    async def put(self, owner: str, id: str, name: str, data: bytes) -> KeptFile:
        """Keep a file of the user's, in the place of one of the same name."""
        _check_name(name)
        return await self.shelf.put(owner, id, name, data, "user", most_bytes=self._most_bytes)

    async def run(self, owner: str, id: str, code: str, *, forks: bool = False) -> Run:
        """Run code in a container; runs of one follow one another. What does not fit any more is `left_out`.

        Code that `forks` may make processes.
        """
        limits = self._sandbox.limits
        sandbox = await self._with_processes() if forks else self._sandbox
        # Whoever has it runs code for `wall_s` at most, and may wait for a place in the sandbox before.
        async with self.shelf.hold(owner, id, wait_s=3 * limits.wall_s + 30) as held:
            limits = replace(limits, memory_bytes=held.container.memory_bytes)
            result = await sandbox.run(code, files=held.files, limits=limits)
            files = {name: data for name, data in result.files.items() if name != RESERVED}
            fitting, left_out = self._fitting(held, files, result.gone)
            try:
                kept = await held.keep(fitting, result.gone, most_bytes=self._most_bytes)
            except InvalidRequest:
                # A client filled the container meanwhile, or all containers together are full.
                kept = await held.keep({}, result.gone, most_bytes=self._most_bytes)
                left_out = [*files]
        shown = {name: data for name, data in files.items() if name in kept}
        return Run(replace(result, files=shown, left_out=(*result.left_out, *left_out)), kept)

    async def _with_processes(self) -> Sandbox:
        """The sandbox for shells, its walls tried when the first one is wanted."""
        if self._shells is None:
            self._shells = await self._sandbox.with_processes()
        return self._shells

    @property
    def _most_bytes(self) -> int:
        """Half of the disk is for what is there at the start of a run, as the sandbox wants it."""
        return self._sandbox.limits.disk_bytes // 2 - (1 << 20)

    def _fitting(
        self, held: Held, files: Mapping[str, bytes], gone: tuple[str, ...]
    ) -> tuple[dict[str, bytes], list[str]]:
        """The files that find room, in their order, and the names of the others."""
        sizes = {name: len(data) for name, data in held.files.items() if name not in gone}
        fitting: dict[str, bytes] = {}
        left_out = []
        for name, data in files.items():
            after = {**sizes, name: len(data)}
            if len(after) <= MAX_FILES and sum(after.values()) <= self._most_bytes:
                fitting[name], sizes = data, after
            else:
                left_out.append(name)
        return fitting, left_out


class Place:
    """Where the code of one request runs: a container that is there, or one that is made when it is needed."""

    def __init__(
        self,
        pool: ContainerPool,
        owner: str,
        id: str | None,
        *,
        memory_bytes: int = 0,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._id = id
        self._memory_bytes = memory_bytes
        self._files = dict(files or {})
        self._lock = asyncio.Lock()

    def add(self, files: Mapping[str, bytes]) -> None:
        """Files that a new container begins with, too."""
        self._files |= files

    async def id(self) -> str:
        """The container's; raises `Overloaded` where no room is left for one."""
        async with self._lock:
            if self._id is None:
                made = await self._pool.create(self._owner, self._files, memory_bytes=self._memory_bytes)
                self._id = made.id
            return self._id

    async def run(self, code: str, *, forks: bool = False) -> Run:
        """Run code there."""
        return await self._pool.run(self._owner, await self.id(), code, forks=forks)


def _check_name(name: str) -> None:
    if not is_file_name(name) or name == RESERVED:
        raise InvalidRequest(f"a file in a container has a plain relative name, got {name[:80]!r}", param="file")
