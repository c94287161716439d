"""OpenAI's stored chat completions on the wire: the list of them, and the messages of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from llamakit.api.openai_chat import (
    ChatCompletion,
    ChatCompletionRequest,
    ResponseFunction,
    ResponseToolCall,
)
from llamakit.api.openai_chat_options import ChatAnnotation, ChatAudio
from llamakit.api.openai_lists import MAX_ENTRIES
from llamakit.api.openai_messages import RefusalPart, UserPart
from llamakit.api.wire import FIRST, Wire
from llamakit.core.errors import InvalidRequest


class StoredChatCompletion(ChatCompletion):
    """A whole answer that was kept."""

    metadata: dict[str, str] | None = None
    input_messages: Annotated[list[dict[str, Any]], FIRST] | None = None
    """The messages that it answers, as they were sent (Llama Stack)."""


class WireStoredChats(Wire):
    """A page of kept answers."""

    object: Literal["list"]
    data: Annotated[list[StoredChatCompletion], FIRST]
    first_id: str
    last_id: str
    has_more: bool


class StoredMessage(Wire):
    """A message of the request that a kept answer answers."""

    id: str
    role: str
    content: str | None
    content_parts: Annotated[list[UserPart | RefusalPart], FIRST] | None = None
    name: str | None = None
    tool_calls: list[ResponseToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: list[ChatAnnotation] | None = None
    audio: ChatAudio | None = None
    function_call: ResponseFunction | None = None


class WireStoredMessages(Wire):
    """A page of messages."""

    object: Literal["list"]
    data: Annotated[list[StoredMessage], FIRST]
    first_id: str
    last_id: str
    has_more: bool


def to_stored_messages(wire: ChatCompletionRequest, id: str) -> list[dict[str, Any]]:
    """The messages of a request as they are kept; their ids follow from the answer's."""
    made = []
    for index, message in enumerate(wire.messages):
        fields = message.model_dump(exclude_none=True, by_alias=True)
        content = fields.pop("content", None)
        is_text = content is None or isinstance(content, str)
        made.append(
            {
                "id": f"{id}-{index}",
                "content": content if is_text else None,
                "content_parts": None if is_text else content,
                "refusal": None,
                **fields,
            }
        )
    return made


def read_metadata_filter(query: Mapping[str, str]) -> dict[str, str]:
    """The entries that `metadata[name]=value` of a query string asks for."""
    made = {
        key.removeprefix("metadata[").removesuffix("]"): value
        for key, value in query.items()
        if key.startswith("metadata[") and key.endswith("]")
    }
    if len(made) > MAX_ENTRIES:
        raise InvalidRequest(f"metadata filters by at most {MAX_ENTRIES} entries", param="metadata")
    return made


def page_of(messages: Sequence[dict[str, Any]], after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The next `limit` of a list after one id, and whether more follow; raises `InvalidRequest` for an unknown id."""
    begin = 0
    if after is not None:
        places = [index for index, message in enumerate(messages) if message["id"] == after]
        if not places:
            raise InvalidRequest(f"the list has no {after[:80]!r} to go on from", param="after")
        begin = places[0] + 1
    return list(messages[begin : begin + limit]), begin + limit < len(messages)


def input_messages(stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stored messages as they were sent."""
    made = []
    for message in stored:
        fields = {name: value for name, value in message.items() if name not in ("id", "content_parts", "refusal")}
        parts = message.get("content_parts")
        made.append({**fields, "content": message["content"] if parts is None else parts})
    return made
