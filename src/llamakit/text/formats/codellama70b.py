"""Code Llama 70B Instruct: ` Source: role`, a blank line and a space, text, `<step>`.

Headers and bodies are encoded apart, as Meta's reference does; the reply is opened with a `Destination`
line. In the history a body is encoded with its blank line, behind the opener it is not, so only the last
assistant message of a training conversation is trained: the earlier ones are history.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, ToolSpec, system
from llamakit.text.formats.checks import check_messages, check_no_tools, check_turns
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions, OutputParser, Prompt
from llamakit.text.formats.plain import PlainParser
from llamakit.text.formats.script import Script
from llamakit.text.specials import SPM_BEGIN, SPM_END, STEP, pick
from llamakit.text.tokenizer import Tokenizer


class CodeLlama70bFormat:
    """See `format.PromptFormat`."""

    name = "codellama70b"
    supports_tools = False
    tool_style = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> Prompt:
        """Prompt that asks for the next assistant message; the last message is the user's, or is continued."""
        self._check(messages, tools, options)
        is_open = options.continue_final_message
        if messages[-1].role == "assistant" and not is_open:
            raise InvalidRequest(
                "the codellama70b format asks for an answer to a user message; the last message is from assistant",
                param="messages",
            )
        script = self._history(messages[:-1] if is_open else messages)
        _open_reply(script)
        if is_open:
            script.continuation(messages[-1].text.strip())
        return Prompt(ids=tuple(script.ids), stop_ids=pick(self.tokenizer.special, (STEP, SPM_END)), continues=is_open)

    def render_training(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask; the last assistant message follows exactly what `render` gives for what is before it."""
        self._check(messages, tools, options)
        if messages[-1].role != "assistant":
            raise InvalidRequest("a training conversation ends with the assistant", param="messages")
        script = self._history(messages[:-1])
        _open_reply(script)
        script.trained = True
        script.continuation(messages[-1].text.strip())
        script.control(STEP)
        return script.ids, script.mask

    def parser(self, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS) -> OutputParser:
        """A fresh parser for one answer."""
        return PlainParser()

    def _check(self, messages: Sequence[Message], tools: Sequence[ToolSpec], options: FormatOptions) -> None:
        check_messages(self.name, messages, options)
        check_no_tools(self.name, messages, tools, options)
        check_turns(self.name, messages, system=True)

    def _history(self, messages: Sequence[Message]) -> Script:
        script = Script(self.tokenizer)
        script.control(SPM_BEGIN)
        # The model was trained with a system message in front, so an empty one stands in.
        for message in messages if messages[0].role == "system" else [system(""), *messages]:
            script.text(f" Source: {message.role}")
            if message.text:
                script.text(f"\n\n {message.text.strip()}")
            script.control(STEP)
        return script


def _open_reply(script: Script) -> None:
    script.text(" Source: assistant\nDestination: user")
    script.text("\n\n ")
