"""A conversation in the terminal: what was said, how to sample, and the loop that reads and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamakit.cli.lines import ReadLine, read_message
from llamakit.cli.speaking import say_speed, speak
from llamakit.cli.terminal import say
from llamakit.core.errors import LlamakitError, PromptTooLong
from llamakit.core.messages import Message, assistant, system, user

if TYPE_CHECKING:
    from llamakit.runtime.llm import LLM


@dataclass(kw_only=True)
class Chat:
    """State of one conversation; commands (`slash`) change it."""

    llm: LLM
    load: Callable[[str], LLM]
    """Opens another model the way this one was opened."""
    show: Callable[[str], None]
    """Writes pieces of an answer."""
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    """Fields of SamplingParams that differ from the model's own defaults."""
    is_verbose: bool = False

    def reply(self, text: str) -> None:
        """Say `text` to the model and show its answer; what fails leaves the conversation as it was."""
        asked = [*self.messages, user(text)]
        start = [system(self.system)] if self.system is not None else []
        try:
            spoken = speak(self.llm.stream([*start, *asked], sampling=self.sampling), self.show)
        except PromptTooLong as error:
            say(f"{error}. /clear starts a new conversation", "bad")
            return
        self.show("\n")
        self.messages = [*asked, assistant(spoken.text)]
        if spoken.was_interrupted:
            say("(stopped)", "faint")
        elif spoken.answer.choices[0].reason == "length":
            say("(cut at the token limit)", "faint")
        if self.is_verbose:
            say_speed(spoken)

    def change_model(self, name: str) -> None:
        """Go on with another model; the old one is let go once the new one is loaded."""
        new = self.load(name)
        self.llm.close()
        self.llm = new


def run_chat(chat: Chat, read: ReadLine) -> None:
    """Read and answer until Ctrl-D or /bye. Ctrl-C stops an answer or drops a line, never the program."""
    from llamakit.cli.slash import obey

    say(f"{chat.llm.name}, {chat.llm.context:,} tokens of context. /? for help, Ctrl-D to leave.", "faint")
    while True:
        try:
            text = read_message(read)
        except KeyboardInterrupt:
            say("Ctrl-D or /bye leaves", "faint")
            continue
        except EOFError:
            say()
            return
        if not text.strip():
            continue
        try:
            if text.startswith("/"):
                if not obey(chat, text):
                    return
            else:
                chat.reply(text.strip())
        except LlamakitError as error:
            say(f"error: {error}", "bad")
        except KeyboardInterrupt:
            say("(stopped)", "faint")
