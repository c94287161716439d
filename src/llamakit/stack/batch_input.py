"""The input of a batch: a file of JSON lines -> lines, and what is wrong with them.

Reads a stretch of the file at a time, so that a file of any size takes the memory of its longest line.
What is wrong with a line as a line is told here, before anything is computed; what is wrong with the request
in it is for the endpoint to say, and becomes the answer of that line alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from llamakit.api.limits import LIMITS
from llamakit.api.strict_json import decode
from llamakit.api.wire import found
from llamakit.core.errors import InvalidRequest

MAX_LINES = 50_000
MAX_FILE_BYTES = 200 << 20
MAX_ID_CHARS = 512
MAX_ERRORS = 100
"""Errors that are told; a file that has more is read no further."""
_KEYS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A request of a batch."""

    number: int
    """Of the line in the file, from 1."""
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What is known of an input once it was read to its end."""

    total: int
    model: str | None
    """The model of every line, where it is one."""
    errors: list[dict[str, Any]]


async def check_input(pieces: AsyncIterator[bytes], endpoint: str) -> Checked:
    """Read every line; the errors are those of lines and of the file, not of the requests."""
    total, seen, models, errors = 0, set[str](), set[str | None](), list[dict[str, Any]]()
    try:
        async for number, text in _texts(pieces):
            total += 1
            if total > MAX_LINES:
                raise InvalidRequest(f"a batch has at most {MAX_LINES} lines; split the file", code="too_many_requests")
            try:
                line = read_line(number, text, endpoint)
                if line.custom_id in seen:
                    raise InvalidRequest(
                        f"custom_id {line.custom_id[:80]!r} is there twice; each line has its own",
                        param="custom_id",
                        code="duplicate_custom_id",
                    )
            except InvalidRequest as fault:
                errors.append(_error(number, fault))
                if len(errors) >= MAX_ERRORS:
                    break
            else:
                seen.add(line.custom_id)
                model = line.body.get("model")
                models.add(model if isinstance(model, str) else None)
    except InvalidRequest as fault:
        errors.append(_error(None, fault))
    if not total and not errors:
        empty = InvalidRequest("the input file has no line; write one request a line", code="empty_file")
        errors.append(_error(None, empty))
    return Checked(total=total, model=models.pop() if len(models) == 1 else None, errors=errors)


async def lines(pieces: AsyncIterator[bytes], endpoint: str) -> AsyncIterator[Line]:
    """The lines of an input that `check_input` found nothing wrong with."""
    async for number, text in _texts(pieces):
        yield read_line(number, text, endpoint)


def read_line(number: int, text: bytes, endpoint: str) -> Line:
    """One line; raises `InvalidRequest` naming the key."""
    try:
        value = decode(text)
    except InvalidRequest as fault:
        raise InvalidRequest(str(fault).replace("request body", "line"), code="invalid_json_line") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"a line is a JSON object, got {found(value)}", code="invalid_json_line")
    for key in value:
        if key not in _KEYS:
            raise InvalidRequest(f"a line has the keys {', '.join(_KEYS)}, got {found(key)}", param=key[:80])
    custom_id, body = value.get("custom_id"), value.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
        raise InvalidRequest(
            f"custom_id must be a text of 1 to {MAX_ID_CHARS} characters, got {found(custom_id)}", param="custom_id"
        )
    if value.get("method") != "POST":
        raise InvalidRequest(f"method must be POST, got {found(value.get('method'))}", param="method")
    if value.get("url") != endpoint:
        raise InvalidRequest(
            f"url must be the endpoint of the batch, {endpoint}, got {found(value.get('url'))}",
            param="url",
            code="mismatched_url",
        )
    if not isinstance(body, dict):
        raise InvalidRequest(f"body must be an object, got {found(body)}", param="body")
    return Line(number=number, custom_id=custom_id, body=body)


async def _texts(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers; a line that is too long raises `InvalidRequest`."""
    number, rest = 0, b""
    async with aclosing(pieces) as each:  # pyright: ignore[reportArgumentType]
        async for piece in each:
            *whole, rest = (rest + piece).split(b"\n")
            for text in whole:
                number += 1
                if text.strip():
                    yield number, text
            if len(rest) > LIMITS.body_bytes:
                raise InvalidRequest(
                    f"line {number + 1} has more than {LIMITS.body_bytes} bytes; a line holds one request",
                    code="line_too_long",
                )
    if rest.strip():
        yield number + 1, rest


def _error(line: int | None, fault: InvalidRequest) -> dict[str, Any]:
    return {"code": fault.code or "invalid_line", "line": line, "message": str(fault), "param": fault.param}
