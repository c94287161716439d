"""Tools that run on the server's side of an answer: what a provider of them gives, and what it takes.

A request names a kind of tool with its settings. The kind's provider opens it, which tells what functions
the model sees; each call the model makes of them comes back here. Knows no wire format and no loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from llamakit.api.containers import ContainerShelf
from llamakit.core.messages import ToolSpec

HostedKind = Literal["web_search", "file_search", "code_interpreter", "mcp", "shell", "image_generation", "tool_search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostedResult:
    """What a call gave."""

    output: str
    """What the model reads."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What the call's item shows beside it: `action`, `results`, `outputs`, `container_id` or `error`, by kind."""
    is_failed: bool = False
    citations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Marks that the answer may quote, such as `[1]`, to the annotation that each stands for."""


class HostedTool(Protocol):
    """A tool of one request."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The functions the model sees."""
        ...

    def needs_approval(self, name: str) -> bool:
        """Whether the client must agree before this function is called."""
        ...

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Run a function with JSON text of one object; raises `ToolError` for a failure the model may read."""
        ...


class HostedTools(Protocol):
    """A provider of one kind."""

    async def open(self, owner: str, settings: Mapping[str, Any]) -> HostedTool:
        """The tool as a request wants it; raises `InvalidRequest` for settings it cannot honour."""
        ...


class ToolProvider(HostedTools, Protocol):
    """A provider as the provider table builds it: it begins and ends with its server."""

    @property
    def kind(self) -> HostedKind | None:
        """The kind of tool of a response that it serves; None for one that only tool groups have."""
        ...

    @property
    def group(self) -> str | None:
        """The built-in tool group it serves; None where groups are registered, each with its own tools."""
        ...

    def bind(self, parts: ServerParts) -> None:
        """Take what it needs of the server that it belongs to; called once, before anything else."""
        ...

    async def start(self) -> None:
        """Make sure that it can work here; raises a `LlamakitError` with the reason where it cannot."""
        ...

    async def aclose(self) -> None:
        """End what it holds."""
        ...


@runtime_checkable
class RunsShell(Protocol):
    """A provider in whose containers commands of a shell run, too."""

    def shell(self) -> HostedTools:
        """The shell."""
        ...


class FoundPassage(Protocol):
    """A passage that a search of files found."""

    @property
    def file_id(self) -> str: ...
    @property
    def filename(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...
    @property
    def page(self) -> int | None:
        """Of the document, from 1, where it has pages."""
        ...

    @property
    def span(self) -> tuple[int, int] | None:
        """Characters of the document's text, the end excluded."""
        ...


class VectorSearch(Protocol):
    """The vector stores of one server: what a tool that searches files is given."""

    async def get(self, owner: str, store: str, /) -> Any:
        """The store; raises `NotFound` for one that is not the owner's."""
        ...

    async def search(
        self,
        owner: str,
        store: str,
        query: str,
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int = 10,
        threshold: float = 0.0,
        fusion: Any = None,
    ) -> Sequence[FoundPassage]:
        """The best passages, best first; `fusion` is how meaning and words count against each other."""
        ...


class FileReader(Protocol):
    """The files of one server: what a tool that works on files is given."""

    async def get(self, owner: str, id: str, /) -> Mapping[str, Any]:
        """Facts of a file, `filename` and `bytes` among them; raises `NotFound` for one that is not the owner's."""
        ...

    async def read(self, owner: str, id: str, /) -> bytes:
        """Its content."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerParts:
    """What a server gives to its tools."""

    files: FileReader | None = None
    vector_stores: VectorSearch | None = None
    containers: ContainerShelf | None = None
