"""Containers as OpenAI's API shows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from llamakit.api.containers import KeptContainer, KeptFile, WireContainerRequest, memory_text
from llamakit.api.openai_lists import PageQuery, deleted_body, list_body
from llamakit.providers.inline.tools.containers import ContainerPool

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
        memory, pool = self._memory(wire.memory_limit), await self._pool()
        return _body(await pool.create(owner, files, memory_bytes=memory, name=wire.name, idle_s=idle_s))

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """What is known of one."""
        return _body(await (await self._pool()).shelf.get(owner, id))

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """A page of them."""
        shown, has_more = await (await self._pool()).shelf.page(owner, page)
        return list_body([_body(one) for one in shown], has_more=has_more)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """End one, and forget its files."""
        await (await self._pool()).shelf.delete(owner, id)
        return deleted_body("container.deleted", id)

    async def add_file(self, owner: str, id: str, name: str, data: bytes) -> dict[str, Any]:
        """Put a file in, in the place of one of the same name."""
        return _file_body(id, await (await self._pool()).put(owner, id, name, data))

    async def copy_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """Put a file of the server in."""
        await (await self._pool()).shelf.get(owner, id)
        ((name, data),) = (await self._read(owner, (file_id,))).items()
        return await self.add_file(owner, id, name, data)

    async def files(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """A page of what is in one."""
        shown, has_more = await (await self._pool()).shelf.files(owner, id, page)
        return list_body([_file_body(id, file) for file in shown], has_more=has_more)

    async def file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """What is known of a file."""
        return _file_body(id, await (await self._pool()).shelf.file(owner, id, file_id))

    async def content(self, owner: str, id: str, file_id: str) -> tuple[str, bytes]:
        """Name and bytes of a file."""
        file, data = await (await self._pool()).shelf.read(owner, id, file_id)
        return file.name.rpartition("/")[2], data

    async def delete_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """Take a file out."""
        await (await self._pool()).shelf.delete_file(owner, id, file_id)
        return deleted_body("container.file.deleted", file_id)


def _body(container: KeptContainer) -> dict[str, Any]:
    return {
        "id": container.id,
        "object": "container",
        "created_at": int(container.created_s),
        "status": "expired" if container.is_expired else "running",
        "expires_after": {"anchor": "last_active_at", "minutes": max(1, round(container.idle_s / 60))},
        "last_active_at": int(container.active_s),
        "memory_limit": memory_text(container.memory_bytes),
        "name": container.name,
        "network_policy": {"type": "disabled"},
    }


def _file_body(container: str, file: KeptFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "container.file",
        "created_at": int(file.created_s),
        "bytes": file.size,
        "container_id": container,
        "path": f"/work/{file.name}",
        "source": file.source,
    }
