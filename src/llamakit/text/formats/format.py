"""What every prompt format can do, what it is asked with and what it gives.

A format renders messages to ids, for generation and for training, and makes the parser of what the
model then says. Control ids come from the format alone: no text of any message can produce one.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llamakit.core.errors import ConfigError
from llamakit.core.messages import ImagePart, Message, TextDelta, ToolCallDelta, ToolSpec
from llamakit.text.tokenizer import Tokenizer

Piece = str | int
"""What a parser is fed: text, or the id of a control token the model wrote."""

AnswerPart = TextDelta | ToolCallDelta

ToolStyle = Literal["json", "function_tag", "python_list"]
Flavour = Literal["meta", "hf"]

BUILTIN_TOOLS = ("brave_search", "wolfram_alpha", "code_interpreter", "photogen")


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatOptions:
    """Choices of rendering that are not in the messages; the defaults are each format's own."""

    flavour: Flavour = "meta"
    """`meta` follows Meta's reference (text is not trimmed, no system block of its own accord); `hf` follows
    the chat templates on the hub (text is trimmed, a system block with dates always)."""
    today: datetime.date | None = None
    """Date shown to the model; None shows none (`hf`: the templates' fixed 26 Jul 2024)."""
    knowledge_cutoff: str = "December 2023"
    date_block: Literal["never", "with_tools", "always"] = "with_tools"
    """When the `meta` flavour shows the two date lines."""
    tool_style: ToolStyle | None = None
    """How the model is asked to write calls of custom tools; None is the model's own style."""
    tools_in: Literal["system", "user"] | None = None
    """Which message lists the custom tools; None is the style's own place."""
    builtin_tools: tuple[str, ...] = ()
    """Tools the model was trained on and calls by name: brave_search, wolfram_alpha, code_interpreter."""
    environment_ipython: bool | None = None
    """Whether the system block opens with `Environment: ipython`; None decides by tools and style."""
    generation_prompt: bool = True
    """End with the opened assistant turn."""
    continue_final_message: bool = False
    """Leave the last message, an assistant's, open, so that the answer goes on from its text."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.builtin_tools if name not in BUILTIN_TOOLS]
        if unknown:
            raise ConfigError(f"no built-in tool {unknown[0]!r}; there are {', '.join(BUILTIN_TOOLS)}")
        if "\n" in self.knowledge_cutoff:
            raise ConfigError(f"knowledge_cutoff is one line, got {self.knowledge_cutoff!r}")


DEFAULT_OPTIONS = FormatOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What the engine is given."""

    ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    """Ids that end the answer."""
    images: tuple[ImagePart, ...] = ()
    """In the order of their placeholders in `ids`."""
    continues: bool = False
    """Whether the answer goes on from text, so that its leading space counts (`Detokenizer`)."""


class OutputParser(Protocol):
    """Turns what the model writes into text and tool calls. Never raises; every character comes out once."""

    @property
    def made_calls(self) -> bool:
        """Whether a tool call was reported so far; after `finish` it decides the finish reason."""
        ...

    def push(self, piece: Piece) -> list[AnswerPart]:
        """Take the next text or control id; returns what is certain by now."""
        ...

    def finish(self) -> list[AnswerPart]:
        """The output ended: returns what was held back."""
        ...


class PromptFormat(Protocol):
    """One family's way to write a conversation."""

    @property
    def name(self) -> str:
        """What `resolve_format` knows it by."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it writes with."""
        ...

    @property
    def tool_style(self) -> ToolStyle | None:
        """How the model writes calls of custom tools unless told otherwise; None where it knows no tools."""
        ...

    @property
    def supports_tools(self) -> bool:
        """Whether tools may be given."""
        ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        options: FormatOptions = DEFAULT_OPTIONS,
    ) -> Prompt:
        """Prompt that asks for the next assistant message; InvalidRequest where the format has no words for it."""
        ...

    def render_training(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        options: FormatOptions = DEFAULT_OPTIONS,
    ) -> tuple[list[int], list[bool]]:
        """Ids of the whole conversation, and which of them are the assistant's: content and end token only.

        Begins with exactly the ids that `render` gives for the messages before any assistant message.
        """
        ...

    def parser(self, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS) -> OutputParser:
        """A fresh parser for one answer to a prompt rendered with the same arguments."""
        ...
