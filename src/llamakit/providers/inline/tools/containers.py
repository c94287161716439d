"""Containers: working folders that are kept between runs of the interpreter, each with one owner.

What is kept are files. Every run is a fresh interpreter, so variables are not. A container lives in the memory of
this process: it is gone when it was not used for a while, and when the process ends. An absent container and
somebody else's look the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from llamakit.core.errors import InvalidRequest, NotFound, Overloaded
from llamakit.sandbox.interpreter import Sandbox, SandboxResult, is_file_name
from llamakit.storage.ids import CONTAINER

IDLE_S = 20 * 60.0
MAX_FILES = 256
"""Kept in one container."""
RESERVED = "main.py"
"""Where the code of a run lies; a file of that name would take its place."""


@dataclass(slots=True)
class Container:
    """A working folder."""

    id: str
    owner: str
    memory_bytes: int
    created_s: float
    """Wall clock, for people to read."""
    files: dict[str, bytes] = field(default_factory=dict)
    used_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


class Containers:
    """The containers of one server."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        idle_s: float = IDLE_S,
        most: int = 256,
        most_bytes: int = 512 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sandbox = sandbox
        self._idle_s = idle_s
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._containers: dict[str, Container] = {}

    def create(self, owner: str, files: Mapping[str, bytes], *, memory_bytes: int) -> Container:
        """A container with these files; raises `InvalidRequest` for a bad name, `Overloaded` where no room is left."""
        self._expire()
        container = Container(CONTAINER.new(), owner, memory_bytes, time.time(), used_s=self._clock())
        if len(self._containers) >= self._most:
            raise Overloaded(f"{self._most} interpreter containers are in use; try again later", retry_after_s=30.0)
        for name, data in files.items():
            self._put(container, name, data)
        self._containers[container.id] = container
        return container

    def get(self, owner: str, id: str) -> Container:
        """A container that is in use, or `NotFound`."""
        self._expire()
        container = self._containers.get(CONTAINER.check(id))
        if container is None or container.owner != owner:
            raise NotFound(f"no interpreter container {id!r}; it may have been unused for too long, make another")
        container.used_s = self._clock()
        return container

    async def run(self, container: Container, code: str) -> SandboxResult:
        """Run code in a container; runs of one follow one another. What does not fit any more is `left_out`."""
        async with container.lock:
            container.used_s = self._clock()
            limits = replace(self._sandbox.limits, memory_bytes=container.memory_bytes)
            result = await self._sandbox.run(code, files=container.files, limits=limits)
            for name in result.gone:
                container.files.pop(name, None)
            left_out = [name for name, data in result.files.items() if not self._kept(container, name, data)]
            container.used_s = self._clock()
        kept = {name: data for name, data in result.files.items() if name in container.files}
        return replace(result, files=kept, left_out=(*result.left_out, *left_out))

    def _kept(self, container: Container, name: str, data: bytes) -> bool:
        """Keep a file that a run left, if there is room."""
        if name == RESERVED:
            return True
        try:
            self._put(container, name, data)
        except InvalidRequest:
            return False
        return True

    def _put(self, container: Container, name: str, data: bytes) -> None:
        if not is_file_name(name) or name == RESERVED:
            raise InvalidRequest(f"a file in a container has a plain relative name, got {name[:80]!r}", param="files")
        before = container.files.get(name, b"")
        # Half of the disk is for what is there at the start of a run, as the sandbox wants it.
        if container.size - len(before) + len(data) > self._sandbox.limits.disk_bytes // 2 - (1 << 20):
            raise InvalidRequest(
                f"the files of a container may have {self._sandbox.limits.disk_bytes // 2 - (1 << 20)} bytes together",
                param="files",
            )
        everything = sum(one.size for one in self._containers.values())
        if len(container.files) >= MAX_FILES or everything + len(data) > self._most_bytes:
            raise InvalidRequest("no room is left for the files of interpreter containers", param="files")
        container.files[name] = data

    def _expire(self) -> None:
        long_ago = self._clock() - self._idle_s
        for id in [id for id, one in self._containers.items() if one.used_s < long_ago and not one.lock.locked()]:
            del self._containers[id]
