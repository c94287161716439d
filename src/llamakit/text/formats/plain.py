"""The parser of formats without tool calls: everything the model writes is text."""

from __future__ import annotations

from llamakit.core.messages import TextDelta
from llamakit.text.formats.format import AnswerPart, Piece


class PlainParser:
    """Passes text through; control ids carry no text."""

    made_calls = False

    def push(self, piece: Piece) -> list[AnswerPart]:
        """The text itself, at once."""
        return [TextDelta(text=piece)] if isinstance(piece, str) and piece else []

    def finish(self) -> list[AnswerPart]:
        """Nothing is ever held back."""
        return []
