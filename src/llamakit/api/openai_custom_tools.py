"""OpenAI's free-form tools on the wire: their names, and what the text they are called with must look like.

Chats and Responses spell the same grammar in two ways.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.wire import Wire

Syntax = Literal["lark", "regex"]


class CustomText(Wire):
    """Any text."""

    type: Literal["text"]


class CustomGrammar(Wire):
    """Text of a grammar, as Responses spell it."""

    type: Literal["grammar"]
    definition: str
    syntax: Syntax


class ChatGrammar(Wire):
    """A grammar."""

    definition: str
    syntax: Syntax


class ChatCustomGrammar(Wire):
    """Text of a grammar, as chats spell it."""

    type: Literal["grammar"]
    grammar: ChatGrammar


CustomFormat = Annotated[CustomText | CustomGrammar, Field(discriminator="type")]
ChatCustomFormat = Annotated[CustomText | ChatCustomGrammar, Field(discriminator="type")]


class CustomDefinition(Wire):
    """A free-form tool of a chat."""

    name: str
    description: str | None = None
    format: ChatCustomFormat | None = None
