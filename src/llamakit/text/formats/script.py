"""The ids of a conversation while it is being written, with the loss mask beside them.

Text and control tokens go in by different doors: `text` can only ever add plain-text ids.
"""

from __future__ import annotations

from llamakit.core.errors import TokenizerError
from llamakit.text.tokenizer import Tokenizer


class Script:
    """Collects ids; `trained` marks those that follow as the assistant's own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self.mask: list[bool] = []
        self.trained = False

    def text(self, text: str) -> None:
        """Encode `text` by itself, whatever it spells."""
        self._add(self._tokenizer.encode(text))

    def continuation(self, text: str) -> None:
        """Encode `text` as going on from what is before it."""
        self._add(self._tokenizer.encode_continuation(text))

    def append(self, id: int) -> None:
        """Append the control token with this id."""
        self._add([id])

    def control(self, name: str) -> None:
        """Append the control token called `name`."""
        id = self._tokenizer.special.get(name)
        if id is None:
            raise TokenizerError(
                f"this prompt format needs the control token {name}, which the tokenizer does not have"
            )
        self._add([id])

    def _add(self, ids: list[int]) -> None:
        self.ids += ids
        self.mask += [self.trained] * len(ids)
