"""What every format refuses in the same words: images, tools it has no notation for, an empty conversation."""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, ToolSpec
from llamakit.text.formats.format import FormatOptions


def check_messages(name: str, messages: Sequence[Message], options: FormatOptions) -> None:
    """InvalidRequest where no format of text could render `messages`."""
    if not messages:
        raise InvalidRequest("messages is empty; a conversation needs at least one", param="messages")
    if any(isinstance(part, ImagePart) for message in messages for part in message.content):
        raise InvalidRequest(f"the {name} format reads text only; a message holds an image", param="messages")
    caller = next((message for message in messages if message.tool_calls and message.role != "assistant"), None)
    if caller is not None:
        raise InvalidRequest(f"only assistant messages call tools; one of role {caller.role} does", param="messages")
    if options.continue_final_message and (messages[-1].role != "assistant" or messages[-1].tool_calls):
        raise InvalidRequest(
            "continue_final_message needs a last message of role assistant without tool calls", param="messages"
        )


def check_no_tools(name: str, messages: Sequence[Message], tools: Sequence[ToolSpec], options: FormatOptions) -> None:
    """InvalidRequest where the conversation has tools; for formats without a notation for them."""
    if tools or options.builtin_tools:
        raise InvalidRequest(f"the {name} format has no tools; the models of Llama 3.1 and later do", param="tools")
    if any(message.tool_calls or message.role == "tool" for message in messages):
        raise InvalidRequest(
            f"the {name} format has no words for tool calls and their results; leave them out", param="messages"
        )
    if options.date_block == "always":
        raise InvalidRequest(f"the {name} format has no date block; those of Llama 3.1 and later do")


def check_turns(name: str, messages: Sequence[Message], *, system: bool) -> None:
    """InvalidRequest unless user and assistant alternate, the user first; `system` allows one message before."""
    start = 1 if system and messages[0].role == "system" else 0
    for place, message in enumerate(messages[start:]):
        wanted = "assistant" if place % 2 else "user"
        if message.role != wanted:
            raise InvalidRequest(
                f"the {name} format wants {'an optional system message, then ' if system else ''}user and assistant "
                f"in turns; message {start + place} is from {message.role}, wanted {wanted}",
                param="messages",
            )
    if len(messages) == start:
        raise InvalidRequest(f"the {name} format wants a user message", param="messages")
