"""Files and images inside messages: kept ones by their id, fetched ones by their address, or as they come.

A document is read to the text that a model is shown, an image to its bytes. Reading happens once, when a request
brings the file; what was read is kept with the item, out of clients' sight.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from llamakit.api.images import to_image
from llamakit.api.limits import LIMITS
from llamakit.api.wire import found
from llamakit.core.errors import DocumentError, InvalidRequest, NotFound
from llamakit.rag.parse import MAX_DOCUMENT_BYTES, parse
from llamakit.stack.fetching import FetchConfig, Fetcher
from llamakit.stack.files import Files

FILES, IMAGES = "files", "images"
"""Where the texts, and the images, stand in what is kept of an item, by place of the part."""
_IMAGES = ("input_image", "computer_screenshot")


class InputFiles:
    """Reads the files of the items of a request."""

    def __init__(self, files: Files, fetcher: Fetcher | None = None) -> None:
        self._files = files
        self._fetcher = fetcher or Fetcher(FetchConfig())

    async def hidden(self, owner: str, body: Mapping[str, Any], param: str, *, screens: bool = False) -> dict[str, Any]:
        """What is to be kept of an item beside its body: the text of each file and each image; nothing without any.

        Pictures of screens are read where a model works on one. Raises `InvalidRequest` for a file that is not
        there or cannot be read.
        """
        texts: dict[str, str] = {}
        images: dict[str, dict[str, str]] = {}
        for where, place, part in _parts_of(body):
            at = f"{param}.{where}[{place}]"
            if part["type"] == "input_file":
                texts[str(place)] = await self._text(owner, part, at)
            elif part["type"] == "computer_screenshot" and not screens:
                continue
            elif (image := await self._image(owner, part, at)) is not None:
                images[str(place)] = image
        return {name: read for name, read in ((FILES, texts), (IMAGES, images)) if read}

    async def _text(self, owner: str, part: Mapping[str, Any], at: str) -> str:
        name, data, mime = await self._content(owner, part, at)
        try:
            read = await parse(name, data, mime=mime)
        except DocumentError as error:
            raise InvalidRequest(f"{at}: {name[:100]!r} cannot be read: {error}", param=at) from error
        return "\n\n".join([f"[File: {name}]", *(page.text for page in read.pages)])

    async def _image(self, owner: str, part: Mapping[str, Any], at: str) -> dict[str, str] | None:
        """An image that the part does not hold itself: base64 and kind; None for one that it does."""
        id, url = part.get("file_id"), part.get("image_url")
        if id is not None:
            _, data = await self._kept(owner, id, f"{at}.file_id", most=LIMITS.image_bytes)
            at = f"{at}.file_id"
        elif url is not None and not url.startswith("data:"):
            at = f"{at}.image_url"
            data = (await self._fetcher.fetch(url, at)).data
        else:
            return None
        text = base64.b64encode(data).decode("ascii")
        return {"data": text, "mime": to_image(text, at).mime}

    async def _content(self, owner: str, part: Mapping[str, Any], at: str) -> tuple[str, bytes, str | None]:
        """Name, bytes and media type."""
        id, data, url = part.get("file_id"), part.get("file_data"), part.get("file_url")
        if id is not None:
            name, content = await self._kept(owner, id, f"{at}.file_id", most=MAX_DOCUMENT_BYTES)
            return name, content, None
        if data is not None:
            mime, content = _decoded(data, f"{at}.file_data")
            return part.get("filename") or "file", content, mime
        if url is not None:
            fetched = await self._fetcher.fetch(url, f"{at}.file_url")
            return part.get("filename") or fetched.name, fetched.data, fetched.mime
        raise InvalidRequest(f"{at} wants file_id, file_data or file_url", param=at)

    async def _kept(self, owner: str, id: str, param: str, *, most: int) -> tuple[str, bytes]:
        """Name and content of a file of the server."""
        try:
            file = await self._files.get(owner, id)
        except NotFound as error:
            raise InvalidRequest(f"{param}: {error}", param=param) from None
        if file["bytes"] > most:
            raise InvalidRequest(f"{param}: the file has {file['bytes']} bytes, at most {most} are read", param=param)
        return file["filename"], await self._files.read(owner, id)


def _parts_of(body: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """The files and images among the parts of a message or of what a tool gave, with where they stand."""
    for where in ("content", "output"):
        parts = body.get(where)
        if isinstance(parts, Mapping):
            parts = [parts]
        if isinstance(parts, list):
            for place, part in enumerate(parts):
                if part.get("type") == "input_file" or part.get("type") in _IMAGES:
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
