"""The assistant of the demonstration: three turns with a model, the last of which calls the calendar.

Knows nothing of the network and of the command line's options.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.agents.calendar import calendar
from llamakit.agents.loop import (
    CallTools,
    Ended,
    Infer,
    Inferred,
    LoopSettings,
    Need,
    Reply,
    ToolOutcome,
    Turn,
    run_turn,
)
from llamakit.agents.tools import ToolBox
from llamakit.cli.speaking import shower, speak
from llamakit.cli.terminal import paint, put
from llamakit.core.messages import Message, ToolCall, user

if TYPE_CHECKING:
    from llamakit.runtime.llm import LLM

SUMMARISE = "Summarize the last {count} messages.\n\n{thread}"
ACTIONS = "What are the action items?"
INVITE = "Send a calendar invitation for the {event}."
INVITE_ANY = "Send the calendar invite."
SAMPLING = {"temperature": 0.0, "max_tokens": 512}
"""The same words each time."""
BOUNDS = LoopSettings(max_steps=4, max_seconds=300.0)


@dataclass(kw_only=True, slots=True)
class Turned:
    """What came of a turn."""

    text: str = ""
    """The last answer."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Tool calls with what they gave."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Invitations that were written."""
    tokens: int = 0
    seconds: float = 0.0


class Shown:
    """What a person sees of it."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._write = shower(sys.stdout)
        self._name = ""

    def thread(self, model: str, messages: Sequence[str]) -> None:
        """The messages it is about."""
        self._name = model
        self._put(paint(f"The last {len(messages)} messages", "strong", sys.stdout))
        for message in messages:
            self._put(f"  {message}")

    def asked(self, text: str) -> None:
        """What the person says."""
        self._put(f"\n{paint('You', 'strong', sys.stdout)}: {text.partition(chr(10))[0]}")

    def answering(self) -> None:
        """The model begins."""
        self._show(paint(self._name, "strong", sys.stdout) + ":\n")

    def piece(self, text: str) -> None:
        """A piece of its answer."""
        self._show(text)

    def answered(self) -> None:
        """The model ends."""
        self._put()

    def called(self, outcome: ToolOutcome) -> None:
        """A tool did its work."""
        if outcome.is_error:
            self._put(paint(f"  not done: {outcome.text}", "warn", sys.stdout))
            return
        facts = outcome.data
        when = f"{facts['day']}" + (f" at {facts['start']}" if facts["start"] else "")
        people = facts["people"]
        invited = f", for {', '.join(people)}" if isinstance(people, list) and people else ""
        self._put(paint(f"  wrote {facts['path']}: {facts['title']}, {when}{invited}", "good", sys.stdout))

    def _put(self, text: str = "") -> None:
        if not self._is_quiet:
            put(text)

    def _show(self, text: str) -> None:
        if not self._is_quiet:
            self._write(text)


class Demo:
    """The three turns."""

    def __init__(self, llm: LLM, folder: Path, shown: Shown) -> None:
        self._llm = llm
        self._box = ToolBox.of([calendar(folder)])
        self._shown = shown
        self._said: list[Message] = []

    def run(self, messages: Sequence[str], event: str | None) -> list[Turned]:
        """Sum up, list the action items, invite; `event` names what the invitation is for."""
        asked = SUMMARISE.format(count=len(messages), thread="\n".join(messages))
        invite = INVITE_ANY if event is None else INVITE.format(event=event)
        return [self._turn(text) for text in (asked, ACTIONS, invite)]

    def _turn(self, text: str) -> Turned:
        self._shown.asked(text)
        self._said.append(user(text))
        made = Turned()
        turn = run_turn(self._said, self._box.for_loop(), BOUNDS)
        need = _sent(turn, None)
        while not isinstance(need, Ended):
            need = _sent(turn, self._met(need, made))
        self._said += need.messages
        return made

    def _met(self, need: Need, made: Turned) -> Reply:
        match need:
            case Infer():
                return self._inferred(need, made)
            case CallTools():
                return [self._called(call, made) for call in need.calls]
        raise AssertionError(f"nothing here needs {need!r}")

    def _inferred(self, need: Infer, made: Turned) -> Inferred:
        self._shown.answering()
        spoken = speak(self._llm.stream(need.messages, sampling=SAMPLING, tools=need.tools), self._shown.piece)
        self._shown.answered()
        if spoken.was_interrupted:
            raise KeyboardInterrupt
        choice, usage = spoken.answer.choices[0], spoken.answer.usage
        made.text = choice.message.text
        made.tokens += usage.completion_tokens
        made.seconds += spoken.total_s
        return Inferred(choice.message, choice.reason, usage)

    def _called(self, call: ToolCall, made: Turned) -> ToolOutcome:
        outcome = asyncio.run(self._box.call(call))
        self._shown.called(outcome)
        made.calls.append({"name": call.name, "arguments": _arguments(call), "result": outcome.text})
        if not outcome.is_error:
            made.events.append(dict(outcome.data))
        return outcome


def _sent(turn: Turn, reply: Reply) -> Need | Ended:
    """What the loop wants next, or how it ended."""
    try:
        return turn.send(reply)
    except StopIteration as end:
        return end.value


def _arguments(call: ToolCall) -> Any:
    """The arguments as a value; as they were written where they are none."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments
