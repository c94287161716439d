"""The tools that the server runs, as a request for a response names them, and the settings their providers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field

from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT, ToolName
from llamakit.api.vector_search import WireFilter, WireRanking
from llamakit.api.wire import FIRST, LIST, TEXT, Wire
from llamakit.core.errors import InvalidRequest

MAX_NAMES = 512
Callers = list[Literal["direct", "programmatic"]]
Names = Annotated[list[str], FIRST, Field(max_length=MAX_NAMES)]


class FileSearchTool(Wire):
    """A search of vector stores, made by the server."""

    type: Literal["file_search"]
    vector_store_ids: Annotated[list[str], FIRST]
    filters: WireFilter | None = None
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    ranking_options: WireRanking | None = None


class WebSearchFilters(Wire):
    """Where results may come from."""

    allowed_domains: Names | None = None
    """These domains and what is below them."""
    blocked_domains: Names | None = None
    """None of these (extension)."""


class WebSearchLocation(Wire):
    """Where the person is, roughly."""

    type: Literal["approximate"] | None = None
    city: str | None = None
    country: Annotated[str, Field(pattern="^[A-Za-z]{2}$")] | None = None
    """Two letters; used where the search service takes a country. The rest is a hint, set aside."""
    region: str | None = None
    timezone: str | None = None


class WebSearchTool(Wire):
    """A search of the web, made by the server."""

    type: Literal["web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"]
    external_web_access: bool | None = None
    """False is refused: no copy of the web is kept here."""
    filters: WebSearchFilters | None = None
    search_content_types: Annotated[list[Literal["text", "image"]], FIRST] | None = None
    """Only text is searched for."""
    search_context_size: Literal["low", "medium", "high"] | None = None
    """3, 5 or 10 results."""
    user_location: WebSearchLocation | None = None


class DomainSecret(Wire):
    """A secret for a domain."""

    domain: str
    name: str
    value: str


class NetworkPolicy(Wire):
    """What code may reach: nothing."""

    type: Literal["disabled", "allowlist"]
    """An allow list is refused."""
    allowed_domains: Names | None = None
    domain_secrets: Annotated[list[DomainSecret], FIRST] | None = None


class AutoContainer(Wire):
    """A container of the response's own."""

    type: Literal["auto"]
    file_ids: Annotated[list[str], FIRST, Field(max_length=20)] | None = None
    """Files of the server that are copied into it."""
    memory_limit: Literal["1g", "4g", "16g", "64g"] | None = None
    network_policy: NetworkPolicy | None = None


class CodeInterpreterTool(Wire):
    """Code that the server runs."""

    type: Literal["code_interpreter"]
    container: Annotated[Annotated[str, TEXT] | Annotated[AutoContainer, OBJECT], WORD_OR_OBJECT]
    """The id of one, or a new one."""
    allowed_callers: Callers | None = None


class McpToolFilter(Wire):
    """Tools of an MCP server."""

    tool_names: Names | None = None
    read_only: bool | None = None
    """Only those that say of themselves that they change nothing."""


class McpApprovalRules(Wire):
    """Which tools the client must allow first; `never` alone means all others, `always` alone means no other."""

    always: McpToolFilter | None = None
    never: McpToolFilter | None = None


def _names_or_object(value: Any) -> Literal["<list>", "<object>"] | None:
    if isinstance(value, list):
        return "<list>"
    return "<object>" if isinstance(value, dict | Wire) else None


_NAMES_OR_OBJECT = Discriminator(
    _names_or_object, custom_error_type="names_or_object", custom_error_message="must be an array or an object"
)


class McpServerTool(Wire):
    """The tools of an MCP server, called by this server."""

    type: Literal["mcp"]
    server_label: ToolName
    server_url: str | None = None
    server_description: str | None = None
    allowed_callers: Callers | None = None
    allowed_tools: Annotated[
        Annotated[Names, LIST] | Annotated[McpToolFilter, OBJECT], _NAMES_OR_OBJECT
    ] | None = None  # fmt: skip
    authorization: str | None = None
    connector_id: str | None = None
    """A tool group of the server's configuration, instead of a URL."""
    defer_loading: bool | None = None
    headers: dict[str, str] | None = None
    require_approval: Annotated[
        Annotated[Literal["always", "never"], TEXT] | Annotated[McpApprovalRules, OBJECT], WORD_OR_OBJECT
    ] | None = None  # fmt: skip
    """`always` when left out; for a configured server, what its configuration says."""
    tunnel_id: str | None = None


def check_keepable(tools: Sequence[Wire]) -> None:
    """Refuse to keep a request that brings credentials: what a database holds, its backups hold too."""
    for index, tool in enumerate(tools):
        if isinstance(tool, McpServerTool) and (tool.authorization or tool.headers):
            name = "authorization" if tool.authorization else "headers"
            raise InvalidRequest(
                f"tools[{index}].{name}: a response in the background is kept, and credentials are not; configure the "
                "server as a tool group and name it by connector_id, or ask without background",
                param=f"tools[{index}].{name}",
            )


def settings_of(tool: Wire) -> dict[str, Any]:
    """What a provider is told: the fields that are known, without those that ask for nothing."""
    made = _known(tool)
    return {name: value for name, value in made.items() if name not in ("allowed_callers", "defer_loading")}


def _known(value: Any) -> Any:
    """The value without keys nobody knows: those were named to the client, and have no effect."""
    if isinstance(value, Wire):
        return {
            name: _known(field) for name in type(value).model_fields if (field := value.__dict__.get(name)) is not None
        }
    return [_known(one) for one in value] if isinstance(value, list) else value
