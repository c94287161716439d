"""Llama Stack's content: a text, one item, or a list of texts and images <-> the house's parts.

The same shape stands in messages, documents, chunks and tool results. Fetches nothing: an image is in the
request itself.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.images import to_image
from llamakit.api.wire import FIRST, LIST, TEXT, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Part, TextPart


class LlamaStackUrl(Wire):
    """An address, or a data URL."""

    uri: str


class LlamaStackImage(Wire):
    """An image as base64 or as a data URL; exactly one of them."""

    data: str | None = None
    url: LlamaStackUrl | None = None


class LlamaStackTextItem(Wire):
    """Text."""

    type: Literal["text"]
    text: str


class LlamaStackImageItem(Wire):
    """An image."""

    type: Literal["image"]
    image: LlamaStackImage


LlamaStackItem = Annotated[LlamaStackTextItem | LlamaStackImageItem, Field(discriminator="type")]
LlamaStackItems = Annotated[list[LlamaStackItem], FIRST]


def _form(value: Any) -> Literal["<text>", "<list>", "<item>"] | None:
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    return "<item>" if isinstance(value, dict | Wire) else None


CONTENT_FORM = Discriminator(
    _form,
    custom_error_type="content",
    custom_error_message="must be a string, an object of type text or image, or an array of such objects",
)
LlamaStackContent = Annotated[
    Annotated[str, TEXT] | Annotated[LlamaStackItems, LIST] | Annotated[LlamaStackItem, Tag("<item>")], CONTENT_FORM
]
"""Llama Stack's `InterleavedContent`."""


def to_parts(content: str | Wire | Sequence[Wire], param: str) -> tuple[Part, ...]:
    """The house's parts; raises `InvalidRequest` for an image that is not in the request."""
    if isinstance(content, str):
        return (TextPart(text=content),)
    if isinstance(content, Wire):
        return (_part(content, param),)
    return tuple(_part(item, f"{param}[{index}]") for index, item in enumerate(content))


def to_text(content: str | Wire | Sequence[Wire], param: str, why: str, *, between: str = "\n") -> str:
    """The text of content that may hold nothing else; `why` says who cannot read images."""
    parts = to_parts(content, param)
    for part in parts:
        if isinstance(part, ImagePart):
            raise InvalidRequest(f"{param}: {why} text, and no images", param=param)
    return between.join(part.text for part in parts if isinstance(part, TextPart))


def from_parts(parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    """Content of parts: plain text where there is nothing else."""
    items = [_item(part) for part in parts]
    if all(item["type"] == "text" for item in items):
        return "".join(item["text"] for item in items)
    return items


def _part(item: Wire, param: str) -> Part:
    if isinstance(item, LlamaStackTextItem):
        return TextPart(text=item.text)
    if not isinstance(item, LlamaStackImageItem):
        raise TypeError(f"content holds {item!r}, which is neither text nor an image")
    data, url = item.image.data, item.image.url
    if (data is None) == (url is None):
        raise InvalidRequest(f"{param}.image takes exactly one of data and url", param=f"{param}.image")
    if url is None:
        return to_image(data or "", f"{param}.image.data")
    head, comma, data = url.uri.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(
            f"{param}.image.url.uri must be a data URL such as data:image/png;base64,...; addresses are not fetched",
            param=f"{param}.image.url.uri",
        )
    kind = head.removeprefix("data:").removesuffix(";base64")
    return to_image(data, f"{param}.image.url.uri", kind=kind)


def _item(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image", "image": {"data": base64.b64encode(part.data).decode()}}
