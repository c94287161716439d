"""Tools that run on the server's side of an answer: what a provider of them gives, and what it takes.

A request names a kind of tool with its settings. The kind's provider opens it, which tells what functions
the model sees; each call the model makes of them comes back here. Knows no wire format and no loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llamakit.core.messages import ToolSpec

HostedKind = Literal["web_search", "file_search", "code_interpreter", "mcp"]


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
