"""Llama 2 chat and Code Llama 7B to 34B Instruct: `[INST]` and `[/INST]` in plain text, BOS at every pair.

The markers are text, not control tokens, so a message that contains one could speak for another role; such
messages are refused, as Meta's reference does. User and assistant text is stripped. An assistant message
is encoded after its prompt; SentencePiece joins nothing across the space between, so the ids are those of
the pair encoded as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, ToolSpec
from llamakit.text.formats.checks import check_messages, check_no_tools, check_turns
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions, OutputParser, Prompt
from llamakit.text.formats.plain import PlainParser
from llamakit.text.formats.script import Script
from llamakit.text.specials import SPM_BEGIN, SPM_END
from llamakit.text.tokenizer import Tokenizer

_OPEN: Final = "[INST]"
_CLOSE: Final = "[/INST]"
_SYSTEM_OPEN: Final = "<<SYS>>"
_SYSTEM_CLOSE: Final = "<</SYS>>"
_MARKERS: Final = (_OPEN, _CLOSE, _SYSTEM_OPEN, _SYSTEM_CLOSE)


class Llama2Format:
    """See `format.PromptFormat`."""

    name = "llama2"
    supports_tools = False
    tool_style = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> Prompt:
        """Prompt that asks for the next assistant message; the last message is the user's, or is continued."""
        self._check(messages, tools, options)
        if messages[-1].role == "assistant" and not options.continue_final_message:
            raise InvalidRequest(
                "the llama2 format asks for an answer to a user message; the last message is from assistant",
                param="messages",
            )
        script = self._write(messages, open_last=options.continue_final_message)
        return Prompt(ids=tuple(script.ids), stop_ids=self.tokenizer.eos_ids, continues=options.continue_final_message)

    def render_training(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask; up to each assistant message the ids are those of `render` for what is before it."""
        self._check(messages, tools, options)
        script = self._write(messages, open_last=False)
        return script.ids, script.mask

    def parser(self, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS) -> OutputParser:
        """A fresh parser for one answer."""
        return PlainParser()

    def _check(self, messages: Sequence[Message], tools: Sequence[ToolSpec], options: FormatOptions) -> None:
        check_messages(self.name, messages, options)
        check_no_tools(self.name, messages, tools, options)
        check_turns(self.name, messages, system=True)
        for place, message in enumerate(messages):
            marker = next((marker for marker in _MARKERS if marker in message.text), None)
            if marker is not None:
                raise InvalidRequest(
                    f"message {place} contains {marker!r}, which separates roles in the llama2 format; remove it",
                    param="messages",
                )

    def _write(self, messages: Sequence[Message], *, open_last: bool) -> Script:
        script = Script(self.tokenizer)
        turns = _folded(messages)
        for place, text in enumerate(turns):
            if place % 2 == 0:
                script.control(SPM_BEGIN)
                script.text(f"{_OPEN} {text.strip()} {_CLOSE}")
                continue
            script.trained = True
            if open_last and place == len(turns) - 1:
                script.continuation(f" {text.strip()}")
            else:
                script.continuation(f" {text.strip()} ")
                script.control(SPM_END)
            script.trained = False
        return script


def _folded(messages: Sequence[Message]) -> list[str]:
    """Texts of user and assistant in turns, a system message folded into the first."""
    if messages[0].role != "system":
        return [message.text for message in messages]
    first = f"{_SYSTEM_OPEN}\n{messages[0].text}\n{_SYSTEM_CLOSE}\n\n{messages[1].text}"
    return [first, *(message.text for message in messages[2:])]
