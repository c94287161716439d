"""One turn of an agent: the loop's needs met one after another, each told as a step and kept when it ended.

Yields the payloads of the turn's stream. Whoever stops reading stops the turn, which is then kept as cancelled.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from llamakit.agents.loop import (
    Approve,
    CallTools,
    Check,
    Ended,
    Infer,
    Inferred,
    LoopSettings,
    LoopTool,
    Reply,
    run_turn,
)
from llamakit.agents.round import call_together
from llamakit.agents.session import Sessions, StoredTurn
from llamakit.agents.tools import ToolBox
from llamakit.api.inference import AnswerStream, ChatRequest, RequestContext, Sampling, ToolChoice
from llamakit.api.llama_stack_answer import AnswerDeltas, stop_reason
from llamakit.api.llama_stack_messages import LlamaStackStopReason
from llamakit.api.llama_stack_turns import (
    Payload,
    StepType,
    event,
    inference_step,
    moment,
    shield_step,
    tool_step,
    turn_body,
)
from llamakit.core.errors import LlamakitError
from llamakit.core.messages import AnswerFold, Finish, Message, assistant, tool_result
from llamakit.safety.shields import Violation
from llamakit.storage.ids import STEP
from llamakit.storage.tables import stamp

Chat = Callable[[ChatRequest], AnswerStream]
Judge = Callable[[str, str, Sequence[Message]], Awaitable[Violation | None]]
"""Asks an owner's shield by its name."""
_CUT_SHORT = ("length", "tokens", "steps", "time", "repeating")
"""Ends of a turn that had more to say."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TurnPlan:
    """Everything a turn needs to know."""

    model: str
    salt: str
    sampling: Sampling
    conversation: tuple[Message, ...]
    """What the model reads, the turn's own messages last."""
    before: tuple[Message, ...] = ()
    """What this turn has added already, where it goes on."""
    tools: ToolBox
    loop_tools: tuple[LoopTool, ...]
    settings: LoopSettings
    input_shields: tuple[str, ...] = ()
    output_shields: tuple[str, ...] = ()


class AgentTurn:
    """A turn that runs."""

    def __init__(self, owner: str, stored: StoredTurn, plan: TurnPlan, sessions: Sessions, chat: Chat, judge: Judge):
        self._owner = owner
        self._stored = stored
        self._plan = plan
        self._sessions = sessions
        self._chat = chat
        self._judge = judge
        self._steps: list[Mapping[str, Any]] = list(stored.steps)
        self._added: list[Message] = list(plan.before)
        self._reply: Reply = None
        self._asked = 0
        self._refusal: Violation | None = None

    async def run(self) -> AsyncGenerator[Payload, None]:
        """The events of the turn, in order."""
        yield event("turn_start", turn_id=self._stored.id)
        turn = run_turn(self._plan.conversation, self._plan.loop_tools, self._plan.settings)
        try:
            need = next(turn)
            while True:
                self._reply = None
                async with aclosing(self._met(need)) as payloads:
                    async for payload in payloads:
                        yield payload
                need = turn.send(self._reply)
        except StopIteration as end:
            ended: Ended = end.value
        except LlamakitError as fault:
            await self._save("failed", str(fault))
            raise
        except BaseException:
            await self._save("cancelled", "the client left")
            raise
        finally:
            turn.close()
        self._added = [*self._plan.before, *ended.messages]
        if ended.refusal is not None:
            self._added.append(assistant(ended.refusal))
        waits = ended.reason in ("client tools", "approval")
        stored = await self._save("awaiting" if waits else "done", ended.reason)
        yield event("turn_awaiting_input" if waits else "turn_complete", turn=written(stored))

    def _met(self, need: Infer | Check | Approve | CallTools) -> AsyncGenerator[Payload, None]:
        match need:
            case Infer():
                return self._infer(need)
            case Check():
                return self._check(need)
            case CallTools():
                return self._call(need)
            case Approve():
                return self._nobody_to_ask()

    async def _infer(self, need: Infer) -> AsyncGenerator[Payload, None]:
        step, kind = self._begin(), "inference"
        yield event("step_start", step_id=step["step_id"], step_type=kind)
        deltas, fold, reason = AnswerDeltas(), AnswerFold(), Finish(reason="cancelled")
        async with aclosing(self._chat(self._request(need))) as answer:
            async for said in answer:
                fold.add(said)
                if isinstance(said, Finish):
                    reason = said
                for delta, _ in deltas.push(said):
                    yield event("step_progress", step_id=step["step_id"], step_type=kind, delta=delta)
        whole = fold.answer()
        message = whole.choices[0].message
        self._reply = Inferred(message, reason.reason, whole.usage)
        self._added.append(message)
        word = stop_reason(reason, called_tools=bool(message.tool_calls))
        yield await self._end(step, kind, inference_step(message, word))

    async def _check(self, need: Check) -> AsyncGenerator[Payload, None]:
        step, kind = self._begin(), "shield_call"
        yield event("step_start", step_id=step["step_id"], step_type=kind)
        shields = self._plan.input_shields if need.where == "input" else self._plan.output_shields
        found: Violation | None = None
        for shield in shields:
            found = await self._judge(self._owner, shield, need.messages)
            if found is not None:
                break
        self._reply = None if found is None or found.level != "error" else found.user_message
        metadata = {} if found is None else {**found.metadata, "categories": list(found.categories)}
        level, words = (None, None) if found is None else (found.level, found.user_message)
        yield await self._end(step, kind, shield_step(level, words, metadata))

    async def _call(self, need: CallTools) -> AsyncGenerator[Payload, None]:
        step, kind = self._begin(), "tool_execution"
        yield event("step_start", step_id=step["step_id"], step_type=kind)
        outcomes = await call_together(need, self._plan.tools.call)
        self._reply = outcomes
        results = [tool_result(call, outcome.text) for call, outcome in zip(need.calls, outcomes, strict=True)]
        self._added += results
        yield await self._end(step, kind, tool_step(need.calls, results, [outcome.data for outcome in outcomes]))

    async def _nobody_to_ask(self) -> AsyncGenerator[Payload, None]:
        """Turns have no word for an approval: the calls wait for the client, who may answer them itself."""
        self._reply = {}
        return
        yield  # makes this a generator like the others

    def _request(self, need: Infer) -> ChatRequest:
        self._asked += 1
        choice = need.tool_choice
        is_name = choice not in ("auto", "none", "required")
        return ChatRequest(
            model=self._plan.model,
            messages=need.messages,
            context=RequestContext(id=f"{self._stored.id}-{len(self._steps)}-{self._asked}", salt=self._plan.salt),
            sampling=self._plan.sampling,
            tools=need.tools,
            tool_choice=ToolChoice(mode="named", name=choice) if is_name else ToolChoice(mode=choice),  # type: ignore[arg-type]
        )

    def _begin(self) -> dict[str, Any]:
        return {"step_id": STEP.new(), "turn_id": self._stored.id, "started_at": moment(time.time_ns())}

    async def _end(self, frame: dict[str, Any], kind: StepType, facts: Payload) -> Payload:
        """Keep a step that ended, and tell of it."""
        step = {**frame, "step_type": kind, "completed_at": moment(stamp()), **facts}
        self._steps.append(step)
        await self._save("running", None)
        return event("step_complete", step_id=step["step_id"], step_type=kind, step_details=step)

    async def _save(self, state: Any, reason: str | None) -> StoredTurn:
        self._stored = await self._sessions.save(
            self._owner, self._stored, state=state, added=self._added, steps=self._steps, reason=reason
        )
        return self._stored


def written(turn: StoredTurn) -> Payload:
    """A turn as it is shown."""
    cut_short: LlamaStackStopReason = "out_of_tokens" if turn.reason in _CUT_SHORT else "end_of_turn"
    return turn_body(
        turn.id,
        turn.session,
        turn.input,
        turn.added,
        turn.steps,
        stop="end_of_message" if turn.state == "awaiting" else cut_short,
        started_ns=turn.created_ns,
        has_ended=turn.state != "running",
    )
