"""Items that change what a model has to work with: tools that were found or added, another format, a short history."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_item_parts import CallId, Status
from llamakit.api.openai_response_options import ReasoningEffort, TextFormatJsonSchema
from llamakit.api.openai_response_tools import ResponseTools
from llamakit.api.openai_sampling import ResponseFormatText
from llamakit.api.wire import Wire

Execution = Literal["server", "client"]


class ToolSearchCallItem(Wire):
    """A search for tools."""

    type: Literal["tool_search_call"]
    arguments: Any
    call_id: CallId | None = None
    execution: Execution | None = None
    id: str | None = None
    status: Status | None = None
    created_by: str | None = None


class ToolSearchOutputItem(Wire):
    """The tools that were found: from here on the model may call them."""

    type: Literal["tool_search_output"]
    tools: ResponseTools
    call_id: CallId | None = None
    execution: Execution | None = None
    id: str | None = None
    status: Status | None = None
    created_by: str | None = None


class AdditionalToolsItem(Wire):
    """Tools that are there from here on."""

    type: Literal["additional_tools"]
    role: Literal["unknown", "user", "assistant", "system", "critic", "discriminator", "developer", "tool"]
    tools: ResponseTools
    id: str | None = None


class UpdatedReasoning(Wire):
    """How much to reason; a hint, set aside."""

    effort: ReasoningEffort | None = None


class UpdatedText(Wire):
    """Another format."""

    format: Annotated[ResponseFormatText | TextFormatJsonSchema, Field(discriminator="type")]


class ConfigurationUpdateItem(Wire):
    """Another configuration from here on; a request that says something itself is heard first."""

    type: Literal["configuration_update"]
    id: str | None = None
    reasoning: UpdatedReasoning | None = None
    text: UpdatedText | None = None


class CompactionItem(Wire):
    """A conversation so far, made short."""

    type: Literal["compaction"]
    encrypted_content: str
    id: str | None = None
    created_by: str | None = None


class CompactionTriggerItem(Wire):
    """Make the conversation before this short, now."""

    type: Literal["compaction_trigger"]
    id: str | None = None
