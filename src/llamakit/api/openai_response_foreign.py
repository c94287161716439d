"""Items of tools that this server does not run, where a conversation began elsewhere: shells, patches, screens.

They are kept and shown as they came, and a model here reads them as calls of tools and what those gave
(`openai_response_history.py`). Nothing here makes one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.wire import FIRST, Texts, Wire

CallId = Annotated[str, Field(min_length=1, max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]


class Caller(Wire):
    """Who made a call: the model itself, or a program of the model's."""

    type: Literal["direct", "program"]
    caller_id: str | None = None
    """Id of the program."""


class ShellAction(Wire):
    """Commands for a shell."""

    commands: Texts
    max_output_length: int | None = None
    timeout_ms: int | None = None


class ShellSkill(Wire):
    """Something a shell knows how to do."""

    name: str
    description: str
    path: str


class ShellEnvironment(Wire):
    """Where a shell runs."""

    type: Literal["local", "container_reference"]
    container_id: str | None = None
    skills: Annotated[list[ShellSkill], FIRST] | None = None


class ShellCallItem(Wire):
    """Commands that a client ran."""

    type: Literal["shell_call"]
    call_id: CallId
    action: ShellAction
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    environment: ShellEnvironment | None = None
    status: Status | None = None


class ShellOutcome(Wire):
    """How a command ended."""

    type: Literal["timeout", "exit"]
    exit_code: int | None = None


class ShellOutput(Wire):
    """What a command printed."""

    outcome: ShellOutcome
    stdout: str
    stderr: str
    created_by: str | None = None


class ShellCallOutputItem(Wire):
    """What the commands printed."""

    type: Literal["shell_call_output"]
    call_id: CallId
    output: Annotated[list[ShellOutput], FIRST]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    max_output_length: int | None = None
    status: Status | None = None


class PatchOperation(Wire):
    """A change of one file."""

    type: Literal["create_file", "delete_file", "update_file"]
    path: str
    diff: str | None = None


class ApplyPatchCallItem(Wire):
    """A change of a file that a client made."""

    type: Literal["apply_patch_call"]
    call_id: CallId
    operation: PatchOperation
    status: Literal["in_progress", "completed"]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None


class ApplyPatchCallOutputItem(Wire):
    """What became of the change."""

    type: Literal["apply_patch_call_output"]
    call_id: CallId
    status: Literal["completed", "failed"]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    output: str | None = None


class ScreenPoint(Wire):
    """A place on a screen, in pixels."""

    x: int
    y: int


class ScreenAction(Wire):
    """Something done to a screen."""

    type: Literal["click", "double_click", "drag", "keypress", "move", "screenshot", "scroll", "type", "wait"]
    button: Literal["left", "right", "wheel", "back", "forward"] | None = None
    x: int | None = None
    y: int | None = None
    scroll_x: int | None = None
    scroll_y: int | None = None
    keys: Texts | None = None
    path: Annotated[list[ScreenPoint], FIRST] | None = None
    text: str | None = None


class SafetyCheck(Wire):
    """Something a person must agree to."""

    id: str
    code: str | None = None
    message: str | None = None


class ComputerCallItem(Wire):
    """What a client did to a screen."""

    type: Literal["computer_call"]
    call_id: CallId
    pending_safety_checks: Annotated[list[SafetyCheck], FIRST]
    status: Status
    id: str | None = None
    action: ScreenAction | None = None
    actions: Annotated[list[ScreenAction], FIRST] | None = None


class Screenshot(Wire):
    """A picture of the screen; models here do not see it."""

    type: Literal["computer_screenshot"]
    file_id: str | None = None
    image_url: str | None = None


class ComputerCallOutputItem(Wire):
    """The screen afterwards."""

    type: Literal["computer_call_output"]
    call_id: CallId
    output: Screenshot
    id: str | None = None
    acknowledged_safety_checks: Annotated[list[SafetyCheck], FIRST] | None = None
    created_by: str | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] | None = None


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


class ImageFault(Wire):
    """Why there is no image."""

    type: str
    message: str
    code: str | None = None
    param: str | None = None


class ImageUsage(Wire):
    """Tokens of a drawing."""

    model: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int


class ImageGenerationCallItem(Wire):
    """An image that another server made; models here do not see it."""

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
