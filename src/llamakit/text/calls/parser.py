"""The parser of models that call tools: pieces of an answer to text and calls, in any dialect.

Text is looked at for calls only when tools are offered, or after `<|python_tag|>`, which the model writes
for nothing else. What follows that tag is a call as a whole: of the tools it names, or else the source of a
program for the code interpreter.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from llamakit.core.messages import TextDelta, ToolCallDelta
from llamakit.text.calls.literals import to_json
from llamakit.text.calls.reading import CODE_TOOL, Call, Toolbox
from llamakit.text.calls.scanner import CallScanner


def new_call_id() -> str:
    """A fresh random id, `call_` and 24 hexadecimal digits."""
    return "call_" + secrets.token_hex(12)


class ToolCallParser:
    """See `formats.format.OutputParser`; one parser reads one answer."""

    def __init__(self, box: Toolbox, python_tag_id: int | None) -> None:
        self._box = box
        self._python_tag_id = python_tag_id
        self._scanner = None if box.is_empty else CallScanner(box)
        self._tagged: list[str] | None = None
        self._num_calls = 0

    @property
    def made_calls(self) -> bool:
        """Whether a call was reported so far."""
        return self._num_calls > 0

    def push(self, piece: str | int) -> list[TextDelta | ToolCallDelta]:
        """Take the next text or control id; control ids other than the tag carry nothing."""
        if isinstance(piece, int):
            if piece != self._python_tag_id:
                return []
            ended = self.finish()
            self._tagged = []
            return ended
        if not piece:
            return []
        if self._tagged is not None:
            self._tagged.append(piece)
            return []
        return self._parts(self._scanner.push(piece) if self._scanner else [piece])

    def finish(self) -> list[TextDelta | ToolCallDelta]:
        """The answer ended: returns what was held back."""
        if self._tagged is None:
            return self._parts(self._scanner.finish() if self._scanner else [])
        text, self._tagged = "".join(self._tagged), []
        return self._parts(self._read_tagged(text))

    def _read_tagged(self, text: str) -> list[str | Call]:
        """What begins as a call of a tool is that, and any rest is text; everything else is a program."""
        scanner = CallScanner(self._box, any_name=True)
        items = scanner.push(text) + scanner.finish()
        if items and isinstance(items[0], Call):
            return items
        is_code = self._box.is_empty or CODE_TOOL in self._box.names
        if is_code and text.strip():
            return [Call(name=CODE_TOOL, arguments=to_json({"code": text}))]
        return [text] if text else []

    def _parts(self, items: Iterable[str | Call]) -> list[TextDelta | ToolCallDelta]:
        return [TextDelta(text=item) if isinstance(item, str) else self._delta(item) for item in items]

    def _delta(self, call: Call) -> ToolCallDelta:
        index, self._num_calls = self._num_calls, self._num_calls + 1
        return ToolCallDelta(index=index, id=new_call_id(), name=call.name, arguments=call.arguments)
