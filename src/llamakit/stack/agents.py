"""Agents of a server: what they are made of, their sessions, and their turns, all kept as rows of their owner."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llamakit.agents.loop import LoopSettings
from llamakit.agents.session import Session, Sessions, StoredTurn
from llamakit.agents.tools import Tool, ToolBox
from llamakit.api.inference import Inference
from llamakit.api.llama_stack_agents import (
    LlamaStackAgentConfig,
    LlamaStackGroupUse,
    LlamaStackResumeRequest,
    LlamaStackTurnRequest,
    client_specs,
    groups_of,
    sampling_of,
    with_documents,
)
from llamakit.api.llama_stack_content import to_parts
from llamakit.api.llama_stack_messages import to_messages
from llamakit.api.llama_stack_tools import LlamaStackToolConfig, to_choice
from llamakit.api.llama_stack_turns import Payload, moment
from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.core.messages import Message, ToolCall, ToolSpec, system, tool_result
from llamakit.stack.agent_turn import AgentTurn, Chat, Judge, TurnPlan, written
from llamakit.stack.storage import Storage
from llamakit.stack.tool_groups import ToolGroups
from llamakit.storage.ids import AGENT, SESSION, STEP, TURN
from llamakit.storage.sql import Database, Executor, Row, Statement
from llamakit.storage.tables import Table, create_owned

AGENTS = Table("agents", ("config",), ids=AGENT)
DEFAULT_STEPS = 10
TURN_S = 600.0
DEAD_AFTER_S = TURN_S + 120
"""A turn that is still running then has lost its process."""
UNANSWERED = "the client did not answer this call"


async def create_agents(transaction: Executor) -> None:
    """The migration that makes the table of agents."""
    for sql in create_owned("agents", "config TEXT NOT NULL"):
        await transaction.execute(sql)


class Agents:
    """The agents of one server."""

    def __init__(self, storage: Storage, inference: Inference, groups: ToolGroups, judge: Judge) -> None:
        self._storage = storage
        self._inference = inference
        self._groups = groups
        self._judge = judge

    # -- agents ------------------------------------------------------------------------------------

    async def create(self, owner: str, config: LlamaStackAgentConfig) -> dict[str, Any]:
        """Keep an agent; raises what would keep its turns from beginning."""
        await self._inference.model(config.model)
        sampling_of(config)
        client_specs(config)
        for use in groups_of(config.toolgroups):
            await self._resolved(owner, use)
        id = AGENT.new()
        database = await self._storage.database()
        await AGENTS.of(database, owner).insert(id, {"config": config.model_dump_json(exclude_none=True)})
        return {"agent_id": id}

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """An agent, or `NotFound`."""
        return _agent(await self._row(owner, id))

    async def list(self, owner: str) -> list[dict[str, Any]]:
        """Every agent of an owner, the first made first."""
        return [_agent(row) for row in await AGENTS.of(await self._storage.database(), owner).find()]

    async def delete(self, owner: str, id: str) -> None:
        """Remove an agent with its sessions and their turns."""
        AGENT.check(id)
        database = await self._storage.database()
        await database.run(
            AGENTS.of(database, owner).deleting(id),
            Statement(
                "DELETE FROM agent_turns WHERE owner = ?1 AND session IN "
                "(SELECT id FROM agent_sessions WHERE owner = ?1 AND agent = ?2)",
                (owner, id),
            ),
            Statement("DELETE FROM agent_sessions WHERE owner = ?1 AND agent = ?2", (owner, id)),
        )

    # -- sessions ----------------------------------------------------------------------------------

    async def begin_session(self, owner: str, agent: str, name: str) -> dict[str, Any]:
        """Begin a session with an agent."""
        await self._row(owner, agent)
        return {"session_id": (await (await self._sessions()).create(owner, agent, name)).id}

    async def session(self, owner: str, agent: str, id: str, turns: Sequence[str] | None = None) -> dict[str, Any]:
        """A session with its turns, or with those that are named."""
        sessions, found = await self._session(owner, agent, id)
        stored = await sessions.turns(owner, id)
        return _session(found, [turn for turn in stored if turns is None or turn.id in turns])

    async def sessions(self, owner: str, agent: str) -> list[dict[str, Any]]:
        """The sessions of an agent, without their turns, the first begun first."""
        await self._row(owner, agent)
        return [_session(one, []) for one in await (await self._sessions()).of_agent(owner, agent)]

    async def end_session(self, owner: str, agent: str, id: str) -> None:
        """Remove a session and its turns."""
        sessions, _ = await self._session(owner, agent, id)
        await sessions.delete(owner, id)

    # -- turns -------------------------------------------------------------------------------------

    async def turn(self, owner: str, agent: str, session: str, id: str) -> dict[str, Any]:
        """A turn of a session, or `NotFound`."""
        return written(await self._turn(owner, agent, session, id))

    async def step(self, owner: str, agent: str, session: str, turn: str, id: str) -> dict[str, Any]:
        """A step of a turn, or `NotFound`."""
        stored = await self._turn(owner, agent, session, turn)
        for step in stored.steps:
            if step["step_id"] == id:
                return {"step": step}
        raise STEP.missing(id)

    async def begin_turn(
        self, owner: str, salt: str, agent: str, session: str, wire: LlamaStackTurnRequest, chat: Chat
    ) -> AsyncGenerator[Payload, None]:
        """The events of a new turn; `Conflict` while another of the session runs."""
        config = _config(await self._row(owner, agent))
        sessions, _ = await self._session(owner, agent, session)
        input = with_documents(to_messages(wire.messages), wire.documents)
        tools, specs = await self._tools(owner, config, wire)
        before = _settled(await sessions.turns(owner, session), input)
        plan = self._plan(config, salt, (*before, *input), tools, specs, wire.tool_config)
        stored = await self._begin(sessions, owner, session, input)
        return AgentTurn(owner, stored, plan, sessions, chat, self._judge).run()

    async def resume_turn(
        self, owner: str, salt: str, agent: str, session: str, id: str, wire: LlamaStackResumeRequest, chat: Chat
    ) -> AsyncGenerator[Payload, None]:
        """The events of a turn that goes on with what the client's tools gave; `Conflict` where it does not wait."""
        config = _config(await self._row(owner, agent))
        stored = await self._turn(owner, agent, session, id)
        if stored.state != "awaiting":
            raise Conflict(f"turn {id} does not wait for tools; it is {stored.state}")
        added = (*stored.added, *_answers(stored, wire))
        tools, specs = await self._tools(owner, config, None)
        sessions = await self._sessions()
        earlier = [turn for turn in await sessions.turns(owner, session) if turn.created_ns < stored.created_ns]
        said = (*_settled(earlier, stored.input), *stored.input, *added)
        plan = self._plan(config, salt, said, tools, specs, None, before=added)
        stored = await sessions.save(owner, stored, state="running", added=added, steps=stored.steps)
        return AgentTurn(owner, stored, plan, sessions, chat, self._judge).run()

    def _plan(
        self,
        config: LlamaStackAgentConfig,
        salt: str,
        said: tuple[Message, ...],
        tools: list[Tool],
        specs: tuple[ToolSpec, ...],
        tool_config: LlamaStackToolConfig | None,
        *,
        before: tuple[Message, ...] = (),
    ) -> TurnPlan:
        box = ToolBox.of(tools, specs)
        loop_tools = tuple(box.for_loop())
        choice = to_choice(
            None if tool_config is not None else config.tool_choice,
            tool_config or config.tool_config,
            [tool.spec for tool in loop_tools],
        )
        shields = tuple(config.input_shields or ()), tuple(config.output_shields or ())
        settings = LoopSettings(
            max_steps=config.max_infer_iters or DEFAULT_STEPS,
            max_seconds=TURN_S,
            tool_choice=choice.name or choice.mode,
            check_input=bool(shields[0]) and not before,
            check_output=bool(shields[1]),
        )
        return TurnPlan(
            model=config.model,
            salt=salt,
            sampling=sampling_of(config),
            conversation=((system(config.instructions),) if config.instructions else ()) + said,
            before=before,
            tools=box,
            loop_tools=loop_tools,
            settings=settings,
            input_shields=shields[0],
            output_shields=shields[1],
        )

    async def _tools(
        self, owner: str, config: LlamaStackAgentConfig, wire: LlamaStackTurnRequest | None
    ) -> tuple[list[Tool], tuple[ToolSpec, ...]]:
        """The server's tools for a turn, and the client's."""
        tools: list[Tool] = []
        for use in groups_of(config.toolgroups, wire.toolgroups if wire is not None else None):
            group, name = await self._resolved(owner, use)
            found = await self._groups.tools(owner, group, args=use.args)
            tools += [tool for tool in found if name is None or tool.spec.name == name]
        return tools, client_specs(config)

    async def _resolved(self, owner: str, use: LlamaStackGroupUse) -> tuple[str, str | None]:
        """The group that is meant, and the one tool of it, if one is; `NotFound` where there is none."""
        try:
            return (await self._groups.get(owner, use.name)).id, None
        except NotFound:
            group, slash, tool = use.name.rpartition("/")
            if not slash:
                raise
            return (await self._groups.get(owner, group)).id, tool

    async def _begin(self, sessions: Sessions, owner: str, session: str, input: Sequence[Message]) -> StoredTurn:
        """A new row; a turn whose process died long ago does not stand in its way."""
        try:
            return await sessions.begin(owner, session, input)
        except Conflict:
            oldest = time.time_ns() - int(DEAD_AFTER_S * 1e9)
            running = [turn for turn in await sessions.turns(owner, session) if turn.state == "running"]
            if not running or any(turn.created_ns > oldest for turn in running):
                raise
            for turn in running:
                await sessions.save(
                    owner, turn, state="failed", added=turn.added, steps=turn.steps, reason="the server stopped"
                )
            return await sessions.begin(owner, session, input)

    async def _row(self, owner: str, id: str) -> Row:
        return await AGENTS.of(await self._storage.database(), owner).get(AGENT.check(id))

    async def _sessions(self) -> Sessions:
        database: Database = await self._storage.database()
        return Sessions(database)

    async def _session(self, owner: str, agent: str, id: str) -> tuple[Sessions, Session]:
        sessions = await self._sessions()
        found = await sessions.get(owner, SESSION.check(id))
        if found.agent != agent:
            raise SESSION.missing(id)
        return sessions, found

    async def _turn(self, owner: str, agent: str, session: str, id: str) -> StoredTurn:
        sessions, _ = await self._session(owner, agent, session)
        return await sessions.turn(owner, session, TURN.check(id))


def _agent(row: Row) -> dict[str, Any]:
    return {
        "agent_id": row["id"],
        "agent_config": json.loads(row["config"]),
        "created_at": moment(row["created_ns"]),
    }


def _config(row: Row) -> LlamaStackAgentConfig:
    return LlamaStackAgentConfig.model_validate_json(row["config"])


def _session(session: Session, turns: Sequence[StoredTurn]) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "session_name": session.name,
        "started_at": moment(session.created_ns),
        "turns": [written(turn) for turn in turns],
    }


def _settled(turns: Sequence[StoredTurn], input: Sequence[Message]) -> list[Message]:
    """What was said before: turns that came to nothing left out, calls that nobody answered answered so."""
    answered = {message.tool_call_id for message in input if message.role == "tool"}
    said: list[Message] = []
    for turn in turns:
        if turn.state in ("done", "awaiting"):
            said += [*turn.input, *turn.added]
            left = [call for call in pending_calls(turn) if call.id not in answered]
            said += [tool_result(call, UNANSWERED) for call in left]
    return said


def pending_calls(turn: StoredTurn) -> tuple[ToolCall, ...]:
    """The calls of a turn that have no result."""
    given = {message.tool_call_id for message in turn.added if message.role == "tool"}
    return tuple(call for message in turn.added for call in message.tool_calls if call.id not in given)


def _answers(turn: StoredTurn, wire: LlamaStackResumeRequest) -> list[Message]:
    """The results of every call that waits, in their order; raises `InvalidRequest` for one missing or too many."""
    waiting = {call.id: call for call in pending_calls(turn)}
    given = {response.call_id: response for response in wire.tool_responses}
    strange = [id for id in given if id not in waiting]
    missing = [id for id in waiting if id not in given]
    if strange or missing or len(given) != len(wire.tool_responses):
        raise InvalidRequest(
            f"tool_responses must answer each call that waits once: {', '.join(waiting)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(id[:64] for id in strange) or 'none'}",
            param="tool_responses",
        )
    return [
        Message(
            role="tool",
            content=to_parts(given[id].content, f"tool_responses[{index}].content"),
            tool_call_id=id,
            name=call.name,
        )
        for index, (id, call) in enumerate(waiting.items())
    ]
