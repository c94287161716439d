"""The containers of a server that has no code interpreter: none, and the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llamakit.api.containers import Containers, KeepsContainers, WireContainerRequest
from llamakit.api.hosted_tools import ToolProvider
from llamakit.api.openai_lists import PageQuery, list_body
from llamakit.core.errors import InvalidRequest
from llamakit.storage.ids import CONTAINER


def containers_of(tools: Iterable[ToolProvider]) -> Containers:
    """The containers of the first tool that has some; where none has, the answers that say so."""
    for tool in tools:
        if isinstance(tool, KeepsContainers):
            return tool.kept()
    return NoContainers()


class NoContainers:
    """Where no interpreter runs."""

    async def create(self, owner: str, wire: WireContainerRequest) -> dict[str, Any]:
        """Refused, with what would help."""
        raise InvalidRequest(
            "this server has no code interpreter; start one that has: llama serve --tool code-interpreter",
            code="unsupported_tool",
        )

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """There is none."""
        return list_body([], has_more=False)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def add_file(self, owner: str, id: str, name: str, data: bytes) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def copy_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def files(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def content(self, owner: str, id: str, file_id: str) -> tuple[str, bytes]:
        """There is none."""
        raise CONTAINER.missing(id)

    async def delete_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """There is none."""
        raise CONTAINER.missing(id)
