"""What somebody wants from a model, before it is a prompt: messages or raw text, tools, sampling wishes.

Sampling wishes are kept as given fields: what is not given comes from the model's own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, ToolSpec
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedTool:
    """`tool_choice` that forces one function."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request: exactly one of `messages` and `prompt` is given."""

    messages: Sequence[Message] | None = None
    prompt: str | Sequence[int] | None = None
    """Raw text (encoded behind BOS) or token ids (taken as they are)."""
    suffix: str | None = None
    """Text after the hole: asks for the middle between `prompt` and `suffix`."""
    tools: Sequence[ToolSpec] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of SamplingParams that were given."""
    options: FormatOptions = DEFAULT_OPTIONS
    echo: bool = False
    """The answer begins with the prompt's text."""
    progress: bool = False
    """Report PrefillProgress."""
    priority: int = 0
    """Lower runs first."""
    salt: bytes = b""
    """Requests share cached prefixes only with requests of equal salt."""

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.prompt is None):
            raise InvalidRequest("give either messages or a prompt", param="messages")
        if self.suffix is not None and not isinstance(self.prompt, str):
            raise InvalidRequest("suffix asks for text between two texts; give prompt as a string", param="suffix")
        if self.messages is not None and not self.messages:
            raise InvalidRequest("messages is empty; give at least one message", param="messages")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.name not in {t.name for t in self.tools}:
            raise InvalidRequest(
                f"tool_choice names {self.tool_choice.name!r}, which is not in tools", param="tool_choice"
            )
        if self.tool_choice == "required" and not self.tools:
            raise InvalidRequest("tool_choice 'required' needs tools", param="tool_choice")
