"""Tools on the wire that work on a machine: shells, patches, screens; and those that need a model of another kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.openai_hosted_tools import Callers, NetworkPolicy
from llamakit.api.wire import FIRST, Wire

MAX_SKILLS = 64


class LocalSkill(Wire):
    """Something that the client's shell knows how to do; told to the model."""

    name: str
    description: str
    path: str
    """Folder of it, on the client's machine."""


class SkillReference(Wire):
    """A skill that a server keeps; none is kept here."""

    type: Literal["skill_reference"]
    skill_id: str
    version: str | None = None


class SkillSource(Wire):
    """A skill's archive."""

    type: Literal["base64"]
    media_type: Literal["application/zip"]
    data: str


class InlineSkill(Wire):
    """A skill that comes with the request: its files are put into the container."""

    type: Literal["inline"]
    name: str
    description: str
    source: SkillSource


Skill = Annotated[SkillReference | InlineSkill, Field(discriminator="type")]


class ContainerAuto(Wire):
    """A container of the response's own."""

    type: Literal["container_auto"]
    file_ids: Annotated[list[str], FIRST, Field(max_length=20)] | None = None
    """Files of the server that are copied into it."""
    memory_limit: Literal["1g", "4g", "16g", "64g"] | None = None
    network_policy: NetworkPolicy | None = None
    skills: Annotated[list[Skill], FIRST, Field(max_length=MAX_SKILLS)] | None = None


class LocalEnvironment(Wire):
    """The client's machine."""

    type: Literal["local"]
    skills: Annotated[list[LocalSkill], FIRST, Field(max_length=MAX_SKILLS)] | None = None


class ContainerReference(Wire):
    """A container that is there."""

    type: Literal["container_reference"]
    container_id: str


class ShellTool(Wire):
    """Commands of a shell, run in a container of this server or by the client."""

    type: Literal["shell"]
    allowed_callers: Callers | None = None
    environment: (
        Annotated[ContainerAuto | LocalEnvironment | ContainerReference, Field(discriminator="type")] | None
    ) = None
    """The client's machine where it is left out."""


class LocalShellTool(Wire):
    """Commands that the client runs, one at a time."""

    type: Literal["local_shell"]


class ApplyPatchTool(Wire):
    """Changes of files that the client makes."""

    type: Literal["apply_patch"]
    allowed_callers: Callers | None = None


class ComputerTool(Wire):
    """A screen that the client works on."""

    type: Literal["computer"]


class ComputerPreviewTool(Wire):
    """A screen of a known size that the client works on, one action at a time."""

    type: Literal["computer_use_preview"]
    display_height: int
    display_width: int
    environment: Literal["windows", "mac", "linux", "ubuntu", "browser"]


class ProgrammaticTool(Wire):
    """Programs that call tools. Refused: nothing here runs them."""

    type: Literal["programmatic_tool_calling"]


class ImageMask(Wire):
    """What of an image may change."""

    file_id: str | None = None
    image_url: str | None = None


class SvgReasoning(Wire):
    """How much an author of drawings thinks."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class SvgAuthor(Wire):
    """Who writes a drawing."""

    model: str | None = None
    reasoning: SvgReasoning | None = None


class ImageGenerationTool(Wire):
    """Images drawn by another service, where this server is given one."""

    type: Literal["image_generation"]
    action: Literal["generate", "edit", "auto"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    complexity: Literal["low", "medium", "high"] | None = None
    frame_count: int | None = None
    frame_duration_ms: int | None = None
    input_fidelity: Literal["high", "low"] | None = None
    input_image_mask: ImageMask | None = None
    model: str | None = None
    """Of the service; its own default when left out."""
    moderation: Literal["auto", "low"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    output_format: Literal["png", "webp", "jpeg", "gif", "svg"] | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto"] | None = None
    size: str | None = None
    svg: SvgAuthor | None = None


ClientMachineTool = LocalShellTool | ApplyPatchTool | ComputerTool | ComputerPreviewTool
