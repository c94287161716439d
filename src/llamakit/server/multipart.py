"""A multipart/form-data body, part by part as it arrives: a file is handed on in pieces and never held whole.

Knows names, file names and bytes. What the fields mean is the business of whoever reads them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from llamakit.api.limits import Limits
from llamakit.core.errors import InvalidRequest
from llamakit.server.errors import BodyTooLarge, BodyTooSlow, WrongMediaType

T = TypeVar("T")
Pieces = AsyncIterator[bytes]
Keep = Callable[[Pieces], Awaitable[T]]
"""Takes the content of the file while it arrives."""

MAX_HEADERS = 16
MAX_HEADER_BYTES = 8 << 10
_FORM_ROOM = 1 << 20
"""Bytes of boundaries, headers and fields that a form has beside its file."""


@dataclass(frozen=True, slots=True)
class FormFile(Generic[T]):
    """What came as a file."""

    name: str
    """The file name the client gave; may be anything."""
    kept: T
    """What became of its content."""


@dataclass(slots=True)
class _Open:
    """A part of which the headers are read."""

    name: str
    filename: str | None


Event = _Open | bytes | None
"""A part that opens, some of its bytes, its end."""


@dataclass(slots=True)
class _Events:
    """What the parser says of one stretch of the body, in order."""

    seen: deque[Event] = field(default_factory=deque)
    is_over: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes | None = None

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """As the parser wants them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self.seen.append(bytes(data[start:end])),
            "on_part_end": lambda: self.seen.append(None),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = None

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise InvalidRequest("a part of the form has no `Content-Disposition: form-data; name=...`")
        filename = options.get(b"filename")
        self.seen.append(_Open(_text(options[b"name"]), None if filename is None else _text(filename)))

    def _end(self) -> None:
        self.is_over = True


async def read_form(
    request: Request, file_field: str, keep: Keep[T], limits: Limits, *, file_bytes: int
) -> tuple[dict[str, str], FormFile[T]]:
    """The fields of the form and its one file, whose pieces go to `keep` as they come.

    Raises `WrongMediaType` for another kind of body, `BodyTooLarge`, `BodyTooSlow`, and `InvalidRequest` for a
    broken form, a field given twice, or none of `file_field`.
    """
    boundary = _boundary(request)
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > file_bytes + _FORM_ROOM):
        raise BodyTooLarge(f"the file has more than {file_bytes} bytes")
    try:
        async with asyncio.timeout(limits.file_s):
            async with aclosing(_events(request, boundary, file_bytes + _FORM_ROOM)) as events:
                return await _read(events, file_field, keep, limits, file_bytes)
    except TimeoutError:
        raise BodyTooSlow(f"the form was not complete after {limits.file_s:g} s") from None
    except ClientDisconnect:
        raise InvalidRequest("the connection closed before the form was complete") from None


async def _read(
    events: AsyncIterator[Event], file_field: str, keep: Keep[T], limits: Limits, file_bytes: int
) -> tuple[dict[str, str], FormFile[T]]:
    fields: dict[str, str] = {}
    file: FormFile[T] | None = None
    async for event in events:
        if not isinstance(event, _Open):
            raise InvalidRequest("the form is not well-formed: bytes outside of a part")
        if event.name in fields or (event.name == file_field and file is not None):
            raise InvalidRequest(f"the form gives {event.name[:80]!r} twice", param=event.name[:80])
        if event.name == file_field:
            pieces = _content(events, file_bytes)
            file = FormFile(event.filename or "", await keep(pieces))
            async for _ in pieces:
                raise InvalidRequest("the file was not read to its end", param=file_field)
            continue
        if len(fields) == limits.form_fields:
            raise InvalidRequest(f"the form has more than {limits.form_fields} fields")
        fields[event.name] = await _field(event.name, _content(events, _FORM_ROOM), limits)
    if file is None:
        raise InvalidRequest(
            f"{file_field} is required: a part of that name with the content", param=file_field,
            code="missing_required_parameter",
        )  # fmt: skip
    return fields, file


async def _content(events: AsyncIterator[Event], most: int) -> Pieces:
    """The bytes of the part that has just opened."""
    size = 0
    async for event in events:
        if event is None:
            return
        if isinstance(event, bytes):
            size += len(event)
            if size > most:
                raise BodyTooLarge(f"the file has more than {most} bytes")
            yield event


async def _field(name: str, pieces: Pieces, limits: Limits) -> str:
    value = bytearray()
    async for piece in pieces:
        value += piece
        if len(value) > limits.form_field_bytes:
            raise InvalidRequest(f"field {name[:80]!r} has more than {limits.form_field_bytes} bytes", param=name[:80])
    return _text(bytes(value))


async def _events(request: Request, boundary: bytes, most: int) -> AsyncGenerator[Event, None]:
    """What the body says, in order; bytes are counted before they are looked at."""
    seen = _Events()
    callbacks: Any = seen.callbacks()
    parser = MultipartParser(boundary, callbacks, max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise BodyTooLarge(f"the form has more than {most} bytes")
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"the form is not well-formed: {error}") from None
        while seen.seen:
            yield seen.seen.popleft()
    if not seen.is_over:
        raise InvalidRequest("the form ends before its last boundary")


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise WrongMediaType("send a form with the header `Content-Type: multipart/form-data; boundary=...`")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise WrongMediaType("compressed bodies are not taken; send the form as it is")
    return boundary


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the form holds names or fields that are not UTF-8") from None
