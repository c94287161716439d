"""OpenAI's containers of the code interpreter on the wire, and who keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from llamakit.api.openai_lists import PageQuery
from llamakit.api.wire import FIRST, Wire

MAX_IDLE_MINUTES = 20
MAX_FILES = 256
"""Kept in one container."""


class WireContainerExpiry(Wire):
    """When a container goes by itself."""

    anchor: Literal["last_active_at"]
    minutes: Annotated[int, Field(ge=1, le=MAX_IDLE_MINUTES)]


class WireContainerRequest(Wire):
    """Body of `POST /v1/containers`."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    file_ids: Annotated[list[str], FIRST, Field(max_length=20)] | None = None
    """Files of the server that are copied into it."""
    expires_after: WireContainerExpiry | None = None
    memory_limit: Literal["1g", "4g", "16g", "64g"] | None = None
    """Of one run; more than the server allows is refused."""
    network_policy: dict[str, Any] | None = None
    """Only `{"type": "disabled"}`: code has no network here."""


class WireContainer(Wire):
    """A container: files that are kept between runs of code."""

    id: str
    object: Literal["container"]
    created_at: int
    status: Literal["running", "expired"]
    """`expired`: it was not used in its time; this is what is still known of it, its files are gone."""
    expires_after: WireContainerExpiry
    last_active_at: int
    memory_limit: str
    name: str
    network_policy: dict[str, Any]


class WireContainers(Wire):
    """A page of containers."""

    object: Literal["list"]
    data: list[WireContainer]
    first_id: str
    last_id: str
    has_more: bool


class WireContainerFileForm(Wire):
    """A file for a container: a form with `file`, or a JSON body with `file_id`."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})] | None = None
    file_id: str | None = None
    """A file of the server, to be copied."""


class WireContainerFileRequest(Wire):
    """The JSON body of `POST /v1/containers/{container_id}/files`."""

    file_id: str


class WireContainerFile(Wire):
    """A file in a container."""

    id: str
    object: Literal["container.file"]
    created_at: int
    bytes: int
    container_id: str
    path: str
    source: Literal["user", "assistant"]
    """`assistant`: code wrote it."""


class WireContainerFiles(Wire):
    """A page of files in a container."""

    object: Literal["list"]
    data: list[WireContainerFile]
    first_id: str
    last_id: str
    has_more: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptContainer:
    """What is known of a container."""

    id: str
    name: str
    memory_bytes: int
    """Of one run."""
    idle_s: float
    """Seconds without use after which it expires."""
    created_s: float
    active_s: float
    """Last use; both are times of day."""
    is_expired: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptFile:
    """What is known of a file in a container."""

    id: str
    name: str
    size: int
    source: Literal["user", "assistant"]
    created_s: float


class Held(Protocol):
    """A container that one has for oneself."""

    @property
    def container(self) -> KeptContainer:
        """Which it is."""
        ...

    @property
    def files(self) -> Mapping[str, bytes]:
        """What was in it when it was taken, by name."""
        ...

    async def keep(self, files: Mapping[str, bytes], gone: Sequence[str], *, most_bytes: int) -> Mapping[str, KeptFile]:
        """Keep files and take out others, all or none; `InvalidRequest` beyond `most_bytes`, `Conflict` once lost."""
        ...


class ContainerShelf(Protocol):
    """Where containers lie, for the tool that runs code in them. One of somebody else is `NotFound`."""

    async def create(
        self, owner: str, *, name: str, memory_bytes: int, idle_s: float, files: Mapping[str, bytes], most_bytes: int
    ) -> KeptContainer:
        """A new one; raises `Overloaded` where there are too many, `InvalidRequest` for too large files."""
        ...

    async def get(self, owner: str, id: str) -> KeptContainer:
        """One, also an expired one."""
        ...

    async def page(self, owner: str, page: PageQuery) -> tuple[list[KeptContainer], bool]:
        """Some, and whether there are more."""
        ...

    async def delete(self, owner: str, id: str) -> None:
        """Forget one and its files."""
        ...

    async def put(
        self, owner: str, id: str, name: str, data: bytes, source: Literal["user", "assistant"], *, most_bytes: int
    ) -> KeptFile:
        """Keep a file; `NotFound` for an expired container, here and below."""
        ...

    async def files(self, owner: str, id: str, page: PageQuery) -> tuple[list[KeptFile], bool]:
        """Some files of one, and whether there are more."""
        ...

    async def file(self, owner: str, id: str, file_id: str) -> KeptFile:
        """One file."""
        ...

    async def read(self, owner: str, id: str, file_id: str) -> tuple[KeptFile, bytes]:
        """One file and its content."""
        ...

    async def delete_file(self, owner: str, id: str, file_id: str) -> None:
        """Take a file out."""
        ...

    def hold(self, owner: str, id: str, *, wait_s: float) -> AbstractAsyncContextManager[Held]:
        """Have a container for oneself; `Overloaded` where others have it for longer than `wait_s`."""
        ...


class Containers(Protocol):
    """The containers of one server; an absent one and somebody else's are both `NotFound`."""

    async def create(self, owner: str, wire: WireContainerRequest) -> dict[str, Any]:
        """A new one; raises `InvalidRequest` for what it cannot be."""
        ...

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """What is known of one."""
        ...

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """A page of them."""
        ...

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """End one, and forget its files."""
        ...

    async def add_file(self, owner: str, id: str, name: str, data: bytes) -> dict[str, Any]:
        """Put a file in, in the place of one of the same name."""
        ...

    async def copy_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """Put a file of the server in."""
        ...

    async def files(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """A page of what is in one."""
        ...

    async def file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """What is known of a file."""
        ...

    async def content(self, owner: str, id: str, file_id: str) -> tuple[str, bytes]:
        """Name and bytes of a file."""
        ...

    async def delete_file(self, owner: str, id: str, file_id: str) -> dict[str, Any]:
        """Take a file out."""
        ...


@runtime_checkable
class KeepsContainers(Protocol):
    """A tool that has containers."""

    def kept(self) -> Containers:
        """They."""
        ...


def memory_text(size: int) -> str:
    """Bytes as `memory_limit` spells them."""
    gigabytes, rest = divmod(size, 1 << 30)
    return f"{size >> 20}m" if rest or not gigabytes else f"{gigabytes}g"
