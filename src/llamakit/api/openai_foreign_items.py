"""Items of programs that call tools, and of images that were drawn: kept, listed, and told to a model in words.

Programs are made elsewhere; images, too, unless this server has a provider that draws.
"""

from __future__ import annotations

from typing import Literal

from llamakit.api.openai_item_parts import CallId
from llamakit.api.wire import Texts, Wire


class ProgramItem(Wire):
    """A program that calls tools."""

    type: Literal["program"]
    call_id: CallId
    code: str
    fingerprint: str
    id: str | None = None


class ProgramOutputItem(Wire):
    """What the program gave."""

    type: Literal["program_output"]
    call_id: CallId
    result: str
    status: Literal["completed", "incomplete"]
    id: str | None = None


class ImageModeration(Wire):
    """What an image was refused for."""

    categories: Texts
    moderation_stage: Literal["input", "output", "unknown"]


class ImageFault(Wire):
    """Why there is no image."""

    type: str
    message: str
    code: str | None = None
    param: str | None = None
    moderation_details: ImageModeration | None = None


class ImageUsage(Wire):
    """Tokens of a drawing."""

    model: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int


class ImageGenerationCallItem(Wire):
    """An image that was drawn; a model here is told of it, and does not see it."""

    type: Literal["image_generation_call"]
    status: Literal["in_progress", "completed", "generating", "failed"]
    result: str | None = None
    """The image, in base64."""
    id: str | None = None
    action: Literal["generate", "edit", "auto"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    error: ImageFault | None = None
    output_format: Literal["png", "webp", "jpeg", "gif", "svg"] | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto"] | None = None
    revised_prompt: str | None = None
    size: str | None = None
    svg_usage: ImageUsage | None = None
