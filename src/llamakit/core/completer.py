"""Two meanings of "a model": something that continues ids, and something that answers messages.

Evaluations, synthetic data and red-team runs work on either, local or remote, and import neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llamakit.core.messages import Answer, Message, ToolSpec
from llamakit.core.sampling import SamplingParams


class TokenCompleter(Protocol):
    """Continues token ids."""

    def complete_ids(self, prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> list[list[int]]:
        """Generated ids of each prompt, in order; the batch runs together."""
        ...


class MessageCompleter(Protocol):
    """Answers conversations."""

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: SamplingParams, tools: Sequence[ToolSpec] = ()
    ) -> list[Answer]:
        """One answer per conversation, in order; the batch runs together."""
        ...
