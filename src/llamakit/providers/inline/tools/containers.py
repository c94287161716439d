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
from typing import Literal

from llamakit.core.errors import InvalidRequest, NotFound, Overloaded
from llamakit.sandbox.interpreter import Sandbox, SandboxResult, is_file_name
from llamakit.storage.ids import CONTAINER, IdKind

IDLE_S = 20 * 60.0
MAX_FILES = 256
"""Kept in one container."""
MOST, MOST_OF_ONE, MOST_BYTES = 256, 32, 512 << 20
"""Containers of all owners and of one, and bytes of all files together."""
RESERVED = "main.py"
"""Where the code of a run lies; a file of that name would take its place."""
FILE = IdKind("cfile_", "file of this container")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerFile:
    """A file in a container."""

    id: str
    name: str
    data: bytes
    source: Literal["user", "assistant"]
    created_s: float
    """Wall clock."""


@dataclass(kw_only=True, slots=True)
class Container:
    """A working folder."""

    id: str
    owner: str
    name: str
    memory_bytes: int
    idle_s: float
    created_s: float
    """Wall clock, for people to read."""
    used_s: float
    """By the clock that does not jump."""
    active_s: float = 0.0
    """Wall clock of the last use."""
    files: dict[str, ContainerFile] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(file.data) for file in self.files.values())


class ContainerPool:
    """The containers of one server."""

    def __init__(
        self, sandbox: Sandbox, *, idle_s: float = IDLE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sandbox = sandbox
        self._idle_s = idle_s
        self._clock = clock
        self._containers: dict[str, Container] = {}

    def create(
        self,
        owner: str,
        files: Mapping[str, bytes],
        *,
        memory_bytes: int,
        name: str = "auto",
        idle_s: float | None = None,
    ) -> Container:
        """A container with these files; raises `InvalidRequest` for a bad name, `Overloaded` where no room is left."""
        self._expire()
        mine = sum(one.owner == owner for one in self._containers.values())
        if len(self._containers) >= MOST or mine >= MOST_OF_ONE:
            raise Overloaded("too many interpreter containers are in use; delete one, or try again", retry_after_s=30.0)
        now = time.time()
        container = Container(
            id=CONTAINER.new(),
            owner=owner,
            name=name,
            memory_bytes=memory_bytes,
            idle_s=min(self._idle_s, idle_s or self._idle_s),
            created_s=now,
            active_s=now,
            used_s=self._clock(),
        )
        for file, data in files.items():
            self.put(container, file, data, "user")
        self._containers[container.id] = container
        return container

    def of(self, owner: str) -> list[Container]:
        """Those of an owner, the oldest first."""
        self._expire()
        return [one for one in self._containers.values() if one.owner == owner]

    def get(self, owner: str, id: str) -> Container:
        """A container that is there, or `NotFound`; looking at it is no use of it."""
        self._expire()
        container = self._containers.get(CONTAINER.check(id))
        if container is None or container.owner != owner:
            raise NotFound(f"no interpreter container {id!r}; it may have been unused for too long, make another")
        return container

    def delete(self, owner: str, id: str) -> None:
        """Forget one; a run that goes on in it ends by its own limits."""
        del self._containers[self.get(owner, id).id]

    async def run(self, container: Container, code: str) -> SandboxResult:
        """Run code in a container; runs of one follow one another. What does not fit any more is `left_out`."""
        async with container.lock:
            self._touch(container)
            limits = replace(self._sandbox.limits, memory_bytes=container.memory_bytes)
            given = {name: file.data for name, file in container.files.items()}
            result = await self._sandbox.run(code, files=given, limits=limits)
            for name in result.gone:
                container.files.pop(name, None)
            left_out = [name for name, data in result.files.items() if not self._kept(container, name, data)]
            self._touch(container)
        kept = {name: data for name, data in result.files.items() if name in container.files}
        return replace(result, files=kept, left_out=(*result.left_out, *left_out))

    def put(self, container: Container, name: str, data: bytes, source: Literal["user", "assistant"]) -> ContainerFile:
        """Keep a file, in the place of one of the same name; raises `InvalidRequest` where it cannot be."""
        if not is_file_name(name) or name == RESERVED:
            raise InvalidRequest(f"a file in a container has a plain relative name, got {name[:80]!r}", param="file")
        before = container.files.get(name)
        grown = len(data) - (0 if before is None else len(before.data))
        # Half of the disk is for what is there at the start of a run, as the sandbox wants it.
        most = self._sandbox.limits.disk_bytes // 2 - (1 << 20)
        if container.size + grown > most:
            raise InvalidRequest(f"the files of a container may have {most} bytes together", param="file")
        everything = sum(one.size for one in self._containers.values())
        if (before is None and len(container.files) >= MAX_FILES) or everything + grown > MOST_BYTES:
            raise InvalidRequest("no room is left for the files of interpreter containers", param="file")
        id = FILE.new() if before is None else before.id
        file = ContainerFile(id=id, name=name, data=data, source=source, created_s=time.time())
        container.files[name] = file
        self._touch(container)
        return file

    def file(self, container: Container, id: str) -> ContainerFile:
        """A file, or `NotFound`."""
        for file in container.files.values():
            if file.id == id:
                return file
        raise FILE.missing(id)

    def _kept(self, container: Container, name: str, data: bytes) -> bool:
        """Keep a file that a run left, if there is room."""
        if name == RESERVED:
            return True
        try:
            self.put(container, name, data, "assistant")
        except InvalidRequest:
            return False
        return True

    def _touch(self, container: Container) -> None:
        container.used_s, container.active_s = self._clock(), time.time()

    def _expire(self) -> None:
        now = self._clock()
        for id, one in list(self._containers.items()):
            if one.used_s + one.idle_s < now and not one.lock.locked():
                del self._containers[id]
