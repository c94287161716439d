"""Items of the tools that work on a machine: shells, patches of files, screens.

A shell runs in a container of this server or with the client; patches and screens are always the client's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from llamakit.api.openai_item_parts import Caller, CallId, Status
from llamakit.api.openai_machine_tools import LocalSkill
from llamakit.api.openai_response_content import Screenshot
from llamakit.api.wire import FIRST, Texts, Wire


class ShellAction(Wire):
    """Commands for a shell."""

    commands: Texts
    max_output_length: int | None = None
    timeout_ms: int | None = None


class ShellEnvironment(Wire):
    """Where a shell runs."""

    type: Literal["local", "container_reference"]
    container_id: str | None = None
    skills: Annotated[list[LocalSkill], FIRST] | None = None


class ShellCallItem(Wire):
    """Commands to be run, by the server in a container or by the client."""

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


class LocalShellAction(Wire):
    """A command with its arguments."""

    type: Literal["exec"]
    command: Texts
    env: dict[str, str]
    timeout_ms: int | None = None
    user: str | None = None
    working_directory: str | None = None


class LocalShellCallItem(Wire):
    """A command that the client runs."""

    type: Literal["local_shell_call"]
    call_id: CallId
    action: LocalShellAction
    status: Status
    id: str | None = None


class LocalShellCallOutputItem(Wire):
    """What the command gave."""

    type: Literal["local_shell_call_output"]
    output: str
    """JSON text, or any text."""
    id: str | None = None
    """Of the call; `call_id` says the same."""
    call_id: CallId | None = None
    status: Status | None = None


class PatchOperation(Wire):
    """A change of one file."""

    type: Literal["create_file", "delete_file", "update_file"]
    path: str
    diff: str | None = None


class ApplyPatchCallItem(Wire):
    """A change of a file that the client makes."""

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
    """What the client is to do to a screen."""

    type: Literal["computer_call"]
    call_id: CallId
    pending_safety_checks: Annotated[list[SafetyCheck], FIRST]
    status: Status
    id: str | None = None
    action: ScreenAction | None = None
    actions: Annotated[list[ScreenAction], FIRST] | None = None


class ComputerCallOutputItem(Wire):
    """The screen afterwards."""

    type: Literal["computer_call_output"]
    call_id: CallId
    output: Screenshot
    id: str | None = None
    acknowledged_safety_checks: Annotated[list[SafetyCheck], FIRST] | None = None
    created_by: str | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] | None = None
