"""The models behind shields: what is asked is judged before it is answered, and what is answered before it leaves.

An answer is held back a window at a time. Each window is judged with a bounded stretch of what came before it, and
the whole once at its end, so the cost grows with the length of the answer and not with its square. Text that a
shield does not let through never leaves; what left before stays, since it was let through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from llamakit.api.inference import AnswerStream, ChatRequest, CompletionRequest
from llamakit.core.messages import (
    AnswerEvent,
    Done,
    Finish,
    Message,
    PrefillProgress,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    assistant,
    user,
)
from llamakit.safety.shields import Shields, Violation
from llamakit.stack.router import InferenceRouter
from llamakit.stack.shields import refuse_images

WINDOW_CHARS = 600
"""Characters of an answer that are held back until they are judged."""
QUESTION_CHARS = 2_000
"""Of the question that is shown with a window."""
WHOLE_CHARS = 12_000
"""A longer answer is not judged as a whole once more: its windows were."""


class GuardedRouter(InferenceRouter):
    """A router whose every generation stands behind shields. It shares the routes of the one it guards."""

    def __init__(self, router: InferenceRouter, before: Shields, behind: Shields) -> None:
        super().__init__(router.providers)
        self._routes = router._routes
        self._before = before
        self._behind = behind

    def chat(self, request: ChatRequest) -> AnswerStream:
        """Ask the model's provider, if the shields let the conversation through."""
        return self._guarded(request.messages, request.context.salt, super().chat(request))

    def complete(self, request: CompletionRequest) -> AnswerStream:
        """Ask the model's provider, if the shields let the text through."""
        return self._completed(request, super().complete(request))

    async def _completed(self, request: CompletionRequest, stream: AnswerStream) -> AsyncGenerator[AnswerEvent, None]:
        prompt = request.prompt
        text = prompt if isinstance(prompt, str) else await self.detokenize(request.model, prompt)
        if request.suffix is not None:
            text = f"{text}\n{request.suffix}"
        async with aclosing(self._guarded((user(text),), request.context.salt, stream)) as events:
            async for event in events:
                yield event

    async def _guarded(
        self, messages: Sequence[Message], salt: str, stream: AnswerStream
    ) -> AsyncGenerator[AnswerEvent, None]:
        async with aclosing(stream):
            refuse_images(messages)
            violation = await self._before.check(messages, salt=salt)
            if violation is not None:
                for event in (*_withheld(violation, 0, is_first=True), Done(usage=Usage())):
                    yield event
                return
            if not self._behind:
                async for event in stream:
                    yield event
                return
            gate = _Gate(self._behind, messages, salt)
            async for event in stream:
                for passed in await gate.push(event):
                    yield passed
                if gate.is_shut:
                    yield Done(usage=Usage(completion_tokens=gate.num_events))
                    return


@dataclass(slots=True)
class _Said:
    """One choice of an answer, and what of it is held back."""

    text: str = ""
    num_passed: int = 0
    """Characters of the text that were let through."""
    held: list[AnswerEvent] = field(default_factory=list)
    calls: dict[int, ToolCall] = field(default_factory=dict)
    is_over: bool = False
    is_withheld: bool = False


class _Gate:
    """Events of one answer go in, those that were let through come out. Calls of tools wait for the end."""

    def __init__(self, shields: Shields, messages: Sequence[Message], salt: str) -> None:
        self._shields = shields
        self._messages = messages
        self._salt = salt
        self._choices: dict[int, _Said] = {}
        self.num_events = 0
        """Pieces of text and of calls that came; about the tokens."""

    @property
    def is_shut(self) -> bool:
        """Whether something was withheld and nothing more can pass."""
        choices = self._choices.values()
        return any(said.is_withheld for said in choices) and all(said.is_over for said in choices)

    async def push(self, event: AnswerEvent) -> Sequence[AnswerEvent]:
        """What may leave now."""
        if isinstance(event, PrefillProgress | Done):
            return (event,)
        said = self._choices.setdefault(event.choice, _Said())
        if said.is_withheld:
            return ()
        said.held.append(event)
        match event:
            case TextDelta():
                self.num_events += 1
                said.text += event.text
                if len(said.text) - said.num_passed < WINDOW_CHARS or said.calls:
                    return ()
                return await self._judge(event.choice, said, self._window(said))
            case ToolCallDelta():
                self.num_events += 1
                said.calls[event.index] = _joined(said.calls.get(event.index), event)
                return ()
            case Finish():
                said.is_over = True
                is_short = len(said.text) <= WHOLE_CHARS
                shown = [*self._messages, _answer(said, said.text)] if is_short else self._window(said)
                return await self._judge(event.choice, said, shown)

    async def _judge(self, choice: int, said: _Said, shown: Sequence[Message]) -> Sequence[AnswerEvent]:
        violation = await self._shields.check(shown, salt=self._salt)
        if violation is not None:
            said.is_over = said.is_withheld = True
            return _withheld(violation, choice, is_first=said.num_passed == 0)
        passed, said.held = said.held, []
        said.num_passed = len(said.text)
        return passed

    def _window(self, said: _Said) -> list[Message]:
        """The question in short, and the answer's last two windows."""
        asked = next((message.text for message in reversed(self._messages) if message.role == "user"), "")
        tail = said.text[max(0, said.num_passed - WINDOW_CHARS) :]
        return [user(asked[-QUESTION_CHARS:]), _answer(said, tail)] if asked else [_answer(said, tail)]


def _answer(said: _Said, text: str) -> Message:
    return assistant(text, *said.calls.values())


def _joined(call: ToolCall | None, delta: ToolCallDelta) -> ToolCall:
    if call is None:
        return ToolCall(id=delta.id or "", name=delta.name or "", arguments=delta.arguments)
    return replace(call, arguments=call.arguments + delta.arguments)


def _withheld(violation: Violation, choice: int, *, is_first: bool) -> tuple[AnswerEvent, ...]:
    """What stands in the place of what was not let through."""
    text = violation.user_message if is_first else f"\n\n{violation.user_message}"
    return (TextDelta(text=text, choice=choice), Finish(reason="content_filter", choice=choice))
