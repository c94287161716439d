"""Ids to text as they come: the text so far is always whole characters.

Holds back bytes of an unfinished UTF-8 character, and the one leading space that SentencePiece adds.
What was pushed and flushed, joined, equals `decode` of all ids.
"""

from __future__ import annotations

import codecs

from llamakit.text.tokenizer import Tokenizer

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Turns one sequence of ids into text, piece by piece; each push costs the length of its token."""

    def __init__(self, tokenizer: Tokenizer, *, continues: bool = False) -> None:
        """`continues`: the ids go on from text, so a leading space is part of the answer."""
        self._tokenizer = tokenizer
        self._decoder = _UTF8("replace")
        self._drop_space = tokenizer.strips_leading_space and not continues

    def push(self, id: int) -> str:
        """Text that is complete with this token; empty while a character is unfinished."""
        data = self._tokenizer.token_bytes(id)
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is still held, U+FFFD for an unfinished character; the end of the sequence."""
        return self._decoder.decode(b"", final=True)
