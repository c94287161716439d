"""What a stretch of an answer rests on, as OpenAI spells it: files, pages of the web, files of a container."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.wire import Wire


class FileCitation(Wire):
    """A file that a stretch of text rests on."""

    type: Literal["file_citation"]
    file_id: str
    filename: str
    index: int
    page: int | None = None
    """Page, slide or sheet of the document (extension)."""
    span: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    """First character and one past the last, counted within the page (extension)."""


class UrlCitation(Wire):
    """A page that a stretch of text rests on."""

    type: Literal["url_citation"]
    url: str
    title: str
    start_index: int
    end_index: int


class ContainerFileCitation(Wire):
    """A file of an interpreter's container that a stretch of text speaks of."""

    type: Literal["container_file_citation"]
    container_id: str
    file_id: str
    filename: str
    start_index: int
    end_index: int


class FilePath(Wire):
    """A file that was written."""

    type: Literal["file_path"]
    file_id: str
    index: int


Annotation = Annotated[FileCitation | UrlCitation | ContainerFileCitation | FilePath, Field(discriminator="type")]
