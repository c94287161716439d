"""Conversations as ids and loss masks, by the prompt format that will serve them.

The format is passed in; this file only knows that it renders messages for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llamakit.core.messages import Message, ToolSpec
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions


class TrainingFormat(Protocol):
    """What is needed of a prompt format."""

    def render_training(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> tuple[list[int], list[bool]]:
        """Ids of the whole conversation, and which of them the assistant wrote."""
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation in ids. `trained[i]` says that id i was written by the assistant."""

    ids: list[int]
    trained: list[bool]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.trained):
            raise ValueError(f"a mask of {len(self.trained)} for {len(self.ids)} ids")


def encode(
    format: TrainingFormat,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    options: FormatOptions = DEFAULT_OPTIONS,
) -> Document:
    """A conversation as the model will see it."""
    return Document(*format.render_training(messages, tools, options))
