"""Files inside messages: kept ones by their id, or as they come, read to the text that a model is shown.

Reading happens once, when a request brings the file; the text is kept with the item, out of clients' sight.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from llamakit.api.wire import found
from llamakit.core.errors import DocumentError, InvalidRequest, NotFound
from llamakit.rag.parse import MAX_DOCUMENT_BYTES, parse
from llamakit.stack.files import Files

HIDDEN = "files"
"""Where the texts stand in what is kept of an item, by place of the part."""


class InputFiles:
    """Reads the files of the items of a request."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def hidden(self, owner: str, body: Mapping[str, Any], param: str) -> dict[str, Any]:
        """What is to be kept of an item beside its body: the text of each file; nothing where it has none.

        Raises `InvalidRequest` for a file that is not there or cannot be read.
        """
        texts = {}
        for where, place, part in _parts_of(body):
            at = f"{param}.{where}[{place}]"
            name, data, mime = await self._content(owner, part, at)
            try:
                read = await parse(name, data, mime=mime)
            except DocumentError as error:
                raise InvalidRequest(f"{at}: {name[:100]!r} cannot be read: {error}", param=at) from error
            texts[str(place)] = "\n\n".join([f"[File: {name}]", *(page.text for page in read.pages)])
        return {HIDDEN: texts} if texts else {}

    async def _content(self, owner: str, part: Mapping[str, Any], at: str) -> tuple[str, bytes, str | None]:
        """Name, bytes and media type."""
        id, data = part.get("file_id"), part.get("file_data")
        if id is not None:
            try:
                file = await self._files.get(owner, id)
            except NotFound as error:
                raise InvalidRequest(f"{at}.file_id: {error}", param=f"{at}.file_id") from None
            if file["bytes"] > MAX_DOCUMENT_BYTES:
                raise InvalidRequest(
                    f"{at}.file_id: the file has {file['bytes']} bytes, at most {MAX_DOCUMENT_BYTES} are read",
                    param=f"{at}.file_id",
                )
            return file["filename"], await self._files.read(owner, id), None
        if data is not None:
            mime, content = _decoded(data, f"{at}.file_data")
            return part.get("filename") or "file", content, mime
        raise InvalidRequest(f"{at} wants file_id or file_data; addresses are not fetched", param=at)


def _parts_of(body: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """The files among the parts of a message or of what a tool gave, with where they stand."""
    for where in ("content", "output"):
        parts = body.get(where)
        if isinstance(parts, list):
            for place, part in enumerate(parts):
                if part.get("type") == "input_file":
                    yield where, place, part


def _decoded(data: str, param: str) -> tuple[str | None, bytes]:
    """Media type and bytes of a data URL, or of base64 alone."""
    head, comma, rest = data.partition(",")
    if not comma:
        head, rest = "", data
    elif not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(f"{param} must be data:TYPE;base64,... or base64, got {found(head)}", param=param)
    try:
        content = base64.b64decode(rest, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"{param} is not base64", param=param) from None
    return head.removeprefix("data:").removesuffix(";base64") or None, content
