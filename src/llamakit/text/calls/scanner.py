"""Finds tool calls in text that comes in pieces, and gives everything else back unchanged.

A call may begin where a line begins (or after another call), `<function=` anywhere. From there the text is
held until it is certain: a head that no call begins with is released at once, a body when its bracket
closes. A call is reported whole, since text that turns out to be no call must still come out as text.
The result does not depend on where the pieces are cut, and each character is scanned a bounded number of times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from llamakit.text.calls.brackets import Brackets
from llamakit.text.calls.reading import CALL_NAME, BodyKind, Call, Toolbox, read_calls

MAX_HEAD_CHARS: Final = 256
"""A head that is not decided within this many characters begins no call."""

_CALL_KEYS: Final = frozenset({"name", "type", "function", "parameters", "arguments", "id"})
_FUNCTION_OPEN: Final = "<function="
_FUNCTION_CLOSE: Final = "</function>"
_FENCE: Final = "```"

_LINE_END_OR_TAG = re.compile(r"[\n<]")
_TEXT = re.compile(r"\S")
_SEPARATORS = re.compile(r"[\s;,]*")
_SPACE = re.compile(r"\s*")
_FENCE_LINE = re.compile(r"[\w+\-]*[ \t\r]*")
_KEY = re.compile(r"\w*")
_TAG_NAME = re.compile(r"[^<>\s]*")


class _NeedMore(Exception):
    """The head is not decided yet."""


class _NotACall(Exception):
    """No call begins like this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Head:
    """A decided head: what kind of body follows, and where its bracket stands."""

    kind: BodyKind
    name: str
    bracket: int
    fenced: bool


class CallScanner:
    """Takes text, gives text and calls in order."""

    def __init__(self, box: Toolbox, *, any_name: bool = False) -> None:
        """`any_name`: the text is known to be calls, so names outside the toolbox count too."""
        self._box = box
        self._names = box.names
        self._any_name = any_name
        self._state: Literal["line", "head", "body"] = "head"
        self._after_call = False
        self._fenced = False
        self._held = ""
        self._head = _Head(kind="value", name="", bracket=0, fenced=False)
        self._lead: list[str] = []
        self._body: list[str] = []
        self._brackets = Brackets()
        self._text: list[str] = []
        self._out: list[str | Call] = []

    def push(self, text: str) -> list[str | Call]:
        """Take the next piece; returns what is certain by now."""
        text = self._held + text
        at = 0
        while at < len(text):
            match self._state:
                case "line":
                    at = self._in_line(text, at)
                case "body":
                    at = self._in_body(text, at)
                case "head":
                    try:
                        at = self._at_head(text, at)
                    except _NeedMore:
                        break
        self._held = text[at:]
        return self._take()

    def finish(self) -> list[str | Call]:
        """The text ended: what was held is text, except separators after the last call."""
        rest = _SEPARATORS.sub("", self._held, count=1)
        is_tail = self._after_call and (_FUNCTION_CLOSE.startswith(rest) or (self._fenced and _FENCE.startswith(rest)))
        if self._state == "body":
            self._text += [*self._lead, *self._body]
        elif not is_tail:
            self._text.append(self._held)
        self._held, self._lead, self._body = "", [], []
        return self._take()

    def _take(self) -> list[str | Call]:
        self._close_text()
        out, self._out = self._out, []
        return out

    def _close_text(self) -> None:
        """Neighbouring pieces of text leave as one."""
        text = "".join(self._text)
        self._text = []
        if text:
            self._out.append(text)

    def _in_line(self, text: str, at: int) -> int:
        found = _LINE_END_OR_TAG.search(text, at)
        end = found.start() if found else len(text)
        self._text.append(text[at:end])
        if found:
            self._state, self._after_call = "head", False
        return end

    def _at_head(self, text: str, at: int) -> int:
        window = text[at : at + MAX_HEAD_CHARS]
        cursor = _Cursor(window)
        try:
            if self._after_call and self._closer(cursor):
                return at + cursor.at
            head = self._read_head(cursor)
        except _NeedMore:
            if len(window) < MAX_HEAD_CHARS:
                raise
        except _NotACall:
            pass
        else:
            self._head, self._brackets = head, Brackets()
            self._lead, self._body = [window[: head.bracket]], []
            self._state = "body"
            return at + head.bracket
        first = _TEXT.search(window)
        end = at + (first.end() if first else len(window))
        self._text.append(text[at:end])
        self._state, self._after_call = "line", False
        return end

    def _in_body(self, text: str, at: int) -> int:
        end = self._brackets.feed(text, at)
        self._body.append(text[at:end])
        if not (self._brackets.closed or self._brackets.broken):
            return end
        calls = None
        if self._brackets.closed:
            body = "".join(self._body)
            calls = read_calls(self._head.kind, self._head.name, body, self._box, any_name=self._any_name)
        if calls is None:
            self._text += [*self._lead, *self._body]
            self._state, self._after_call = "line", False
        else:
            self._close_text()
            self._out += calls
            self._state, self._after_call, self._fenced = "head", True, self._head.fenced or self._fenced
        return end

    def _closer(self, cursor: _Cursor) -> bool:
        """Whether what closes a call stands next; the cursor is then after it."""
        start = cursor.at
        cursor.skip(_SEPARATORS)
        if cursor.is_next(_FUNCTION_CLOSE):
            return True
        if self._fenced and cursor.is_next(_FENCE):
            self._fenced = False
            return True
        cursor.at = start
        return False

    def _read_head(self, cursor: _Cursor) -> _Head:
        cursor.skip(_SEPARATORS if self._after_call else _SPACE)
        fenced = cursor.is_next(_FENCE)
        if fenced:
            cursor.skip(_FENCE_LINE)
            cursor.take("\n")
            cursor.skip(_SPACE)
        start = cursor.at
        kind: BodyKind = "value"
        name = ""
        match cursor.peek():
            case "<":
                kind, name = "tag", cursor.function_tag()
                start = cursor.at
            case "{":
                cursor.object_head()
            case "[":
                cursor.at += 1
                cursor.skip(_SPACE)
                if cursor.peek() == "{":
                    cursor.object_head()
                else:
                    kind = "list"
                    cursor.call_name(None if self._any_name else self._names, dotted=False)
            case _:
                kind, name = "call", self._bare_name(cursor)
                start = cursor.at
        return _Head(kind=kind, name=name, bracket=start, fenced=fenced)

    def _bare_name(self, cursor: _Cursor) -> str:
        """`name.call` before a bracket; when the text is known to be calls also a known `name` alone."""
        if not self._any_name:
            return cursor.call_name(self._names, dotted=True)
        name = cursor.call_name(None, dotted=False)
        if name not in self._names and not name.endswith(".call"):
            raise _NotACall
        return name


class _Cursor:
    """Reads a head; running out of text raises _NeedMore, anything unexpected _NotACall."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def peek(self) -> str:
        if self.at >= len(self._text):
            raise _NeedMore
        return self._text[self.at]

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Go past what matches; the text must go on after it, since the match might."""
        found = pattern.match(self._text, self.at)
        taken = found.group() if found else ""
        self.at += len(taken)
        self.peek()
        return taken

    def is_next(self, literal: str) -> bool:
        """Go past `literal` if it stands here."""
        here = self._text[self.at : self.at + len(literal)]
        if here == literal:
            self.at += len(literal)
            return True
        if literal.startswith(here):
            raise _NeedMore
        return False

    def take(self, literal: str) -> None:
        if not self.is_next(literal):
            raise _NotACall

    def object_head(self) -> None:
        """`{` and a first key that calls have."""
        self.take("{")
        self.skip(_SPACE)
        quote = self.peek()
        if quote not in "\"'":
            raise _NotACall
        self.at += 1
        key = self.skip(_KEY)
        self.take(quote)
        if key not in _CALL_KEYS:
            raise _NotACall

    def function_tag(self) -> str:
        """`<function=name>` and the space after it; the cursor is then at the bracket."""
        self.take(_FUNCTION_OPEN)
        name = self.skip(_TAG_NAME)
        self.take(">")
        self.skip(_SPACE)
        if not name or self.peek() != "{":
            raise _NotACall
        return name

    def call_name(self, known: frozenset[str] | None, *, dotted: bool) -> str:
        """A name and the `(` after it, where the cursor stays; `known` None takes any, `dotted` wants `.call`."""
        found = CALL_NAME.match(self._text, self.at)
        if not found:
            raise _NotACall
        name = found.group()
        if found.end() == len(self._text):
            if known is not None and not any(
                whole.startswith(name) for tool in known for whole in (tool + ".call", tool)
            ):
                raise _NotACall
            raise _NeedMore
        base = name.removesuffix(".call")
        if (dotted and base == name) or (known is not None and base not in known and name not in known):
            raise _NotACall
        self.at = found.end()
        if self.skip(_SPACE) and dotted:
            raise _NotACall
        if self.peek() != "(":
            raise _NotACall
        return name
