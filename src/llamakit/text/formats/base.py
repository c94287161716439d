"""Base models: BOS and the text to go on with.

A base model knows no roles. The texts of a conversation are joined by blank lines, so that a chat request
to a base model continues what was said instead of failing.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.core.messages import Message, ToolSpec
from llamakit.text.formats.checks import check_messages, check_no_tools
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions, OutputParser, Prompt
from llamakit.text.formats.plain import PlainParser
from llamakit.text.formats.script import Script
from llamakit.text.specials import END_OF_TEXT, SPM_END, pick
from llamakit.text.tokenizer import Tokenizer


class BaseFormat:
    """See `format.PromptFormat`."""

    name = "base"
    supports_tools = False
    tool_style = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> Prompt:
        """BOS and all texts; the answer goes on from them."""
        script = self._write(messages, tools, options)
        return Prompt(ids=tuple(script.ids), stop_ids=self.tokenizer.eos_ids, continues=True)

    def render_training(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask; a last assistant message ends the text, and its end token is trained with it."""
        script = self._write(messages, tools, options)
        ends = pick(self.tokenizer.special, (END_OF_TEXT, SPM_END)) or self.tokenizer.eos_ids
        if messages[-1].role == "assistant" and ends:
            script.trained = True
            script.append(ends[0])
        return script.ids, script.mask

    def parser(self, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS) -> OutputParser:
        """A fresh parser for one answer."""
        return PlainParser()

    def _write(self, messages: Sequence[Message], tools: Sequence[ToolSpec], options: FormatOptions) -> Script:
        check_messages(self.name, messages, options)
        check_no_tools(self.name, messages, tools, options)
        script = Script(self.tokenizer)
        if self.tokenizer.bos_id is not None:
            script.append(self.tokenizer.bos_id)
        for place, message in enumerate(messages):
            if place:
                script.continuation("\n\n")
            script.trained = message.role == "assistant"
            if place:
                script.continuation(message.text)
            else:
                script.text(message.text)
            script.trained = False
        return script
