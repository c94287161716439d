"""What the events of a response's stream are made of."""

from __future__ import annotations

from llamakit.api.openai_response_items import InputItem
from llamakit.api.openai_response_resource import WireResponse
from llamakit.api.wire import Wire


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
