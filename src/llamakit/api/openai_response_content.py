"""What stands inside the items of OpenAI's Responses: text, images and files that go in, and what comes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.openai_annotations import Annotation
from llamakit.api.openai_messages import CacheBreakpoint, RefusalPart
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, Wire


class InputText(Wire):
    """Text that goes in."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputImage(Wire):
    """An image that goes in."""

    type: Literal["input_image"]
    detail: Literal["auto", "low", "high", "original"] | None = None
    """A hint: a model sees an image as finely as it can."""
    file_id: str | None = None
    """An image among the server's files."""
    image_url: str | None = None
    """A `data:` URL with the image itself, or an address that the server may fetch from."""
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputFile(Wire):
    """A file that goes in; a model is shown its text."""

    type: Literal["input_file"]
    detail: Literal["auto", "low", "high"] | None = None
    """A hint: pages are read to text, not shown as pictures."""
    file_data: str | None = None
    """A `data:` URL, or base64 alone."""
    file_id: str | None = None
    """One of the server's files."""
    file_url: str | None = None
    """An address that the server may fetch from."""
    filename: str | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class Screenshot(Wire):
    """A picture of a screen."""

    type: Literal["computer_screenshot"]
    detail: Literal["auto", "low", "high", "original"] | None = None
    file_id: str | None = None
    image_url: str | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class OutputTopLogprob(Wire):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int]


class OutputLogprob(Wire):
    """A token of the answer with its probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: Annotated[list[OutputTopLogprob], FIRST]


class OutputText(Wire):
    """Text that came out."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Annotation], FIRST] | None = None
    logprobs: Annotated[list[OutputLogprob], FIRST] | None = None


class PlainText(Wire):
    """Text of no direction."""

    type: Literal["text"]
    text: str


class SummaryText(Wire):
    """A summary of reasoning."""

    type: Literal["summary_text"]
    text: str


class ReasoningText(Wire):
    """Reasoning itself."""

    type: Literal["reasoning_text"]
    text: str


ContentPart = Annotated[
    InputText
    | InputImage
    | InputFile
    | OutputText
    | RefusalPart
    | PlainText
    | SummaryText
    | ReasoningText
    | Screenshot,
    Field(discriminator="type"),
]
Content = Annotated[Annotated[str, TEXT] | Annotated[list[ContentPart], FIRST, LIST], TEXT_OR_LIST]
ToolOutputPart = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]
ToolOutput = Annotated[Annotated[str, TEXT] | Annotated[list[ToolOutputPart], FIRST, LIST], TEXT_OR_LIST]
