"""The events of calls in a response's stream: what a call says, how far it is, and what it gave."""

from __future__ import annotations

from typing import Annotated, Literal

from llamakit.api.openai_event_parts import PlacedEvent, SequencedEvent
from llamakit.api.openai_machine_items import ShellOutput
from llamakit.api.wire import FIRST, Wire


class FunctionCallArgumentsDeltaEvent(PlacedEvent):
    """More of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    delta: str


class FunctionCallArgumentsDoneEvent(PlacedEvent):
    """The arguments are whole."""

    type: Literal["response.function_call_arguments.done"]
    arguments: str


class McpCallArgumentsDeltaEvent(PlacedEvent):
    """More of a call's arguments."""

    type: Literal["response.mcp_call_arguments.delta"]
    delta: str


class McpCallArgumentsDoneEvent(PlacedEvent):
    """The arguments are whole."""

    type: Literal["response.mcp_call_arguments.done"]
    arguments: str


class CustomCallInputDeltaEvent(PlacedEvent):
    """More of a free-form call's text."""

    type: Literal["response.custom_tool_call_input.delta"]
    delta: str


class CustomCallInputDoneEvent(PlacedEvent):
    """The text is whole."""

    type: Literal["response.custom_tool_call_input.done"]
    input: str


class InterpreterCodeDeltaEvent(PlacedEvent):
    """More code."""

    type: Literal["response.code_interpreter_call_code.delta"]
    delta: str


class InterpreterCodeDoneEvent(PlacedEvent):
    """The code is whole."""

    type: Literal["response.code_interpreter_call_code.done"]
    code: str


class WebSearchInProgressEvent(PlacedEvent):
    """The call was made."""

    type: Literal["response.web_search_call.in_progress"]


class WebSearchSearchingEvent(PlacedEvent):
    """The search runs."""

    type: Literal["response.web_search_call.searching"]


class WebSearchCompletedEvent(PlacedEvent):
    """The call has its result."""

    type: Literal["response.web_search_call.completed"]


class FileSearchInProgressEvent(PlacedEvent):
    """The call was made."""

    type: Literal["response.file_search_call.in_progress"]


class FileSearchSearchingEvent(PlacedEvent):
    """The search runs."""

    type: Literal["response.file_search_call.searching"]


class FileSearchCompletedEvent(PlacedEvent):
    """The call has its result."""

    type: Literal["response.file_search_call.completed"]


class CodeInterpreterInProgressEvent(PlacedEvent):
    """The call was made."""

    type: Literal["response.code_interpreter_call.in_progress"]


class CodeInterpreterInterpretingEvent(PlacedEvent):
    """The code runs."""

    type: Literal["response.code_interpreter_call.interpreting"]


class CodeInterpreterCompletedEvent(PlacedEvent):
    """The call has its result."""

    type: Literal["response.code_interpreter_call.completed"]


class McpCallInProgressEvent(PlacedEvent):
    """The call was made."""

    type: Literal["response.mcp_call.in_progress"]


class McpCallCompletedEvent(PlacedEvent):
    """The call has its result."""

    type: Literal["response.mcp_call.completed"]


class McpCallFailedEvent(PlacedEvent):
    """The call failed."""

    type: Literal["response.mcp_call.failed"]


class McpListToolsInProgressEvent(PlacedEvent):
    """A server is asked for its tools."""

    type: Literal["response.mcp_list_tools.in_progress"]


class McpListToolsCompletedEvent(PlacedEvent):
    """The tools are listed."""

    type: Literal["response.mcp_list_tools.completed"]


class McpListToolsFailedEvent(PlacedEvent):
    """The server did not list its tools."""

    type: Literal["response.mcp_list_tools.failed"]


class ImageInProgressEvent(PlacedEvent):
    """The call was made."""

    type: Literal["response.image_generation_call.in_progress"]


class ImageGeneratingEvent(PlacedEvent):
    """The image is drawn."""

    type: Literal["response.image_generation_call.generating"]


class ImagePartialEvent(PlacedEvent):
    """The image so far."""

    type: Literal["response.image_generation_call.partial_image"]
    partial_image_b64: str
    partial_image_index: int
    background: str | None = None
    output_format: str | None = None
    quality: str | None = None
    size: str | None = None


class ImageCompletedEvent(PlacedEvent):
    """The call has its result."""

    type: Literal["response.image_generation_call.completed"]


class CommandEvent(SequencedEvent):
    """Something about a command of a shell's call."""

    output_index: int
    command_index: int


class ShellCommandAddedEvent(CommandEvent):
    """A command begins."""

    type: Literal["response.shell_call_command.added"]
    command: str


class ShellCommandDeltaEvent(CommandEvent):
    """More of a command."""

    type: Literal["response.shell_call_command.delta"]
    delta: str
    obfuscation: str | None = None


class ShellCommandDoneEvent(CommandEvent):
    """The command is whole."""

    type: Literal["response.shell_call_command.done"]
    command: str


class ShellPrinted(Wire):
    """What a command printed."""

    stdout: str | None = None
    stderr: str | None = None


class ShellOutputDeltaEvent(PlacedEvent):
    """More of what a command printed."""

    type: Literal["response.shell_call_output_content.delta"]
    command_index: int
    delta: ShellPrinted


class ShellOutputDoneEvent(PlacedEvent):
    """A command ended."""

    type: Literal["response.shell_call_output_content.done"]
    command_index: int
    output: Annotated[list[ShellOutput], FIRST]


ToolEvent = (
    FunctionCallArgumentsDeltaEvent
    | FunctionCallArgumentsDoneEvent
    | McpCallArgumentsDeltaEvent
    | McpCallArgumentsDoneEvent
    | CustomCallInputDeltaEvent
    | CustomCallInputDoneEvent
    | InterpreterCodeDeltaEvent
    | InterpreterCodeDoneEvent
    | WebSearchInProgressEvent
    | WebSearchSearchingEvent
    | WebSearchCompletedEvent
    | FileSearchInProgressEvent
    | FileSearchSearchingEvent
    | FileSearchCompletedEvent
    | CodeInterpreterInProgressEvent
    | CodeInterpreterInterpretingEvent
    | CodeInterpreterCompletedEvent
    | McpCallInProgressEvent
    | McpCallCompletedEvent
    | McpCallFailedEvent
    | McpListToolsInProgressEvent
    | McpListToolsCompletedEvent
    | McpListToolsFailedEvent
    | ImageInProgressEvent
    | ImageGeneratingEvent
    | ImagePartialEvent
    | ImageCompletedEvent
    | ShellCommandAddedEvent
    | ShellCommandDeltaEvent
    | ShellCommandDoneEvent
    | ShellOutputDeltaEvent
    | ShellOutputDoneEvent
)
