"""The moderation of a response that its request asks for: its input and its output are judged, and told of.

With `score` nothing else happens. With `block` flagged input is not answered, and an answer is held back until it is
judged; what cannot be judged does not pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal

from llamakit.api.moderations import WireModerationRequest
from llamakit.api.openai_response_options import ModerationOptions
from llamakit.core.errors import InvalidRequest, LlamakitError, NotFound, UnknownModel
from llamakit.core.messages import AnswerEvent, AnswerFold, Done, Finish, Message

Judge = Callable[[str, WireModerationRequest], Awaitable[dict[str, Any]]]
"""Judges texts on behalf of an owner: a result for each."""
_NOTHING = {"type": "error", "code": "not_moderated", "message": "there was nothing to judge"}
_SHOWN = ("flagged", "categories", "category_scores", "category_applied_input_types")


class ResponseModerator:
    """Judges one response."""

    def __init__(self, judge: Judge, owner: str, options: ModerationOptions) -> None:
        self._judge = judge
        self._owner = owner
        self._options = options
        self._texts: list[str] = []
        self._found: dict[str, dict[str, Any]] = {"input": _NOTHING, "output": _NOTHING}

    async def passes_input(self, messages: Sequence[Message]) -> bool:
        """Judge what was said since the last answer; False where it is not to be answered."""
        said: list[str] = []
        for message in reversed(messages):
            if message.role == "assistant":
                break
            if message.role != "system":
                said.append(message.text)
        return await self._passes("input", "\n".join(reversed([text for text in said if text])))

    async def watched(self, answer: AsyncIterator[AnswerEvent]) -> AsyncIterator[AnswerEvent]:
        """A turn of the model as it may be shown: as it comes, or held back until it was judged."""
        fold = AnswerFold()
        held: list[AnswerEvent] = []
        is_held = self._blocks("output")
        async for event in answer:
            fold.add(event)
            if is_held:
                held.append(event)
            else:
                yield event
        text = fold.answer().text
        self._texts.append(text)
        if is_held and not await self._passes("output", text):
            held = [Finish(reason="content_filter"), *(event for event in held if isinstance(event, Done))]
        for event in held:
            yield event

    async def finish(self) -> dict[str, Any]:
        """What was found, for the resource."""
        if not self._blocks("output"):
            await self._passes("output", "\n".join(text for text in self._texts if text))
        return dict(self._found)

    def _blocks(self, side: Literal["input", "output"]) -> bool:
        policy = self._options.policy
        mode = None if policy is None else policy.input if side == "input" else policy.output
        return mode is not None and mode.mode == "block"

    async def _passes(self, side: Literal["input", "output"], text: str) -> bool:
        if not text:
            return True
        try:
            asked = WireModerationRequest(input=text, model=self._options.model)
            answer = await self._judge(self._owner, asked)
        except (InvalidRequest, NotFound, UnknownModel) as fault:
            raise InvalidRequest(f"moderation.model: {fault}", param="moderation.model") from fault
        except LlamakitError as fault:
            if self._blocks(side):
                raise
            self._found[side] = {"type": "error", "code": "server_error", "message": str(fault)}
            return True
        (result,) = answer["results"]
        shown = {name: result[name] for name in _SHOWN}
        if self._found[side].get("flagged") is not True:
            self._found[side] = {"type": "moderation_result", "model": answer["model"], **shown}
        return not (result["flagged"] and self._blocks(side))
