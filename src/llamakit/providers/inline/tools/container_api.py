"""Containers as OpenAI's API shows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from llamakit.api.containers import WireContainerRequest, memory_text, page_of
from llamakit.api.openai_lists import PageQuery, deleted_body, list_body
from llamakit.providers.inline.tools.containers import Container, ContainerFile, ContainerPool

ReadFiles = Callable[[str, Sequence[str]], Awaitable[dict[str, bytes]]]
"""Files of the server by owner and ids, by names that a sandbox takes."""


class ContainerApi:
    """The containers of one server, on the wire."""

    def __init__(
        self,
        pool: Callable[[], Awaitable[ContainerPool]],
        read: ReadFiles,
        memory: Callable[[str | None], int],
        check_network: Callable[[Any], None],
    ) -> None:
        self._pool = pool
        self._read = read
        self._memory = memory
        self._check_network = check_network

    async def create(self, owner: str, wire: WireContainerRequest) -> dict[str, Any]:
        """A new one; raises `InvalidRequest` for what it cannot be."""
        self._check_network(wire.network_policy)
        files = await self._read(owner, wire.file_ids or ())
        idle_s = None if wire.expires_after is None else wire.expires_after.minutes * 60.0
        pool = await self._pool()
        made = pool.create(owner, files, memory_bytes=self._memory(wire.memory_limit), name=wire.name, idle_s=idle_s)
        return _body(made)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """What is known of one."""
        return _body((await self._pool()).get(owner, id))

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """A page of them."""
        shown, has_more = page_of([_body(one) for one in (await self._pool()).of(owner)], page)
        return list_body(shown, has_more=has_more)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """End one, and forget its files."""
        (await self._pool()).delete(owner, id)
        return deleted_body("container.deleted", id)

    async def add_file(self, owner: str, id: str, name: str, data: bytes) -> dict[str, Any]:
        """Put a file in, in the place of one of the same name."""
        pool = await self._pool()
        container = pool.get(owner, id)
        return _file_body(container, pool.put(container, name, data, "user"))

    async def copy_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """Put a file of the server in."""
        (await self._pool()).get(owner, id)
        ((name, data),) = (await self._read(owner, (file_id,))).items()
        return await self.add_file(owner, id, name, data)

    async def files(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """A page of what is in one."""
        container = (await self._pool()).get(owner, id)
        shown, has_more = page_of([_file_body(container, file) for file in container.files.values()], page)
        return list_body(shown, has_more=has_more)

    async def file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """What is known of a file."""
        pool = await self._pool()
        container = pool.get(owner, id)
        return _file_body(container, pool.file(container, file_id))

    async def content(self, owner: str, id: str, file_id: str) -> tuple[str, bytes]:
        """Name and bytes of a file."""
        pool = await self._pool()
        file = pool.file(pool.get(owner, id), file_id)
        return file.name.rpartition("/")[2], file.data

    async def delete_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """Take a file out."""
        pool = await self._pool()
        container = pool.get(owner, id)
        del container.files[pool.file(container, file_id).name]
        return deleted_body("container.file.deleted", file_id)


def _body(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "object": "container",
        "created_at": int(container.created_s),
        "status": "running",
        "expires_after": {"anchor": "last_active_at", "minutes": max(1, round(container.idle_s / 60))},
        "last_active_at": int(container.active_s),
        "memory_limit": memory_text(container.memory_bytes),
        "name": container.name,
        "network_policy": {"type": "disabled"},
    }


def _file_body(container: Container, file: ContainerFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "container.file",
        "created_at": int(file.created_s),
        "bytes": len(file.data),
        "container_id": container.id,
        "path": f"/work/{file.name}",
        "source": file.source,
    }
