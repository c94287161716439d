"""Bytes of a server-sent event stream -> events; bounded, so that no stream fills the memory.

Lines end with a line feed, before which a carriage return may stand. What follows the last whole event when the
stream ends is no event.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamakit.core.errors import RemoteFailed

MAX_EVENT_BYTES = 8 << 20


class EventReader:
    """Feed with bytes as they come; gives name and data of each event."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._buffer = bytearray()
        self._searched = 0
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str, str]]:
        """The events that are whole now; raises `RemoteFailed` for one that is too long or not UTF-8."""
        self._buffer += piece
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._searched = 0
            if line:
                self._take(line)
            else:
                name, self._name = self._name, ""
                if self._data:
                    yield name, self._text()
        self._searched = len(self._buffer)
        self._check(self._size + len(self._buffer))

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
            self._check(self._size)
        elif field == b"event":
            self._name = value.decode("ascii", "replace")[:64]

    def _text(self) -> str:
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode()
        except UnicodeDecodeError as fault:
            raise RemoteFailed(f"{self._service} sent an event that is not UTF-8") from fault

    def _check(self, size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise RemoteFailed(f"{self._service} sent an event of more than {MAX_EVENT_BYTES} bytes")
