"""Llama Stack's agents on the wire: what an agent is made of, and what a turn is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.data_url import read_data_url
from llamakit.api.llama_stack_content import (
    LlamaStackContent,
    LlamaStackItem,
    LlamaStackItems,
    LlamaStackTextItem,
    LlamaStackUrl,
    to_parts,
)
from llamakit.api.llama_stack_messages import LlamaStackToolMessage, LlamaStackUserMessage
from llamakit.api.llama_stack_sampling import LlamaStackFormat, LlamaStackSampling, to_sampling
from llamakit.api.llama_stack_tools import (
    LlamaStackPromptFormat,
    LlamaStackToolConfig,
    LlamaStackToolDef,
    to_spec,
)
from llamakit.api.wire import FIRST, LIST, TEXT, ModelName, Texts, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, Part, TextPart, ToolSpec

MAX_STEPS = 100
MAX_DOCUMENTS = 64


GroupName = Annotated[str, Field(min_length=1, max_length=256)]


class LlamaStackGroupUse(Wire):
    """A tool group, or a tool of one (`group/tool`), with settings for this use."""

    name: GroupName
    args: dict[str, Any]


def _text_or_object(value: Any) -> Literal["<text>", "<object>"] | None:
    if isinstance(value, str):
        return "<text>"
    return "<object>" if isinstance(value, dict | Wire) else None


LlamaStackGroup = Annotated[
    Annotated[GroupName, TEXT] | Annotated[LlamaStackGroupUse, Tag("<object>")],
    Discriminator(
        _text_or_object,
        custom_error_type="tool_group",
        custom_error_message="must be the id of a tool group, or an object of name and args",
    ),
]
LlamaStackGroups = Annotated[list[LlamaStackGroup], FIRST]


class LlamaStackAgentConfig(Wire):
    """What an agent is made of."""

    model: ModelName
    instructions: str
    """The system message of every turn."""
    name: Annotated[str, Field(max_length=256)] | None = None
    sampling_params: LlamaStackSampling | None = None
    input_shields: Texts | None = None
    """Shields that judge what a person says."""
    output_shields: Texts | None = None
    """Shields that judge what the model answers."""
    toolgroups: LlamaStackGroups | None = None
    client_tools: Annotated[list[LlamaStackToolDef], FIRST] | None = None
    """Tools that the client runs: a turn waits for what they give."""
    tool_choice: Literal["auto", "required", "none"] | None = None
    """Older form of `tool_config.tool_choice`."""
    tool_prompt_format: LlamaStackPromptFormat | None = None
    """A hint, set aside: a model calls tools in its own format."""
    tool_config: LlamaStackToolConfig | None = None
    max_infer_iters: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Most answers of the model in a turn; 10 when left out."""
    enable_session_persistence: bool | None = None
    """Set aside: sessions are always kept, until they are deleted."""
    response_format: LlamaStackFormat | None = None


class LlamaStackAgentRequest(Wire):
    """Body of `POST /v1/agents`."""

    agent_config: LlamaStackAgentConfig


class LlamaStackSessionRequest(Wire):
    """Body of `POST /v1/agents/{agent_id}/session`."""

    session_name: Annotated[str, Field(max_length=512)]


def _document_form(value: Any) -> Literal["<text>", "<list>", "<item>", "<url>"] | None:
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    if isinstance(value, dict):
        return "<item>" if "type" in value else "<url>"
    if isinstance(value, Wire):
        return "<url>" if isinstance(value, LlamaStackUrl) else "<item>"
    return None


class LlamaStackDocument(Wire):
    """Something to read with a turn."""

    content: Annotated[
        Annotated[str, TEXT]
        | Annotated[LlamaStackItems, LIST]
        | Annotated[LlamaStackItem, Tag("<item>")]
        | Annotated[LlamaStackUrl, Tag("<url>")],
        Discriminator(
            _document_form,
            custom_error_type="document",
            custom_error_message="must be a string, an object of type text or image or with a uri, or an array of them",
        ),
    ]
    mime_type: Annotated[str, Field(max_length=256)]


class LlamaStackTurnRequest(Wire):
    """Body of `POST .../turn`."""

    messages: Annotated[
        list[Annotated[LlamaStackUserMessage | LlamaStackToolMessage, Field(discriminator="role")]], FIRST
    ]
    stream: bool | None = None
    documents: Annotated[list[LlamaStackDocument], FIRST] | None = None
    """Read by the model behind the last message of the person; data URLs and texts."""
    toolgroups: LlamaStackGroups | None = None
    """Beside those of the agent."""
    tool_config: LlamaStackToolConfig | None = None
    """Instead of the agent's."""


class LlamaStackToolResponse(Wire):
    """What a tool of the client gave."""

    call_id: str
    tool_name: str | None = None
    """Accepted; the tool is known by the call."""
    content: LlamaStackContent
    metadata: dict[str, Any] | None = None
    role: Literal["tool"] | None = None


class LlamaStackResumeRequest(Wire):
    """Body of `POST .../turn/{turn_id}/resume`."""

    tool_responses: Annotated[list[LlamaStackToolResponse], FIRST]
    stream: bool | None = None


def client_specs(config: LlamaStackAgentConfig) -> tuple[ToolSpec, ...]:
    """The tools that the client runs."""
    param = "agent_config.client_tools"
    return tuple(to_spec(tool, f"{param}[{index}]") for index, tool in enumerate(config.client_tools or ()))


def sampling_of(config: LlamaStackAgentConfig) -> dict[str, Any]:
    """The sampling fields that the agent asks for."""
    return to_sampling(config.sampling_params, config.response_format, None)


def groups_of(*several: Sequence[str | LlamaStackGroupUse] | None) -> tuple[LlamaStackGroupUse, ...]:
    """All uses of groups; a later one of the same name takes the place of an earlier one."""
    made: dict[str, LlamaStackGroupUse] = {}
    for groups in several:
        for group in groups or ():
            use = LlamaStackGroupUse(name=group, args={}) if isinstance(group, str) else group
            made[use.name] = use
    return tuple(made.values())


def with_documents(messages: Sequence[Message], documents: Sequence[LlamaStackDocument] | None) -> tuple[Message, ...]:
    """The messages, the documents read behind the last one of the person; raises `InvalidRequest`."""
    if not documents:
        return tuple(messages)
    if len(documents) > MAX_DOCUMENTS:
        raise InvalidRequest(
            f"documents holds {len(documents)}, at most {MAX_DOCUMENTS}; put more into a vector store",
            param="documents",
        )
    places = [index for index, message in enumerate(messages) if message.role == "user"]
    if not places:
        raise InvalidRequest("documents need a message of role user to go with", param="documents")
    last = places[-1]
    parts: list[Part] = list(messages[last].content)
    for index, document in enumerate(documents):
        parts += _read(document, f"documents[{index}]")
    read = Message(role="user", content=tuple(parts), name=messages[last].name)
    return (*messages[:last], read, *messages[last + 1 :])


def set_aside(config: LlamaStackAgentConfig) -> tuple[str, ...]:
    """Known fields of an agent that have no effect here."""
    asked = {
        "tool_prompt_format": config.tool_prompt_format is not None,
        "tool_config.tool_prompt_format": config.tool_config is not None
        and config.tool_config.tool_prompt_format is not None,
        "enable_session_persistence": config.enable_session_persistence is False,
    }
    return tuple(f"agent_config.{name}" for name, is_asked in asked.items() if is_asked)


def _read(document: LlamaStackDocument, param: str) -> tuple[Part, ...]:
    content = document.content
    if isinstance(content, LlamaStackUrl):
        parts = _from_url(content.uri, param)
    elif isinstance(content, str | LlamaStackTextItem):
        parts = (TextPart(text=content if isinstance(content, str) else content.text),)
    else:
        parts = to_parts(content, f"{param}.content")
    return (TextPart(text="\n\n"), *parts)


def _from_url(uri: str, param: str) -> tuple[Part, ...]:
    """Text or an image in a data URL."""
    mime, data = read_data_url(uri, f"{param}.content.uri")
    if mime.startswith("image/"):
        return (ImagePart(data=data, mime=mime),)
    try:
        return (TextPart(text=data.decode("utf-8")),)
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{param}.content.uri holds {mime}, which is not text; put such files into a vector store "
            "and give the agent builtin::rag",
            param=f"{param}.content.uri",
        ) from None
