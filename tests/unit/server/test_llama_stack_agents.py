"""Agents over HTTP: sessions, turns step by step, tools on either side, shields, and whose they are."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager

import pytest
from tests.serving import echo_stack, events_of, in_process

from llamakit.agents.loop import ToolOutcome
from llamakit.agents.tools import Tool
from llamakit.api.llama_stack_turns import LlamaStackSession, LlamaStackTurn, LlamaStackTurnChunk
from llamakit.core.config import Secret
from llamakit.core.messages import ToolSpec
from llamakit.safety.shields import Violation
from llamakit.server.app import build_app
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.tool_groups import ToolGroup

KEYS = ("key-of-anna", "key-of-boris")
ANNA, BORIS = ({"authorization": f"Bearer {key}"} for key in KEYS)
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": [{"name": "city", "parameter_type": "string", "description": "Where."}],
}


class Groups:
    """One group with one tool, in place of those a server has."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def get(self, owner: str, id: str) -> ToolGroup:
        from llamakit.core.errors import NotFound

        if id != "mcp::clock":
            raise NotFound(f"no tool group {id!r}")
        return ToolGroup(id=id, provider_id="clock")

    async def tools(self, owner: str, group: str, *, args=None) -> list[Tool]:
        async def call(arguments):
            self.asked.append((args, arguments))
            return ToolOutcome("it is noon", data={"zone": "UTC"})

        return [Tool(spec=ToolSpec(name=name, parameters={"type": "object"}), call=call) for name in ("clock", "gong")]


@asynccontextmanager
async def client_of(judge=None, **settings):
    stack = echo_stack()
    groups = Groups()
    stack.agents._groups = groups  # type: ignore[assignment]
    if judge is not None:
        stack.agents._judge = judge
    async with in_process(build_app(stack, ServeConfig(**settings))) as client:
        client.groups = groups
        try:
            yield client
        finally:
            await stack.aclose()


async def agent_of(client, headers=None, **config) -> str:
    config = {"model": "echo", "instructions": "Be brief.", **config}
    made = await client.post("/v1/agents", json={"agent_config": config}, headers=headers)
    assert made.status_code == 200, made.text
    agent = made.json()["agent_id"]
    made = await client.post(f"/v1/agents/{agent}/session", json={"session_name": "s"}, headers=headers)
    return f"/v1/agents/{agent}/session/{made.json()['session_id']}"


def said(text: str, **fields) -> dict:
    return {"messages": [{"role": "user", "content": text}], **fields}


async def payloads(client, path: str, body: dict) -> list[dict]:
    answer = await client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text)
    for one in events:
        LlamaStackTurnChunk.model_validate(one)
    return [one["event"]["payload"] for one in events]


async def test_a_turn_is_told_step_by_step_and_kept():
    async with client_of() as client:
        session = await agent_of(client)
        told = await payloads(client, f"{session}/turn", said("hello"))
        assert [one["event_type"] for one in told[:2]] == ["turn_start", "step_start"]
        assert [one["event_type"] for one in told[-2:]] == ["step_complete", "turn_complete"]
        text = "".join(one["delta"]["text"] for one in told if one["event_type"] == "step_progress")
        turn = told[-1]["turn"]
        assert turn["output_message"]["content"] == text != ""
        assert turn["output_message"]["stop_reason"] == "end_of_turn" and turn["completed_at"]
        path = f"{session}/turn/{turn['turn_id']}"
        assert (await client.get(path)).json() == turn
        (step,) = turn["steps"]
        assert (await client.get(f"{path}/step/{step['step_id']}")).json() == {"step": step}
        whole = (await client.post(f"{session}/turn", json=said("again"))).json()
        LlamaStackTurn.model_validate(whole)
        kept = (await client.get(session)).json()
        LlamaStackSession.model_validate(kept)
        assert [one["turn_id"] for one in kept["turns"]] == [turn["turn_id"], whole["turn_id"]]
        one = (await client.get(session, params={"turn_ids": whole["turn_id"]})).json()
        assert [found["turn_id"] for found in one["turns"]] == [whole["turn_id"]]


async def test_the_servers_tools_run_and_their_facts_are_told():
    async with client_of() as client:
        session = await agent_of(client, toolgroups=[{"name": "mcp::clock/clock", "args": {"zone": "UTC"}}])
        told = await payloads(client, f"{session}/turn", said("ask the clock"))
        kinds = [one["step_type"] for one in told if one["event_type"] == "step_complete"]
        assert kinds == ["inference", "tool_execution", "inference"]
        step = next(
            one["step_details"] for one in told if one.get("step_type") == "tool_execution" and "step_details" in one
        )
        assert step["tool_responses"][0]["content"] == "it is noon"
        assert step["tool_responses"][0]["metadata"] == {"zone": "UTC"}
        assert client.groups.asked == [({"zone": "UTC"}, {})]
        statuses = [one["delta"]["parse_status"] for one in told if one.get("delta", {}).get("type") == "tool_call"]
        assert statuses[0] == "started" and statuses[-1] == "succeeded"
        assert "noon" in told[-1]["turn"]["output_message"]["content"]


async def test_the_clients_tools_are_waited_for():
    async with client_of() as client:
        session = await agent_of(client, client_tools=[WEATHER])
        told = await payloads(client, f"{session}/turn", said("the weather please"))
        assert told[-1]["event_type"] == "turn_awaiting_input"
        turn = told[-1]["turn"]
        (call,) = turn["output_message"]["tool_calls"]
        assert call["tool_name"] == "weather" and turn["output_message"]["stop_reason"] == "end_of_message"
        path = f"{session}/turn/{turn['turn_id']}/resume"
        wrong = await client.post(path, json={"tool_responses": [{"call_id": "other", "content": "x"}]})
        assert wrong.status_code == 400 and call["call_id"] in wrong.json()["detail"]
        answer = {"call_id": call["call_id"], "tool_name": "weather", "content": "sunny"}
        told = await payloads(client, path, {"tool_responses": [answer]})
        assert told[-1]["event_type"] == "turn_complete" and told[-1]["turn"]["turn_id"] == turn["turn_id"]
        assert len(told[-1]["turn"]["steps"]) == 2 and "sunny" in told[-1]["turn"]["output_message"]["content"]
        again = await client.post(path, json={"tool_responses": [answer]})
        assert again.status_code == 409


async def test_a_call_that_nobody_answered_does_not_stop_the_next_turn():
    async with client_of() as client:
        session = await agent_of(client, client_tools=[WEATHER])
        await payloads(client, f"{session}/turn", said("the weather please"))
        told = await payloads(client, f"{session}/turn", said("never mind"))
        assert told[-1]["event_type"] == "turn_complete"


async def test_a_call_can_be_answered_in_the_next_turns_messages():
    async with client_of() as client:
        session = await agent_of(client, client_tools=[WEATHER])
        waiting = (await payloads(client, f"{session}/turn", said("the weather please")))[-1]["turn"]
        call = waiting["output_message"]["tool_calls"][0]["call_id"]
        answer = {"messages": [{"role": "tool", "call_id": call, "content": "rain"}]}
        told = await payloads(client, f"{session}/turn", answer)
        assert "rain" in told[-1]["turn"]["output_message"]["content"]


async def test_documents_are_read_and_addresses_are_not_fetched():
    async with client_of() as client:
        session = await agent_of(client)
        data = "data:text/plain;base64," + base64.b64encode(b"plums").decode()
        documents = [
            {"content": "pears", "mime_type": "text/plain"},
            {"content": {"uri": data}, "mime_type": "text/plain"},
        ]
        turn = (await client.post(f"{session}/turn", json=said("fruit", documents=documents))).json()
        assert "pears" in turn["output_message"]["content"] and "plums" in turn["output_message"]["content"]
        far = [{"content": {"uri": "http://127.0.0.1/x"}, "mime_type": "text/plain"}]
        refused = await client.post(f"{session}/turn", json=said("fruit", documents=far))
        assert refused.status_code == 400 and "not fetched" in refused.json()["detail"]


@pytest.mark.parametrize("side", ["input_shields", "output_shields"])
async def test_a_shield_can_refuse_either_side(side: str):
    async def judge(owner, shield, messages):
        return Violation(shield=shield, user_message="No.", categories=("S1",)) if "bomb" in messages[-1].text else None

    async with client_of(judge) as client:
        session = await agent_of(client, **{side: ["guard"]})
        fine = await payloads(client, f"{session}/turn", said("cake"))
        assert fine[-1]["turn"]["output_message"]["content"] != "No."
        told = await payloads(client, f"{session}/turn", said("bomb"))
        turn = told[-1]["turn"]
        assert turn["output_message"]["content"] == "No."
        (found,) = [step for step in turn["steps"] if step["step_type"] == "shield_call"]
        assert found["violation"]["violation_level"] == "error"
        assert found["violation"]["metadata"]["categories"] == ["S1"]


async def test_one_turn_at_a_time_and_a_client_that_leaves_stops_it():
    async with client_of() as client:
        session = await agent_of(client, toolgroups=["mcp::clock"])
        hold = asyncio.Event()

        async def slow(owner, group, *, args=None):
            async def call(arguments):
                await hold.wait()
                return "late"

            return [Tool(spec=ToolSpec(name="clock", parameters={"type": "object"}), call=call)]

        client.groups.tools = slow
        first = asyncio.create_task(client.post(f"{session}/turn", json=said("clock")))
        await asyncio.sleep(0.2)
        second = await client.post(f"{session}/turn", json=said("hello"))
        assert second.status_code == 409
        hold.set()
        assert (await first).status_code == 200


async def test_steps_are_bounded():
    async with client_of() as client:
        session = await agent_of(client, toolgroups=["mcp::clock"], max_infer_iters=1)
        turn = (await client.post(f"{session}/turn", json=said("clock"))).json()
        assert turn["output_message"]["stop_reason"] == "out_of_tokens"


@pytest.mark.parametrize(
    ("config", "status", "words"),
    [
        ({"model": "nobody"}, 404, "nobody"),
        ({"toolgroups": ["mcp::none"]}, 404, "mcp::none"),
        ({"client_tools": [WEATHER | {"parameters": [{"name": "x", "parameter_type": "thing"}]}]}, 400, "thing"),
        ({"max_infer_iters": 0}, 400, "max_infer_iters"),
        ({"sampling_params": {"strategy": {"type": "beam"}}}, 400, "strategy"),
        ({"toolgroups": [7]}, 400, "toolgroups"),
    ],
)
async def test_an_agent_that_cannot_be_is_refused_at_once(config: dict, status: int, words: str):
    async with client_of() as client:
        body = {"agent_config": {"model": "echo", "instructions": "", **config}}
        answer = await client.post("/v1/agents", json=body)
        assert answer.status_code == status and words in json.dumps(answer.json())


async def test_everything_belongs_to_its_owner_and_goes_with_its_agent():
    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        session = await agent_of(client, ANNA)
        agent = session.rpartition("/session/")[0]
        turn = (await client.post(f"{session}/turn", json=said("hi"), headers=ANNA)).json()
        path = f"{session}/turn/{turn['turn_id']}"
        step = f"{path}/step/{turn['steps'][0]['step_id']}"
        for method, one in [
            ("GET", agent),
            ("GET", session),
            ("GET", path),
            ("GET", step),
            ("GET", f"{agent}/sessions"),
        ]:
            assert (await client.request(method, one, headers=BORIS)).status_code == 404
            assert (await client.request(method, one, headers=ANNA)).status_code == 200
        for one in (agent, session):
            assert (await client.delete(one, headers=BORIS)).status_code == 404
        assert (await client.post(f"{session}/turn", json=said("hi"), headers=BORIS)).status_code == 404
        resume = {"tool_responses": []}
        assert (await client.post(f"{path}/resume", json=resume, headers=BORIS)).status_code == 404
        assert (await client.get("/v1/agents", headers=BORIS)).json()["data"] == []
        listed = (await client.get("/v1/agents", params={"limit": 1}, headers=ANNA)).json()
        assert [one["agent_id"] for one in listed["data"]] == [agent.rpartition("/")[2]]
        other = await agent_of(client, ANNA)
        foreign = f"{other.rpartition('/session/')[0]}/session/{session.rpartition('/')[2]}"
        assert (await client.get(foreign, headers=ANNA)).status_code == 404
        assert (await client.delete(agent, headers=ANNA)).status_code == 204
        for one in (agent, session, path):
            assert (await client.get(one, headers=ANNA)).status_code == 404
        assert (await client.delete(other, headers=ANNA)).status_code == 204
