"""The events of a response's stream on the wire: each type with the fields that the published API gives it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.openai_messages import RefusalPart
from llamakit.api.openai_response_items import (
    Annotation,
    InputItem,
    OutputLogprob,
    OutputText,
    ReasoningText,
    SummaryText,
)
from llamakit.api.openai_responses import WireResponse
from llamakit.api.wire import FIRST, Wire, WireRoot

EventPart = Annotated[OutputText | RefusalPart | ReasoningText, Field(discriminator="type")]


class SequencedEvent(Wire):
    """What every event has."""

    sequence_number: int
    """Place in the stream, counted from 0 without a gap."""


class LifecycleEvent(SequencedEvent):
    """A step in the life of a response."""

    response: WireResponse


class ItemEvent(SequencedEvent):
    """Something about a whole item."""

    output_index: int
    item: InputItem


class PlacedEvent(SequencedEvent):
    """Something about an item."""

    item_id: str
    output_index: int


class ContentEvent(PlacedEvent):
    """Something about a part of a message."""

    content_index: int


class SummaryEvent(PlacedEvent):
    """Something about a part of a summary of reasoning."""

    summary_index: int


class ResponseCreatedEvent(LifecycleEvent):
    """The response was begun."""

    type: Literal["response.created"]


class ResponseQueuedEvent(LifecycleEvent):
    """The response waits for its turn."""

    type: Literal["response.queued"]


class ResponseInProgressEvent(LifecycleEvent):
    """The response is being made."""

    type: Literal["response.in_progress"]


class ResponseCompletedEvent(LifecycleEvent):
    """The response is whole."""

    type: Literal["response.completed"]


class ResponseIncompleteEvent(LifecycleEvent):
    """The response ended early."""

    type: Literal["response.incomplete"]


class ResponseFailedEvent(LifecycleEvent):
    """The response failed."""

    type: Literal["response.failed"]


class OutputItemAddedEvent(ItemEvent):
    """An item begins."""

    type: Literal["response.output_item.added"]


class OutputItemDoneEvent(ItemEvent):
    """An item is whole."""

    type: Literal["response.output_item.done"]


class ContentPartAddedEvent(ContentEvent):
    """A part of a message begins."""

    type: Literal["response.content_part.added"]
    part: EventPart


class ContentPartDoneEvent(ContentEvent):
    """A part of a message is whole."""

    type: Literal["response.content_part.done"]
    part: EventPart


class OutputTextDeltaEvent(ContentEvent):
    """More text."""

    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: Annotated[list[OutputLogprob], FIRST]


class OutputTextDoneEvent(ContentEvent):
    """The text is whole."""

    type: Literal["response.output_text.done"]
    text: str
    logprobs: Annotated[list[OutputLogprob], FIRST]


class AnnotationAddedEvent(ContentEvent):
    """The text cites something."""

    type: Literal["response.output_text.annotation.added"]
    annotation_index: int
    annotation: Annotation


class RefusalDeltaEvent(ContentEvent):
    """More of a refusal."""

    type: Literal["response.refusal.delta"]
    delta: str


class RefusalDoneEvent(ContentEvent):
    """The refusal is whole."""

    type: Literal["response.refusal.done"]
    refusal: str


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


class SummaryPartAddedEvent(SummaryEvent):
    """A part of a summary begins."""

    type: Literal["response.reasoning_summary_part.added"]
    part: SummaryText


class SummaryPartDoneEvent(SummaryEvent):
    """A part of a summary is whole."""

    type: Literal["response.reasoning_summary_part.done"]
    part: SummaryText
    status: Literal["incomplete"] | None = None


class SummaryTextDeltaEvent(SummaryEvent):
    """More of a summary."""

    type: Literal["response.reasoning_summary_text.delta"]
    delta: str


class SummaryTextDoneEvent(SummaryEvent):
    """The summary is whole."""

    type: Literal["response.reasoning_summary_text.done"]
    text: str


class ReasoningTextDeltaEvent(ContentEvent):
    """More reasoning."""

    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningTextDoneEvent(ContentEvent):
    """The reasoning is whole."""

    type: Literal["response.reasoning_text.done"]
    text: str


class CompactingEvent(PlacedEvent):
    """The conversation is made short."""

    type: Literal["response.compaction.compacting"]


class ResponseErrorEvent(SequencedEvent):
    """The stream ends with an error."""

    type: Literal["error"]
    message: str
    code: str | None
    param: str | None


AnyResponseEvent = Annotated[
    ResponseCreatedEvent
    | ResponseQueuedEvent
    | ResponseInProgressEvent
    | ResponseCompletedEvent
    | ResponseIncompleteEvent
    | ResponseFailedEvent
    | OutputItemAddedEvent
    | OutputItemDoneEvent
    | ContentPartAddedEvent
    | ContentPartDoneEvent
    | OutputTextDeltaEvent
    | OutputTextDoneEvent
    | AnnotationAddedEvent
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | FunctionCallArgumentsDeltaEvent
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
    | SummaryPartAddedEvent
    | SummaryPartDoneEvent
    | SummaryTextDeltaEvent
    | SummaryTextDoneEvent
    | ReasoningTextDeltaEvent
    | ReasoningTextDoneEvent
    | CompactingEvent
    | ResponseErrorEvent,
    Field(discriminator="type"),
]


class ResponseEvent(WireRoot[AnyResponseEvent]):
    """An event of a response's stream."""
