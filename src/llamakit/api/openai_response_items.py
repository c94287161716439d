"""The items of OpenAI's Responses and Conversations: what was said, called and answered, on the wire.

An item that is kept has an id of ours and every field its readers want (`to_stored`). What a model makes of
a list of items is next door, in `openai_response_history.py`.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.openai_annotations import Annotation
from llamakit.api.openai_messages import CacheBreakpoint, RefusalPart
from llamakit.api.openai_response_foreign import (
    ApplyPatchCallItem,
    ApplyPatchCallOutputItem,
    Caller,
    ComputerCallItem,
    ComputerCallOutputItem,
    ImageGenerationCallItem,
    ProgramItem,
    ProgramOutputItem,
    ShellCallItem,
    ShellCallOutputItem,
)
from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, Wire, WireRoot

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Phase = Literal["commentary", "final_answer"]
Text = str
CallId = Annotated[str, Field(min_length=1, max_length=256)]


class InputText(Wire):
    """Text that goes in."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputImage(Wire):
    """An image that goes in."""

    type: Literal["input_image"]
    detail: Literal["auto", "low", "high", "original"] | None = None
    file_id: str | None = None
    image_url: str | None = None
    """A `data:` URL with the image itself; other addresses are not fetched."""
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputFile(Wire):
    """A file that goes in."""

    type: Literal["input_file"]
    detail: Literal["auto", "low", "high"] | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class OutputTopLogprob(Wire):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int]


class OutputLogprob(Wire):
    """A token of the answer with its probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: Annotated[list[OutputTopLogprob], FIRST]


class OutputText(Wire):
    """Text that came out."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Annotation], FIRST] | None = None
    logprobs: Annotated[list[OutputLogprob], FIRST] | None = None


class PlainText(Wire):
    """Text of no direction."""

    type: Literal["text"]
    text: str


class SummaryText(Wire):
    """A summary of reasoning."""

    type: Literal["summary_text"]
    text: str


class ReasoningText(Wire):
    """Reasoning itself."""

    type: Literal["reasoning_text"]
    text: str


ContentPart = Annotated[
    InputText | InputImage | InputFile | OutputText | RefusalPart | PlainText | SummaryText | ReasoningText,
    Field(discriminator="type"),
]
Content = Annotated[Annotated[str, TEXT] | Annotated[list[ContentPart], FIRST, LIST], TEXT_OR_LIST]
ToolOutputPart = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]
ToolOutput = Annotated[Annotated[str, TEXT] | Annotated[list[ToolOutputPart], FIRST, LIST], TEXT_OR_LIST]


class MessageItem(Wire):
    """Something said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] | None = None
    id: str | None = None
    status: ItemStatus | None = None
    phase: Phase | None = None
    """Whether an assistant's message stands before tool calls or is the answer."""


class FunctionCallItem(Wire):
    """A call of a function that the client runs."""

    type: Literal["function_call"]
    call_id: CallId
    name: str
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None
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
    status: ItemStatus | None = None
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
    status: ItemStatus | None = None
    caller: Caller | None = None
    namespace: str | None = None
    async_: bool | None = Field(default=None, alias="async")


class CustomCallOutputItem(Wire):
    """What the free-form tool answered."""

    type: Literal["custom_tool_call_output"]
    call_id: CallId
    output: ToolOutput
    id: str | None = None
    status: ItemStatus | None = None
    caller: Caller | None = None
    created_by: str | None = None


class ReasoningItem(Wire):
    """How a model came to its answer; kept, and not shown to models here."""

    type: Literal["reasoning"]
    summary: Annotated[list[SummaryText], FIRST]
    id: str | None = None
    content: Annotated[list[ReasoningText], FIRST] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class CompactionItem(Wire):
    """A conversation so far, made short by `POST /v1/responses/compact`."""

    type: Literal["compaction"]
    encrypted_content: str
    id: str | None = None
    created_by: str | None = None


class ItemReference(Wire):
    """An item that this server keeps, by its id."""

    id: str
    type: Literal["item_reference"] | None = None


class WebSearchSource(Wire):
    """A page that a search found."""

    type: Literal["url"]
    url: str


class WebSearchAction(Wire):
    """What a web search did."""

    type: Literal["search", "open_page", "find_in_page", "find"]
    query: str | None = None
    queries: list[str] | None = None
    sources: Annotated[list[WebSearchSource], FIRST] | None = None
    url: str | None = None
    pattern: str | None = None


class WebSearchCallItem(Wire):
    """A search of the web that this server made."""

    type: Literal["web_search_call"]
    status: Literal["in_progress", "searching", "completed", "failed"]
    id: str | None = None
    action: WebSearchAction | None = None


class FileSearchResult(Wire):
    """A passage that a search of files found."""

    attributes: dict[str, Any] | None = None
    file_id: str | None = None
    filename: str | None = None
    score: float | None = None
    text: str | None = None


class FileSearchCallItem(Wire):
    """A search of files that this server made."""

    type: Literal["file_search_call"]
    queries: list[str]
    status: Literal["in_progress", "searching", "completed", "incomplete", "failed"]
    id: str | None = None
    results: Annotated[list[FileSearchResult], FIRST] | None = None


class CodeOutput(Wire):
    """What an interpreter printed or drew."""

    type: Literal["logs", "image"]
    logs: str | None = None
    url: str | None = None


class CodeInterpreterCallItem(Wire):
    """Code that this server ran."""

    type: Literal["code_interpreter_call"]
    container_id: str
    status: Literal["in_progress", "completed", "incomplete", "interpreting", "failed"]
    code: str | None = None
    id: str | None = None
    outputs: Annotated[list[CodeOutput], FIRST] | None = None


class McpTool(Wire):
    """A tool of an MCP server."""

    name: str
    input_schema: dict[str, Any]
    annotations: dict[str, Any] | None = None
    description: str | None = None


class McpListToolsItem(Wire):
    """The tools that an MCP server offered."""

    type: Literal["mcp_list_tools"]
    server_label: str
    tools: Annotated[list[McpTool], FIRST]
    id: str | None = None
    error: str | None = None


class McpCallItem(Wire):
    """A call of an MCP server's tool that this server made."""

    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    id: str | None = None
    approval_request_id: str | None = None
    error: Any = None
    output: str | None = None
    status: Literal["in_progress", "completed", "incomplete", "calling", "failed"] | None = None


class McpApprovalRequestItem(Wire):
    """A call that waits for the client's word."""

    type: Literal["mcp_approval_request"]
    server_label: str
    name: str
    arguments: str
    id: str | None = None


class McpApprovalResponseItem(Wire):
    """The client's word."""

    type: Literal["mcp_approval_response"]
    approval_request_id: str
    approve: bool
    id: str | None = None
    reason: str | None = None


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
    | Annotated[ImageGenerationCallItem, Tag("image_generation_call")],
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
}
_WITH_STATUS = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
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

    Ids that clients send are not kept: two clients, or two requests of one, may send the same.
    """
    made = item.model_dump(exclude_none=True, by_alias=True)
    kind = made.get("type") or "message"
    made = {"id": new_item_id(kind), "type": kind, **{key: made[key] for key in made if key not in ("id", "type")}}
    if kind == "message":
        made["content"] = _parts(made["role"], made["content"])
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
