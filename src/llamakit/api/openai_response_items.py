"""The items of OpenAI's Responses and Conversations: what was said, called and answered, on the wire.

An item that is kept has an id of ours and every field its readers want (`to_stored`). What a model makes of
a list of items is next door, in `openai_response_history.py`.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.openai_context_items import (
    AdditionalToolsItem,
    CompactionItem,
    CompactionTriggerItem,
    ConfigurationUpdateItem,
    ToolSearchCallItem,
    ToolSearchOutputItem,
)
from llamakit.api.openai_foreign_items import ImageGenerationCallItem, ProgramItem, ProgramOutputItem
from llamakit.api.openai_hosted_items import (
    CodeInterpreterCallItem,
    FileSearchCallItem,
    McpApprovalRequestItem,
    McpApprovalResponseItem,
    McpCallItem,
    McpListToolsItem,
    WebSearchCallItem,
)
from llamakit.api.openai_item_parts import Caller, CallId, Status
from llamakit.api.openai_machine_items import (
    ApplyPatchCallItem,
    ApplyPatchCallOutputItem,
    ComputerCallItem,
    ComputerCallOutputItem,
    LocalShellCallItem,
    LocalShellCallOutputItem,
    ShellCallItem,
    ShellCallOutputItem,
)
from llamakit.api.openai_response_content import Content, ReasoningText, SummaryText, ToolOutput
from llamakit.api.openai_response_tools import tools_body
from llamakit.api.wire import FIRST, Wire, WireRoot

Phase = Literal["commentary", "final_answer"]


class MessageItem(Wire):
    """Something said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] | None = None
    id: str | None = None
    status: Status | None = None
    phase: Phase | None = None
    """Whether an assistant's message stands before tool calls or is the answer."""


class FunctionCallItem(Wire):
    """A call of a function that the client runs."""

    type: Literal["function_call"]
    call_id: CallId
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None
    caller: Caller | None = None
    namespace: str | None = None
    async_: bool | None = Field(default=None, alias="async")
    created_by: str | None = None


class FunctionCallOutputItem(Wire):
    """What the function answered."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: ToolOutput
    id: str | None = None
    status: Status | None = None
    caller: Caller | None = None
    name: str | None = None
    namespace: str | None = None
    created_by: str | None = None


class CustomCallItem(Wire):
    """A call of a free-form tool that the client runs."""

    type: Literal["custom_tool_call"]
    call_id: CallId
    name: str
    input: str
    id: str | None = None
    status: Status | None = None
    caller: Caller | None = None
    namespace: str | None = None
    async_: bool | None = Field(default=None, alias="async")
    created_by: str | None = None


class CustomCallOutputItem(Wire):
    """What the free-form tool answered."""

    type: Literal["custom_tool_call_output"]
    call_id: CallId
    output: ToolOutput
    id: str | None = None
    status: Status | None = None
    caller: Caller | None = None
    created_by: str | None = None


class ReasoningItem(Wire):
    """How a model came to its answer; kept, and not shown to models here."""

    type: Literal["reasoning"]
    summary: Annotated[list[SummaryText], FIRST]
    id: str | None = None
    content: Annotated[list[ReasoningText], FIRST] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class ItemReference(Wire):
    """An item that this server keeps, by its id."""

    id: str
    type: Literal["item_reference"] | None = None


ITEM_KINDS: dict[str, type[Wire]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": CustomCallOutputItem,
    "reasoning": ReasoningItem,
    "compaction": CompactionItem,
    "item_reference": ItemReference,
    "web_search_call": WebSearchCallItem,
    "file_search_call": FileSearchCallItem,
    "code_interpreter_call": CodeInterpreterCallItem,
    "mcp_list_tools": McpListToolsItem,
    "mcp_call": McpCallItem,
    "mcp_approval_request": McpApprovalRequestItem,
    "mcp_approval_response": McpApprovalResponseItem,
    "shell_call": ShellCallItem,
    "shell_call_output": ShellCallOutputItem,
    "apply_patch_call": ApplyPatchCallItem,
    "apply_patch_call_output": ApplyPatchCallOutputItem,
    "computer_call": ComputerCallItem,
    "computer_call_output": ComputerCallOutputItem,
    "program": ProgramItem,
    "program_output": ProgramOutputItem,
    "image_generation_call": ImageGenerationCallItem,
    "local_shell_call": LocalShellCallItem,
    "local_shell_call_output": LocalShellCallOutputItem,
    "tool_search_call": ToolSearchCallItem,
    "tool_search_output": ToolSearchOutputItem,
    "additional_tools": AdditionalToolsItem,
    "configuration_update": ConfigurationUpdateItem,
    "compaction_trigger": CompactionTriggerItem,
}


def _kind(value: Any) -> str | None:
    """The type of an item; a message may leave it out, and so may a reference."""
    if isinstance(value, Wire):
        value = {"type": value.__dict__.get("type"), **value.__dict__}
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind is None:
        kind = "message" if "role" in value else "item_reference" if "id" in value else None
    return kind if isinstance(kind, str) and kind in ITEM_KINDS else None


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[CustomCallOutputItem, Tag("custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[WebSearchCallItem, Tag("web_search_call")]
    | Annotated[FileSearchCallItem, Tag("file_search_call")]
    | Annotated[CodeInterpreterCallItem, Tag("code_interpreter_call")]
    | Annotated[McpListToolsItem, Tag("mcp_list_tools")]
    | Annotated[McpCallItem, Tag("mcp_call")]
    | Annotated[McpApprovalRequestItem, Tag("mcp_approval_request")]
    | Annotated[McpApprovalResponseItem, Tag("mcp_approval_response")]
    | Annotated[ShellCallItem, Tag("shell_call")]
    | Annotated[ShellCallOutputItem, Tag("shell_call_output")]
    | Annotated[ApplyPatchCallItem, Tag("apply_patch_call")]
    | Annotated[ApplyPatchCallOutputItem, Tag("apply_patch_call_output")]
    | Annotated[ComputerCallItem, Tag("computer_call")]
    | Annotated[ComputerCallOutputItem, Tag("computer_call_output")]
    | Annotated[ProgramItem, Tag("program")]
    | Annotated[ProgramOutputItem, Tag("program_output")]
    | Annotated[ImageGenerationCallItem, Tag("image_generation_call")]
    | Annotated[LocalShellCallItem, Tag("local_shell_call")]
    | Annotated[LocalShellCallOutputItem, Tag("local_shell_call_output")]
    | Annotated[ToolSearchCallItem, Tag("tool_search_call")]
    | Annotated[ToolSearchOutputItem, Tag("tool_search_output")]
    | Annotated[AdditionalToolsItem, Tag("additional_tools")]
    | Annotated[ConfigurationUpdateItem, Tag("configuration_update")]
    | Annotated[CompactionTriggerItem, Tag("compaction_trigger")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message=f"must be an item whose type is one of {', '.join(ITEM_KINDS)}",
    ),
]
InputItems = Annotated[list[InputItem], FIRST]


class WireItem(WireRoot[InputItem]):
    """One item."""


_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
    "reasoning": "rs_",
    "compaction": "cmp_",
    "web_search_call": "ws_",
    "file_search_call": "fs_",
    "code_interpreter_call": "ci_",
    "mcp_list_tools": "mcpl_",
    "mcp_call": "mcp_",
    "mcp_approval_request": "mcpr_",
    "mcp_approval_response": "mcpa_",
    "shell_call": "sh_",
    "shell_call_output": "sho_",
    "apply_patch_call": "apc_",
    "apply_patch_call_output": "apco_",
    "computer_call": "cu_",
    "computer_call_output": "cuo_",
    "program": "prog_",
    "program_output": "progo_",
    "image_generation_call": "ig_",
    "local_shell_call": "lsh_",
    "local_shell_call_output": "lsho_",
    "tool_search_call": "tsc_",
    "tool_search_output": "tso_",
    "additional_tools": "at_",
    "configuration_update": "cfg_",
    "compaction_trigger": "ct_",
}
WITH_TOOLS = ("tool_search_output", "additional_tools")
"""Items that bring tools along."""
_WITH_STATUS = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "tool_search_call",
    "tool_search_output",
)


def new_item_id(kind: str) -> str:
    """A fresh id of an item."""
    return _PREFIXES[kind] + secrets.token_hex(24)


def item_id_of(kind: str, response_id: str, position: int) -> str:
    """The id of the item at `position` of a response's output.

    It follows from the response's own random id, so that a response that is computed again after a crash
    gives its items the names that its readers know.
    """
    return _PREFIXES[kind] + hashlib.sha256(f"{response_id}/{position}".encode()).hexdigest()[:48]


def to_stored(item: Wire) -> dict[str, Any]:
    """An item as it is kept and shown: an id of ours, a status, and content as parts.

    Ids that clients send are not kept: two clients, or two requests of one, may send the same. What they say
    beside being ids is: a local shell's output names its call by them.
    """
    made = item.model_dump(exclude_none=True, by_alias=True)
    kind = made.get("type") or "message"
    if kind == "local_shell_call_output" and "id" in made:
        made.setdefault("call_id", made["id"])
    made = {"id": new_item_id(kind), "type": kind, **{key: made[key] for key in made if key not in ("id", "type")}}
    if kind == "message":
        made["content"] = _parts(made["role"], made["content"])
    if "tools" in made and kind in WITH_TOOLS:
        made["tools"] = tools_body(item.tools)  # pyright: ignore[reportAttributeAccessIssue]
    if kind in _WITH_STATUS:
        made.setdefault("status", "completed")
    return made


def user_item(text: str) -> dict[str, Any]:
    """What a plain input text is kept as."""
    return to_stored(MessageItem(role="user", content=text))


def output_text(text: str) -> dict[str, Any]:
    """A part of an assistant's message, with the lists that its readers want."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _parts(role: str, content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [output_text(content) if role == "assistant" else {"type": "input_text", "text": content}]
    return [output_text("") | part if part["type"] == "output_text" else part for part in content]
