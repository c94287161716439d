"""Items of the tools that this server runs on the web, on files, on code and on MCP servers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT
from llamakit.api.wire import FIRST, TEXT, Wire


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
    """The tools that an MCP server offered, or why it offered none."""

    type: Literal["mcp_list_tools"]
    server_label: str
    tools: Annotated[list[McpTool], FIRST]
    id: str | None = None
    error: str | None = None


class McpProtocolFault(Wire):
    """The server did not speak as it should."""

    type: Literal["mcp_protocol_error"]
    code: int
    message: str


class McpToolFault(Wire):
    """The tool itself failed."""

    type: Literal["mcp_tool_execution_error", "tool_execution_error"]
    content: Any


class McpHttpFault(Wire):
    """The server could not be reached, or refused."""

    type: Literal["http_error"]
    code: int
    message: str


McpFault = Annotated[McpProtocolFault | McpToolFault | McpHttpFault, Field(discriminator="type")]


class McpCallItem(Wire):
    """A call of an MCP server's tool that this server made."""

    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    id: str | None = None
    approval_request_id: str | None = None
    error: Annotated[Annotated[str, TEXT] | Annotated[McpFault, OBJECT], WORD_OR_OBJECT] | None = None
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
