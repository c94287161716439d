"""The header format of Llama 3, 3.1, 3.2 and 3.3: messages to ids and back.

`<|start_header_id|>` role `<|end_header_id|>`, a blank line, content, end token; BOS once. The blank line
and the content are always encoded apart, as Meta's reference does, so content that begins with a newline
keeps its own tokens; serving and training share this file and therefore agree. A message's `name` has no
place in the format. Tool results travel under the role `ipython`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, ToolCall, ToolSpec
from llamakit.text.calls.literals import to_json
from llamakit.text.calls.parser import ToolCallParser
from llamakit.text.calls.reading import toolbox
from llamakit.text.calls.writing import write_builtin_call, write_json_calls, write_python_list, write_tagged_calls
from llamakit.text.formats.checks import check_messages, check_no_tools
from llamakit.text.formats.format import (
    BUILTIN_TOOLS,
    DEFAULT_OPTIONS,
    FormatOptions,
    OutputParser,
    Prompt,
    ToolStyle,
)
from llamakit.text.formats.plain import PlainParser
from llamakit.text.formats.script import Script
from llamakit.text.formats.system_block import (
    Tooling,
    is_in_question,
    resolve_tooling,
    system_text,
    tool_message,
    tool_question,
)
from llamakit.text.specials import (
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    PYTHON_TAG,
    START_HEADER,
    pick,
)
from llamakit.text.tokenizer import Tokenizer

_ROLES: Final = {"system": "system", "user": "user", "assistant": "assistant", "tool": "ipython"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What one release of the family knows beyond the skeleton."""

    name: str
    tool_style: ToolStyle | None = None
    """How the release was trained to write calls of custom tools; None: it knows no tools and no dates."""


VARIANTS: Final = (
    Variant(name="llama3"),
    Variant(name="llama3.1", tool_style="json"),
    Variant(name="llama3.2", tool_style="python_list"),
    Variant(name="llama3.3", tool_style="python_list"),
)


class Llama3Format:
    """See `format.PromptFormat`; one object serves any number of conversations."""

    def __init__(self, tokenizer: Tokenizer, variant: Variant) -> None:
        self.tokenizer = tokenizer
        self.name = variant.name
        self.supports_tools = variant.tool_style is not None
        self.tool_style: ToolStyle | None = variant.tool_style
        ends = (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN) if self.supports_tools else (END_OF_TEXT, END_OF_TURN)
        self._stop_ids = pick(tokenizer.special, ends)

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> Prompt:
        """Prompt that asks for the next assistant message."""
        script = self._write(messages, tools, options, open_last=options.continue_final_message)
        if options.generation_prompt and not options.continue_final_message:
            _header(script, "assistant")
        return Prompt(ids=tuple(script.ids), stop_ids=self._stop_ids, continues=options.continue_final_message)

    def render_training(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask; up to each assistant message the ids are those of `render` for what is before it."""
        script = self._write(messages, tools, options, open_last=False)
        return script.ids, script.mask

    def parser(self, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS) -> OutputParser:
        """A fresh parser for one answer."""
        box = toolbox(tools, options.builtin_tools)
        return ToolCallParser(box, self.tokenizer.special.get(PYTHON_TAG)) if self.supports_tools else PlainParser()

    def _write(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], options: FormatOptions, *, open_last: bool
    ) -> Script:
        check_messages(self.name, messages, options)
        if not self.supports_tools:
            check_no_tools(self.name, messages, tools, options)
        style: ToolStyle = self.tool_style or "json"
        tooling = resolve_tooling(tools, options, style)
        script = Script(self.tokenizer)
        script.control(BEGIN_OF_TEXT)
        turns = self._preamble(script, messages, tooling, options)
        for place, message in enumerate(turns):
            self._message(script, message, tooling, options, is_open=open_last and place == len(turns) - 1)
        return script

    def _preamble(
        self, script: Script, messages: Sequence[Message], tooling: Tooling, options: FormatOptions
    ) -> Sequence[Message]:
        """Write what comes before the first turn, and return the turns still to write."""
        own = messages[0].text if messages[0].role == "system" else None
        turns = messages if own is None else messages[1:]
        block = system_text(own, tooling, options) if self.supports_tools else _trimmed(own, options)
        if block is not None:
            _plain_message(script, "system", block)
        told = tool_message(tooling, options)
        if told is not None:
            _plain_message(script, "user", told)
        if not is_in_question(tooling, options):
            return turns
        if not turns or turns[0].role != "user":
            raise InvalidRequest("tools are told in the first user message, and there is none", param="messages")
        question = _trimmed(turns[0].text, options) or ""
        _plain_message(script, "user", tool_question(question, tooling, options))
        return turns[1:]

    def _message(
        self, script: Script, message: Message, tooling: Tooling, options: FormatOptions, *, is_open: bool
    ) -> None:
        _header(script, message.role)
        script.trained = message.role == "assistant"
        end = END_OF_TURN
        if message.role == "tool":
            script.text(to_json(message.text) if options.flavour == "hf" else message.text)
        else:
            script.text(_trimmed(message.text, options) or "")
        if message.tool_calls:
            end = self._calls(script, message.tool_calls, tooling, options)
        if not is_open:
            script.control(end)
        script.trained = False

    def _calls(self, script: Script, calls: Sequence[ToolCall], tooling: Tooling, options: FormatOptions) -> str:
        """Write the calls as the model would have, and return the end token that goes with them."""
        hf = options.flavour == "hf"
        builtin = [call for call in calls if _is_builtin(call, tooling)]
        if builtin and len(calls) > 1:
            raise InvalidRequest(
                f"built-in tool {builtin[0].name!r} is called alone; found {len(calls)} calls in one message",
                param="messages",
            )
        if builtin:
            script.control(PYTHON_TAG)
            script.text(write_builtin_call(calls[0]))
            return END_OF_MESSAGE
        match tooling.style:
            case "json":
                in_environment = tooling.environment and not hf
                if in_environment:
                    script.control(PYTHON_TAG)
                script.text(write_json_calls(calls, typed=not hf))
                return END_OF_MESSAGE if in_environment or (hf and tooling.builtin) else END_OF_TURN
            case "function_tag":
                script.text(write_tagged_calls(calls))
            case "python_list":
                script.control(PYTHON_TAG)
                script.text(write_python_list(calls))
        return END_OF_TURN


def _is_builtin(call: ToolCall, tooling: Tooling) -> bool:
    if call.name in tooling.builtin:
        return True
    return call.name in BUILTIN_TOOLS and call.name not in {tool.name for tool in tooling.tools}


def _trimmed(text: str | None, options: FormatOptions) -> str | None:
    """The hub's templates trim what people wrote; Meta's reference does not."""
    return text.strip() if text is not None and options.flavour == "hf" else text


def _header(script: Script, role: str) -> None:
    script.control(START_HEADER)
    script.text(_ROLES[role])
    script.control(END_HEADER)
    script.text("\n\n")


def _plain_message(script: Script, role: str, text: str) -> None:
    _header(script, role)
    script.text(text)
    script.control(END_OF_TURN)
