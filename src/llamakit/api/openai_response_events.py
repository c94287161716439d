"""The events of a response's stream on the wire: each type with the fields that the published API gives it."""

from __future__ import annotations

import secrets
import string
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_annotations import Annotation
from llamakit.api.openai_event_parts import (
    ContentEvent,
    ItemEvent,
    LifecycleEvent,
    PlacedEvent,
    SequencedEvent,
    SummaryEvent,
)
from llamakit.api.openai_messages import RefusalPart
from llamakit.api.openai_response_content import OutputLogprob, OutputText, ReasoningText, SummaryText
from llamakit.api.openai_tool_events import ToolEvent
from llamakit.api.wire import FIRST, WireRoot

PADDED_CHARS = 16
"""A piece and its padding together have a multiple of so many characters."""
_LETTERS = string.ascii_letters + string.digits
EventPart = Annotated[OutputText | RefusalPart | ReasoningText, Field(discriminator="type")]


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


class AudioDeltaEvent(SequencedEvent):
    """More sound; a server of text sends none."""

    type: Literal["response.audio.delta"]
    delta: str


class AudioDoneEvent(SequencedEvent):
    """The sound is whole."""

    type: Literal["response.audio.done"]


class AudioTranscriptDeltaEvent(SequencedEvent):
    """More of what was spoken; a server of text sends none."""

    type: Literal["response.audio.transcript.delta"]
    delta: str


class AudioTranscriptDoneEvent(SequencedEvent):
    """What was spoken is whole."""

    type: Literal["response.audio.transcript.done"]


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
    | SummaryPartAddedEvent
    | SummaryPartDoneEvent
    | SummaryTextDeltaEvent
    | SummaryTextDoneEvent
    | ReasoningTextDeltaEvent
    | ReasoningTextDoneEvent
    | AudioDeltaEvent
    | AudioDoneEvent
    | AudioTranscriptDeltaEvent
    | AudioTranscriptDoneEvent
    | ToolEvent
    | CompactingEvent
    | ResponseErrorEvent,
    Field(discriminator="type"),
]


class ResponseEvent(WireRoot[AnyResponseEvent]):
    """An event of a response's stream."""


def obfuscated(event: dict[str, Any]) -> dict[str, Any]:
    """The event with random padding beside its piece of text, so that who sees only lengths learns little of it."""
    text = event.get("delta")
    if not event["type"].endswith(".delta") or not isinstance(text, str):
        return event
    length = PADDED_CHARS - len(text) % PADDED_CHARS
    return event | {"obfuscation": "".join(secrets.choice(_LETTERS) for _ in range(length))}
