"""`/v1/agents`: agents, their sessions, and their turns, streamed step by step."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.llama_stack_agents import (
    LlamaStackAgentRequest,
    LlamaStackResumeRequest,
    LlamaStackSessionRequest,
    LlamaStackTurnRequest,
    set_aside,
)
from llamakit.api.llama_stack_lists import LlamaStackStretch, read_stretch, stretch_body
from llamakit.api.llama_stack_turns import (
    LlamaStackAgent,
    LlamaStackNewAgent,
    LlamaStackNewSession,
    LlamaStackSession,
    LlamaStackStepAnswer,
    LlamaStackTurn,
    LlamaStackTurnChunk,
    Payload,
)
from llamakit.api.openai_answer import to_json
from llamakit.core.errors import EngineStopped
from llamakit.server.dialects import PLAIN_EVENTS
from llamakit.server.exchange import Principal, exchange_of
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service

TAG = "llama stack agents"
STRETCH = (
    Query(name="start_index", about="Index of the first; 0 when left out."),
    Query(name="limit", about="How many at most."),
)
_AGENT = "/v1/agents/{agent_id}"
_SESSION = f"{_AGENT}/session/{{session_id}}"
_TURN = f"{_SESSION}/turn/{{turn_id}}"


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    return [*_agents(service), *_sessions(service), *_turns(service)]


def _agents(service: Service) -> list[Operation]:
    agents = service.stack.agents

    async def list_agents(http: Request) -> Response:
        stretch = read_stretch(http.query_params)
        return json_response(stretch_body(await agents.list(_who(http).name), stretch, "/v1/agents"))

    async def create_agent(http: Request) -> Response:
        wire = await service.read(http, LlamaStackAgentRequest, lambda asked: set_aside(asked.agent_config))
        return json_response(await agents.create(_who(http).name, wire.agent_config))

    async def get_agent(http: Request) -> Response:
        return json_response(await agents.get(_who(http).name, http.path_params["agent_id"]))

    async def delete_agent(http: Request) -> Response:
        await agents.delete(_who(http).name, http.path_params["agent_id"])
        return Response(status_code=204)

    return [
        Operation(
            name="listAgents",
            method="GET",
            path="/v1/agents",
            about="Agents.",
            endpoint=list_agents,
            tag=TAG,
            answer=LlamaStackStretch,
            query=STRETCH,
        ),
        Operation(
            name="createAgent",
            method="POST",
            path="/v1/agents",
            about="A new agent.",
            endpoint=create_agent,
            tag=TAG,
            body=LlamaStackAgentRequest,
            answer=LlamaStackNewAgent,
        ),
        Operation(
            name="getAgent",
            method="GET",
            path=_AGENT,
            about="An agent.",
            endpoint=get_agent,
            tag=TAG,
            answer=LlamaStackAgent,
        ),
        Operation(
            name="deleteAgent",
            method="DELETE",
            path=_AGENT,
            about="Delete an agent with its sessions.",
            endpoint=delete_agent,
            tag=TAG,
            is_empty=True,
        ),
    ]


def _sessions(service: Service) -> list[Operation]:
    agents = service.stack.agents

    async def list_sessions(http: Request) -> Response:
        stretch = read_stretch(http.query_params)
        found = await agents.sessions(_who(http).name, http.path_params["agent_id"])
        return json_response(stretch_body(found, stretch, f"/v1/agents/{http.path_params['agent_id']}/sessions"))

    async def create_session(http: Request) -> Response:
        wire = await service.read(http, LlamaStackSessionRequest)
        made = await agents.begin_session(_who(http).name, http.path_params["agent_id"], wire.session_name)
        return json_response(made)

    async def get_session(http: Request) -> Response:
        turns = http.query_params.getlist("turn_ids") + http.query_params.getlist("turn_ids[]")
        return json_response(await agents.session(_who(http).name, *_session_path(http), turns or None))

    async def delete_session(http: Request) -> Response:
        await agents.end_session(_who(http).name, *_session_path(http))
        return Response(status_code=204)

    return [
        Operation(
            name="listAgentSessions",
            method="GET",
            path=f"{_AGENT}/sessions",
            about="Sessions of an agent.",
            endpoint=list_sessions,
            tag=TAG,
            answer=LlamaStackStretch,
            query=STRETCH,
        ),
        Operation(
            name="createAgentSession",
            method="POST",
            path=f"{_AGENT}/session",
            about="Begin a session with an agent.",
            endpoint=create_session,
            tag=TAG,
            body=LlamaStackSessionRequest,
            answer=LlamaStackNewSession,
        ),
        Operation(
            name="getAgentSession",
            method="GET",
            path=_SESSION,
            about="A session with its turns.",
            endpoint=get_session,
            tag=TAG,
            answer=LlamaStackSession,
            query=(Query(name="turn_ids", about="Only these turns; may be repeated."),),
        ),
        Operation(
            name="deleteAgentSession",
            method="DELETE",
            path=_SESSION,
            about="Delete a session with its turns.",
            endpoint=delete_session,
            tag=TAG,
            is_empty=True,
        ),
    ]


def _turns(service: Service) -> list[Operation]:
    agents = service.stack.agents

    async def create_turn(http: Request) -> Response:
        wire = await service.read(http, LlamaStackTurnRequest)
        who = _who(http)
        begun = agents.begin_turn(who.name, who.salt, *_session_path(http), wire, service.metered(http))
        return await answer(http, await begun, is_streamed=bool(wire.stream))

    async def resume_turn(http: Request) -> Response:
        wire = await service.read(http, LlamaStackResumeRequest)
        who = _who(http)
        begun = agents.resume_turn(who.name, who.salt, *_turn_path(http), wire, service.metered(http))
        return await answer(http, await begun, is_streamed=bool(wire.stream))

    async def get_turn(http: Request) -> Response:
        return json_response(await agents.turn(_who(http).name, *_turn_path(http)))

    async def get_step(http: Request) -> Response:
        return json_response(await agents.step(_who(http).name, *_turn_path(http), http.path_params["step_id"]))

    async def answer(http: Request, payloads: AsyncGenerator[Payload, None], *, is_streamed: bool) -> Response:
        if is_streamed:
            return service.sent(http, _texts(payloads), PLAIN_EVENTS)
        return json_response(await service.wanted(http, _last(payloads)))

    return [
        Operation(
            name="createAgentTurn",
            method="POST",
            path=f"{_SESSION}/turn",
            about="Say something to an agent.",
            endpoint=create_turn,
            tag=TAG,
            body=LlamaStackTurnRequest,
            answer=LlamaStackTurn,
            chunk=LlamaStackTurnChunk,
            framing=PLAIN_EVENTS,
        ),
        Operation(
            name="resumeAgentTurn",
            method="POST",
            path=f"{_TURN}/resume",
            about="Go on with what the client's tools gave.",
            endpoint=resume_turn,
            tag=TAG,
            body=LlamaStackResumeRequest,
            answer=LlamaStackTurn,
            chunk=LlamaStackTurnChunk,
            framing=PLAIN_EVENTS,
        ),
        Operation(
            name="getAgentTurn",
            method="GET",
            path=_TURN,
            about="A turn.",
            endpoint=get_turn,
            tag=TAG,
            answer=LlamaStackTurn,
        ),
        Operation(
            name="getAgentStep",
            method="GET",
            path=f"{_TURN}/step/{{step_id}}",
            about="A step of a turn.",
            endpoint=get_step,
            tag=TAG,
            answer=LlamaStackStepAnswer,
        ),
    ]


async def _texts(payloads: AsyncGenerator[Payload, None]) -> AsyncGenerator[str, None]:
    async with aclosing(payloads) as events:
        async for payload in events:
            yield to_json(payload)


async def _last(payloads: AsyncGenerator[Payload, None]) -> Payload:
    """The turn that the last event tells."""
    async with aclosing(payloads) as events:
        async for payload in events:
            turn = payload["event"]["payload"].get("turn")
            if turn is not None:
                return turn
    raise EngineStopped("the turn ended without its last event")


def _who(http: Request) -> Principal:
    return exchange_of(http).principal


def _session_path(http: Request) -> tuple[str, str]:
    return http.path_params["agent_id"], http.path_params["session_id"]


def _turn_path(http: Request) -> tuple[str, str, str]:
    return *_session_path(http), http.path_params["turn_id"]
