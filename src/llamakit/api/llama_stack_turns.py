"""Turns of agents as Llama Stack writes them: steps, turns, sessions, and the events of a turn's stream.

A step is one answer of the model, one round of tools, or one judgement of shields; its wire form is also what is
kept of it. A turn's stream tells `turn_start`, for every step `step_start`, `step_progress`, `step_complete`, and at
the end `turn_complete`, or `turn_awaiting_input` where the client has tools to run.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from llamakit.api.llama_stack_agents import LlamaStackAgentConfig
from llamakit.api.llama_stack_answer import LlamaStackTextDelta, LlamaStackToolCallDelta
from llamakit.api.llama_stack_content import LlamaStackContent
from llamakit.api.llama_stack_messages import (
    LlamaStackCompletionMessage,
    LlamaStackMessage,
    LlamaStackStopReason,
    LlamaStackToolCall,
    from_message,
    from_tool_call,
)
from llamakit.api.wire import FIRST, Wire
from llamakit.core.messages import Message, ToolCall, assistant

StepType = Literal["inference", "tool_execution", "shield_call"]
Payload = dict[str, Any]


class LlamaStackTimes(Wire):
    """When it happened."""

    turn_id: str
    step_id: str
    started_at: str | None = None
    completed_at: str | None = None


class LlamaStackInferenceStep(LlamaStackTimes):
    """An answer of the model."""

    step_type: Literal["inference"]
    model_response: LlamaStackCompletionMessage


class LlamaStackToolResult(Wire):
    """What a tool gave."""

    call_id: str
    tool_name: str
    content: LlamaStackContent
    metadata: dict[str, Any] | None = None


class LlamaStackToolStep(LlamaStackTimes):
    """A round of tools."""

    step_type: Literal["tool_execution"]
    tool_calls: Annotated[list[LlamaStackToolCall], FIRST]
    tool_responses: Annotated[list[LlamaStackToolResult], FIRST]


class LlamaStackViolation(Wire):
    """Why something was not let through."""

    violation_level: Literal["info", "warn", "error"]
    user_message: str | None = None
    metadata: dict[str, Any]


class LlamaStackShieldStep(LlamaStackTimes):
    """A judgement of shields."""

    step_type: Literal["shield_call"]
    violation: LlamaStackViolation | None = None


LlamaStackStep = LlamaStackInferenceStep | LlamaStackToolStep | LlamaStackShieldStep


class LlamaStackTurn(Wire):
    """A turn of a session."""

    turn_id: str
    session_id: str
    input_messages: Annotated[list[LlamaStackMessage], FIRST]
    steps: Annotated[list[LlamaStackStep], FIRST]
    output_message: LlamaStackCompletionMessage
    output_attachments: list[Any]
    started_at: str
    completed_at: str | None = None


class LlamaStackTurnPayload(Wire):
    """What an event of a turn tells."""

    event_type: Literal[
        "turn_start", "step_start", "step_progress", "step_complete", "turn_complete", "turn_awaiting_input"
    ]
    turn_id: str | None = None
    step_id: str | None = None
    step_type: StepType | None = None
    delta: LlamaStackTextDelta | LlamaStackToolCallDelta | None = None
    step_details: LlamaStackStep | None = None
    turn: LlamaStackTurn | None = None


class LlamaStackTurnEvent(Wire):
    """An event of a turn."""

    payload: LlamaStackTurnPayload


class LlamaStackTurnChunk(Wire):
    """A piece of a streamed turn."""

    event: LlamaStackTurnEvent


class LlamaStackStepAnswer(Wire):
    """Body of a step."""

    step: LlamaStackStep


class LlamaStackSession(Wire):
    """A session with its turns."""

    session_id: str
    session_name: str
    started_at: str
    turns: Annotated[list[LlamaStackTurn], FIRST]


class LlamaStackNewSession(Wire):
    """Answer to a new session."""

    session_id: str


class LlamaStackAgent(Wire):
    """An agent."""

    agent_id: str
    agent_config: LlamaStackAgentConfig
    created_at: str


class LlamaStackNewAgent(Wire):
    """Answer to a new agent."""

    agent_id: str


def moment(ns: int) -> str:
    """Nanoseconds since 1970 as the time of ISO 8601."""
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat()


def inference_step(message: Message, reason: LlamaStackStopReason) -> Payload:
    """What an inference adds to the frame of its step."""
    return {"model_response": from_message(message, stop_reason=reason)}


def tool_step(calls: Sequence[ToolCall], results: Sequence[Message], facts: Sequence[Mapping[str, Any]]) -> Payload:
    """What a round of tools adds; `results` and `facts` are one a call."""
    responses = [
        {
            "call_id": call.id,
            "tool_name": call.name,
            "content": from_message(result)["content"],
            "metadata": dict(known) or None,
        }
        for call, result, known in zip(calls, results, facts, strict=True)
    ]
    return {"tool_calls": [from_tool_call(call) for call in calls], "tool_responses": responses}


def shield_step(level: str | None, user_message: str | None, metadata: Mapping[str, Any]) -> Payload:
    """What a judgement adds; no level where nothing was wrong."""
    if level is None:
        return {"violation": None}
    return {"violation": {"violation_level": level, "user_message": user_message, "metadata": dict(metadata)}}


def turn_body(
    id: str,
    session: str,
    input: Sequence[Message],
    added: Sequence[Message],
    steps: Sequence[Mapping[str, Any]],
    *,
    stop: LlamaStackStopReason,
    started_ns: int,
    has_ended: bool,
) -> Payload:
    """A turn; its output is the last thing the agent said."""
    said = [message for message in added if message.role == "assistant"]
    last = said[-1] if said else assistant("")
    return {
        "turn_id": id,
        "session_id": session,
        "input_messages": [from_message(message) for message in input],
        "steps": list(steps),
        "output_message": from_message(last, stop_reason=stop),
        "output_attachments": [],
        "started_at": moment(started_ns),
        "completed_at": steps[-1].get("completed_at") if steps and has_ended else None,
    }


def event(kind: str, **fields: Any) -> Payload:
    """A piece of a turn's stream."""
    return {"event": {"payload": {"event_type": kind, **fields}}}
