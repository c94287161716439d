"""Our types beside those of the official client: every property it knows is one we know, or is named here."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from openai.types import chat, conversations, responses
from openai.types.chat import completion_list_params
from openai.types.responses import input_token_count_params, response_compact_params, response_create_params

from llamakit.api import (
    openai_context_items,
    openai_foreign_items,
    openai_hosted_items,
    openai_machine_items,
    openai_machine_tools,
    openai_response_content,
)
from llamakit.api import openai_response_items as items
from llamakit.api import openai_response_options as options
from llamakit.api import openai_response_resource as resource
from llamakit.api import openai_response_tools as tools
from llamakit.api import openai_responses as ours
from llamakit.api.openai_conversations import WireConversation, WireConversationItemsRequest, WireConversationRequest
from llamakit.api.openai_response_events import ResponseEvent
from llamakit.api.openai_stored_chats import StoredChatCompletion, StoredMessage

PAIRS = [
    (resource.WireResponse, responses.Response),
    (ours.ResponseRequest, response_create_params.ResponseCreateParamsBase),
    (ours.ResponseTokensRequest, input_token_count_params.InputTokenCountParams),
    (ours.ResponseTokens, responses.InputTokenCountResponse)
    if hasattr(responses, "InputTokenCountResponse")
    else (ours.ResponseTokens, None),
    (ours.CompactRequest, response_compact_params.ResponseCompactParams),
    (resource.CompactedResponse, responses.CompactedResponse),
    (resource.ResponseUsage, responses.ResponseUsage),
    (resource.ResponseFault, responses.ResponseError),
    (options.PromptReference, responses.ResponsePrompt),
    (options.TextConfig, responses.ResponseTextConfig),
    (openai_response_content.InputText, responses.ResponseInputText),
    (openai_response_content.InputImage, responses.ResponseInputImage),
    (openai_response_content.InputFile, responses.ResponseInputFile),
    (openai_response_content.OutputText, responses.ResponseOutputText),
    (openai_response_content.Screenshot, conversations.ComputerScreenshotContent),
    (items.MessageItem, responses.ResponseOutputMessage),
    (items.MessageItem, responses.EasyInputMessage),
    (items.FunctionCallItem, responses.ResponseFunctionToolCallItem),
    (items.FunctionCallOutputItem, responses.ResponseFunctionToolCallOutputItem),
    (items.CustomCallItem, responses.ResponseCustomToolCallItem),
    (items.ReasoningItem, responses.ResponseReasoningItem),
    (openai_context_items.CompactionItem, responses.ResponseCompactionItem),
    (openai_context_items.ToolSearchCallItem, responses.ResponseToolSearchCall),
    (openai_context_items.ToolSearchOutputItem, responses.ResponseToolSearchOutputItem),
    (openai_context_items.ConfigurationUpdateItem, responses.ResponseConfigurationUpdateItem),
    (openai_hosted_items.WebSearchCallItem, responses.ResponseFunctionWebSearch),
    (openai_hosted_items.FileSearchCallItem, responses.ResponseFileSearchToolCall),
    (openai_hosted_items.CodeInterpreterCallItem, responses.ResponseCodeInterpreterToolCall),
    (openai_hosted_items.McpListToolsItem, responses.response_item.McpListTools),
    (openai_hosted_items.McpCallItem, responses.response_item.McpCall),
    (openai_machine_items.ShellCallItem, responses.ResponseFunctionShellToolCall),
    (openai_machine_items.ShellCallOutputItem, responses.ResponseFunctionShellToolCallOutput),
    (openai_machine_items.LocalShellCallItem, responses.response_item.LocalShellCall),
    (openai_machine_items.LocalShellCallOutputItem, responses.response_item.LocalShellCallOutput),
    (openai_machine_items.ApplyPatchCallItem, responses.ResponseApplyPatchToolCall),
    (openai_machine_items.ApplyPatchCallOutputItem, responses.ResponseApplyPatchToolCallOutput),
    (openai_machine_items.ComputerCallItem, responses.ResponseComputerToolCall),
    (openai_machine_items.ComputerCallOutputItem, responses.ResponseComputerToolCallOutputItem),
    (openai_foreign_items.ImageGenerationCallItem, responses.response_item.ImageGenerationCall),
    (openai_foreign_items.ProgramItem, responses.response_item.Program),
    (openai_foreign_items.ProgramOutputItem, responses.response_item.ProgramOutput),
    (tools.ResponseFunctionTool, responses.FunctionTool),
    (tools.ResponseCustomTool, responses.CustomTool),
    (tools.NamespaceTool, responses.NamespaceTool),
    (tools.ToolSearchTool, responses.ToolSearchTool),
    (tools.FileSearchTool, responses.FileSearchTool),
    (tools.WebSearchTool, responses.WebSearchTool),
    (tools.McpServerTool, responses.tool.Mcp),
    (tools.CodeInterpreterTool, responses.tool.CodeInterpreter),
    (openai_machine_tools.ShellTool, responses.FunctionShellTool),
    (openai_machine_tools.ComputerPreviewTool, responses.ComputerUsePreviewTool),
    (openai_machine_tools.ImageGenerationTool, responses.tool.ImageGeneration),
    (WireConversation, conversations.Conversation),
    (WireConversationRequest, conversations.conversation_create_params.ConversationCreateParams),
    (WireConversationItemsRequest, conversations.item_create_params.ItemCreateParams),
    (StoredChatCompletion, chat.ChatCompletion),
    (StoredMessage, chat.ChatCompletionStoreMessage),
]
ABSENT = {
    # In the query string there, and accepted here.
    ("WireConversationItemsRequest", "include"),
}


def names_of(kind: Any) -> set[str]:
    """The wire names of a type's properties."""
    fields = getattr(kind, "model_fields", None)
    if fields is None:
        return set(typing.get_type_hints(kind))
    return {field.alias or name for name, field in fields.items()}


def missing() -> set[tuple[str, str]]:
    return {(mine.__name__, name) for mine, theirs in PAIRS if theirs for name in names_of(theirs) - names_of(mine)}


def test_every_property_is_known_or_named(capsys):
    total = sum(len(names_of(theirs)) for _, theirs in PAIRS if theirs)
    absent = missing()
    assert absent == ABSENT
    with capsys.disabled():
        print(f"\nproperties of the official client's types: {total - len(absent)} of {total} known")


def test_every_event_of_ours_is_one_of_theirs_with_its_properties(capsys):
    theirs = {kind.model_fields["type"].annotation.__args__[0]: kind for kind in members(responses.ResponseStreamEvent)}
    mine = {
        kind.model_fields["type"].annotation.__args__[0]: kind
        for kind in members(ResponseEvent.model_fields["root"].annotation)
    }
    assert set(mine) == set(theirs)
    for name, kind in mine.items():
        assert names_of(theirs[name]) <= names_of(kind), name
    with capsys.disabled():
        print(f"\nevents of the official client: {len(mine)} of {len(theirs)} known")


def members(union: Any) -> list[Any]:
    """The types of a union, however it is annotated."""
    if hasattr(union, "model_fields"):
        return [union]
    return [member for part in typing.get_args(union) for member in members(part)]


def test_queries_are_those_of_the_client():
    assert set(completion_list_params.CompletionListParams.__annotations__) == {
        "after",
        "limit",
        "metadata",
        "model",
        "order",
    }


@pytest.mark.parametrize("kind", [items.MessageItem, tools.ResponseFunctionTool])
def test_unknown_properties_are_kept(kind):
    assert kind.model_config["extra"] == "allow"
