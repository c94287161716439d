"""Responses without HTTP: turns with this server's tools, truncation, background work, and taking it up again."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.api.hosted_tools import HostedResult
from llamakit.api.openai_responses import CompactRequest, ResponseRequest, ResponseTokensRequest
from llamakit.api.wire import read
from llamakit.core.errors import EngineStopped, InvalidRequest, NotFound, Overloaded, PromptTooLong, ToolError
from llamakit.core.faults import injected
from llamakit.core.messages import Done, Finish, TextDelta, ToolCallDelta, ToolSpec, Usage
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.stack.build import Stack
from llamakit.stack.response_events import EventLog, Replay, number, partial_output
from llamakit.stack.response_loop import ResponseLoop
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

OWNER = "tests"


class Scripted(EchoInference):
    """A model whose turns are written down: text, or calls as (name, arguments)."""

    def __init__(self, *turns, repeat_last=False, pause_s=0.0):
        super().__init__(EchoConfig())
        self.turns = list(turns)
        self.repeat_last = repeat_last
        self.pause_s = pause_s
        self.asked = []

    async def chat(self, request):
        self.asked.append(request)
        at = len(self.asked) - 1
        turn = self.turns[min(at, len(self.turns) - 1) if self.repeat_last else at]
        if request.tool_choice.mode == "none" and not isinstance(turn, str):
            turn = "enough"
        if isinstance(turn, str):
            for char in turn:
                await asyncio.sleep(self.pause_s)
                yield TextDelta(text=char)
        else:
            for index, (name, arguments) in enumerate(turn):
                yield ToolCallDelta(index=index, id=f"theirs{index}", name=name)
                yield ToolCallDelta(index=index, arguments=json.dumps(arguments))
        yield Finish(reason="stop")
        yield Done(usage=Usage(prompt_tokens=1, completion_tokens=2))


class Tool:
    """A tool that answers from a table, or fails."""

    def __init__(self, *names, answers=None, approvals=()):
        self.specs = tuple(ToolSpec(name=name) for name in names)
        self.answers = answers or {}
        self.approvals = approvals
        self.calls = []

    async def open(self, owner, settings):
        return self

    def needs_approval(self, name):
        return name in self.approvals

    async def call(self, name, arguments):
        self.calls.append((name, json.loads(arguments)))
        answer = self.answers.get(name, f"{name} done")
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, HostedResult) else HostedResult(output=answer)


def wire(**fields):
    asked, unknown = read(ResponseRequest, {"model": "echo", "input": "hi", **fields})
    assert not unknown
    return asked


def stack_of(inference, storage=None, **tools):
    storage = storage or Storage(":memory:", STEPS)
    return Stack(inference=inference, default_models=("echo",), storage=storage, hosted_tools=tools)


async def streamed(stack, **fields):
    plan = await stack.responses.prepare(OWNER, wire(**fields), "")
    return [event async for event in stack.responses.stream(OWNER, plan, stack.inference.chat)]


async def ended(stack, id):
    async with asyncio.timeout(10):
        while (found := await stack.responses.get(OWNER, id))["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
    return found


SEARCH = {"tools": [{"type": "web_search"}]}
MCP = {"tools": [{"type": "mcp", "server_label": "srv", "server_url": "https://x", "authorization": "secret"}]}


async def test_a_tool_of_the_server_is_run_and_its_result_read():
    model, tool = Scripted([("look", {"query": "llamas"})], "They spit."), Tool("look", answers={"look": "spit!"})
    stack = stack_of(model, web_search=tool)
    events = await streamed(stack, **SEARCH)
    kinds = [event["type"] for event in events]
    stages = [kind for kind in kinds if "web_search_call" in kind]
    assert stages == [f"response.web_search_call.{stage}" for stage in ("in_progress", "searching", "completed")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert tool.calls == [("look", {"query": "llamas"})]
    assert model.asked[1].messages[-1].text == "spit!" and model.asked[1].messages[-1].name == "look"
    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["web_search_call", "message"]
    assert final["usage"]["input_tokens"] == 2 and final["usage"]["output_tokens"] == 4
    # The next response reads the result again, though its item does not show it.
    model.turns.append("Yes.")
    await streamed(stack, previous_response_id=final["id"])
    assert [message.text for message in model.asked[2].messages] == ["hi", "", "spit!", "They spit.", "hi"]
    await stack.aclose()


async def test_credentials_are_kept_nowhere():
    stack = stack_of(Scripted("done", "done"), mcp=Tool("add"))
    plan = await stack.responses.prepare(OWNER, wire(**MCP, background=True), "")
    with pytest.raises(InvalidRequest, match="connector_id") as caught:
        await stack.responses.background.enqueue(OWNER, plan)
    assert caught.value.param == "tools[0].authorization" and "secret" not in str(caught.value)
    events = await streamed(stack, **MCP)
    database = await stack.storage.database()
    tables = [row["name"] for row in await database.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")]
    kept = [str(row) for table in tables for row in await database.fetch(f"SELECT * FROM {table}")]
    assert any(events[-1]["response"]["id"] in row for row in kept) and "secret" not in "".join(kept)
    await stack.aclose()


async def test_kinds_that_nothing_provides_are_refused_by_name():
    stack = stack_of(Scripted("x"))
    for tool in (
        {"type": "web_search"},
        {"type": "web_search_preview"},
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        MCP["tools"][0],
    ):
        with pytest.raises(InvalidRequest) as caught:
            await streamed(stack, tools=[tool])
        assert caught.value.param == "tools[0].type" and caught.value.code == "unsupported_tool"
    await stack.aclose()


async def test_tools_of_other_kinds_name_those_there_are():
    with pytest.raises(InvalidRequest, match="mcp"):
        wire(tools=[{"type": "telepathy"}])


async def test_the_answer_of_a_failing_tool_is_read_by_the_model():
    model, tool = Scripted([("look", {})], "ok"), Tool("look", answers={"look": ToolError("no network")})
    stack = stack_of(model, web_search=tool)
    final = (await streamed(stack, **SEARCH))[-1]["response"]
    assert final["status"] == "completed" and final["output"][0]["status"] == "failed"
    assert "no network" in model.asked[1].messages[-1].text
    await stack.aclose()


async def test_a_tool_that_does_not_exist_is_told_to_the_model_and_shown():
    model = Scripted([("made_up", {})], "sorry")
    stack = stack_of(model, web_search=Tool("look"))
    final = (await streamed(stack, **SEARCH))[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["function_call", "function_call_output", "message"]
    assert final["output"][1]["call_id"] == final["output"][0]["call_id"]
    assert "look" in model.asked[1].messages[-1].text
    await stack.aclose()


async def test_calls_of_the_client_end_the_response_after_the_servers_ran():
    function = {"type": "function", "name": "mine", "parameters": {"type": "object", "properties": {}}}
    model, tool = Scripted([("look", {}), ("mine", {})], "never"), Tool("look")
    stack = stack_of(model, web_search=tool)
    final = (await streamed(stack, tools=[*SEARCH["tools"], function]))[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["web_search_call", "function_call"]
    assert {item["status"] for item in final["output"]} == {"completed"} and len(model.asked) == 1
    with pytest.raises(InvalidRequest, match="no output for the tool call"):
        await streamed(stack, previous_response_id=final["id"], input=[])
    output = {"type": "function_call_output", "call_id": final["output"][1]["call_id"], "output": "1"}
    await streamed(stack, previous_response_id=final["id"], input=[output])
    assert [message.role for message in model.asked[1].messages] == ["user", "assistant", "tool", "assistant", "tool"]
    await stack.aclose()


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_no_more_tools_run_than_allowed(most):
    model = Scripted(*([("look", {"n": n})] for n in range(9)))
    tool = Tool("look")
    stack = stack_of(model, web_search=tool)
    final = (await streamed(stack, **SEARCH, max_tool_calls=most))[-1]["response"]
    assert len(tool.calls) == most and final["status"] == "completed"
    assert final["output"][-1]["content"][0]["text"] == "enough"
    assert {item["status"] for item in final["output"]} <= {"completed", "failed"}
    await stack.aclose()


@pytest.mark.parametrize("same", [True, False])
async def test_an_endless_loop_of_calls_ends_with_an_answer(same):
    model = Scripted(*([("look", {"n": 0 if same else n})] for n in range(20)))
    stack = stack_of(model, web_search=Tool("look"))
    plan = await stack.responses.prepare(OWNER, wire(**SEARCH), "")
    loop = ResponseLoop(plan, model, model.chat, max_steps=6)
    async for _ in loop.events():
        pass
    output = plan.resource["output"]
    assert output[-1]["content"][0]["text"] == "enough" and len(model.asked) <= 7
    assert all(item["status"] in ("completed", "failed") for item in output)
    await stack.aclose()


async def test_tools_of_an_mcp_server_are_listed_called_and_keep_their_secret():
    model, tool = Scripted([("remote", {"a": 1})], "done", "again"), Tool("remote")
    stack = stack_of(model, mcp=tool)
    events = await streamed(stack, **MCP)
    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["mcp_list_tools", "mcp_call", "message"]
    assert final["output"][1]["output"] == "remote done" and "secret" not in json.dumps(events)
    follow = (await streamed(stack, **MCP, previous_response_id=final["id"]))[-1]["response"]
    assert [item["type"] for item in follow["output"]] == ["message"]
    await stack.aclose()


@pytest.mark.parametrize("approve", [True, False])
async def test_a_call_that_needs_the_clients_word(approve):
    model, tool = Scripted([("remote", {"a": 1})], "done"), Tool("remote", approvals=("remote",))
    stack = stack_of(model, mcp=tool)
    first = (await streamed(stack, **MCP))[-1]["response"]
    request = first["output"][-1]
    assert request["type"] == "mcp_approval_request" and not tool.calls and len(model.asked) == 1
    word = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
    second = (await streamed(stack, **MCP, previous_response_id=first["id"], input=[word]))[-1]["response"]
    assert tool.calls == ([("remote", {"a": 1})] if approve else [])
    assert [item["type"] for item in second["output"]] == (["mcp_call", "message"] if approve else ["message"])
    assert ("done" if approve else "did not allow") in model.asked[1].messages[-1].text
    await stack.aclose()


async def test_text_is_bounded_over_all_turns():
    stack = stack_of(Scripted([("look", {})], [("look", {"n": 2})], "never"), web_search=Tool("look"))
    final = (await streamed(stack, **SEARCH, max_output_tokens=4))[-1]["response"]
    assert final["status"] == "incomplete" and final["incomplete_details"] == {"reason": "max_output_tokens"}
    await stack.aclose()


async def test_truncation_leaves_out_the_oldest_and_says_how_many():
    stack = stack_of(EchoInference(EchoConfig(context_length=400)))
    said = [{"role": role, "content": f"{n} " + "x" * 60} for n, role in enumerate(["user", "assistant"] * 6)]
    asked = {"input": [{"role": "system", "content": "rule"}, *said, {"role": "user", "content": "last"}]}
    with pytest.raises(PromptTooLong) as caught:
        await streamed(stack, **asked)
    assert caught.value.param == "input"
    final = (await streamed(stack, **asked, truncation="auto"))[-1]["response"]
    assert final["output"][0]["content"][0]["text"] == "last" and 0 < final["left_out_items"] < 13
    tokens = final["usage"]["input_tokens"]
    assert 250 < tokens <= 400 - 50
    with pytest.raises(PromptTooLong):
        await streamed(stack, input="x" * 500, truncation="auto")
    await stack.aclose()


async def test_nothing_is_kept_of_what_nobody_waited_for():
    stack = stack_of(EchoInference())
    plan = await stack.responses.prepare(OWNER, wire(), "")
    events = stack.responses.stream(OWNER, plan, stack.inference.chat)
    for _ in range(5):
        await anext(events)
    await events.aclose()
    assert not stack.inference.running
    with pytest.raises(NotFound):
        await stack.responses.get(OWNER, plan.id)
    await stack.aclose()


async def test_a_failure_in_the_middle_is_the_last_event_and_kept():
    class Breaking(Scripted):
        async def chat(self, request):
            yield TextDelta(text="half")
            raise Overloaded("full")

    stack = stack_of(Breaking())
    events = await streamed(stack)
    assert events[-1]["type"] == "response.failed"
    kept = await stack.responses.get(OWNER, events[-1]["response"]["id"])
    assert kept["status"] == "failed" and kept["error"]["code"] == "rate_limit_exceeded"
    assert kept["output"][0]["content"][0]["text"] == "half" and kept["output"][0]["status"] == "incomplete"
    with pytest.raises(Overloaded):
        plan = await stack.responses.prepare(OWNER, wire(), "")
        await stack.responses.whole(OWNER, plan, stack.inference.chat)
    await stack.aclose()


async def test_no_answer_is_acknowledged_before_its_commit():
    stack = stack_of(EchoInference())
    await stack.start()

    def full():
        raise InvalidRequest("the disk said no")

    plan = await stack.responses.prepare(OWNER, wire(), "")
    with injected("sqlite.before_commit", full):
        events = [event async for event in stack.responses.stream(OWNER, plan, stack.inference.chat)]
    assert events[-1]["type"] == "response.failed" and "disk" in events[-1]["response"]["error"]["message"]
    with pytest.raises(NotFound):
        await stack.responses.get(OWNER, plan.id)
    await stack.aclose()


async def test_a_chain_has_every_item_once():
    model = Scripted("0", "1", "2", "3", "x")
    stack = stack_of(model)
    before = None
    for n in range(4):
        final = (await streamed(stack, input=f"q{n}", previous_response_id=before))[-1]["response"]
        before = final["id"]
    assert [message.text for message in model.asked[3].messages] == ["q0", "0", "q1", "1", "q2", "2", "q3"]
    database = await stack.storage.database()
    assert (await database.fetch("SELECT count(*) AS n FROM items"))[0]["n"] == 8
    first = (await database.fetch("SELECT id FROM responses WHERE previous IS NULL"))[0]["id"]
    await stack.responses.delete(OWNER, first)
    with pytest.raises(InvalidRequest, match="deleted") as caught:
        await streamed(stack, previous_response_id=before)
    assert caught.value.code == "previous_response_not_found"
    await stack.aclose()


async def test_instructions_are_not_carried_over():
    model = Scripted("a", "b")
    stack = stack_of(model)
    first = (await streamed(stack, instructions="be kind"))[-1]["response"]
    await streamed(stack, previous_response_id=first["id"])
    assert [message.role for message in model.asked[0].messages] == ["system", "user"]
    assert [message.role for message in model.asked[1].messages] == ["user", "assistant", "user"]
    await stack.aclose()


async def test_tokens_counted_and_made_short():
    model = Scripted("answer", "the summary", "go")
    stack = stack_of(model)
    first = (await streamed(stack))[-1]["response"]
    asked, _ = read(ResponseTokensRequest, {"previous_response_id": first["id"], "input": "more"})
    assert (await stack.responses.compaction.count(OWNER, asked))["input_tokens"] > 20
    short, _ = read(CompactRequest, {"model": "echo", "previous_response_id": first["id"]})
    made = await stack.responses.compaction.compact(OWNER, short, "", stack.inference.chat)
    assert [item["type"] for item in made["output"]] == ["message", "compaction"]
    await streamed(stack, input=[*made["output"], {"role": "user", "content": "on"}])
    assert "the summary" in model.asked[2].messages[1].text
    await stack.aclose()


# In the background.


async def test_background_streams_can_be_joined_at_any_event():
    stack = stack_of(EchoInference(EchoConfig(delay_s=0.01)))
    plan = await stack.responses.prepare(OWNER, wire(input="a longer text", background=True), "")
    queued = await stack.responses.background.enqueue(OWNER, plan)
    assert queued["status"] == "queued"
    events = [event async for event in stack.responses.background.tail(OWNER, plan.id, -1)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    for after in (0, 5, len(events) - 1, len(events) + 5):
        again = [event async for event in stack.responses.background.tail(OWNER, plan.id, after)]
        assert again == events[after + 1 :]
    kept = await ended(stack, plan.id)
    assert kept == events[-1]["response"] and kept["background"] is True
    await stack.aclose()


async def test_cancelling_keeps_what_was_written():
    stack = stack_of(Scripted("x" * 1000, pause_s=0.01))
    plan = await stack.responses.prepare(OWNER, wire(background=True), "")
    await stack.responses.background.enqueue(OWNER, plan)
    seen = 0
    async for event in stack.responses.background.tail(OWNER, plan.id, -1):
        seen += event["type"] == "response.output_text.delta"
        if seen == 5:
            cancelled = await stack.responses.background.cancel(OWNER, plan.id)
            assert cancelled["status"] == "cancelled" and len(cancelled["output"][0]["content"][0]["text"]) >= 5
            assert cancelled["output"][0]["status"] == "incomplete"
    assert await stack.responses.background.cancel(OWNER, plan.id) == cancelled
    await asyncio.sleep(0.2)
    assert await stack.responses.get(OWNER, plan.id) == cancelled
    await stack.aclose()


async def test_only_background_responses_are_cancelled_or_streamed_again():
    stack = stack_of(EchoInference())
    final = (await streamed(stack))[-1]["response"]
    for operation in (stack.responses.background.cancel, stack.responses.background.check_streamable):
        with pytest.raises(InvalidRequest, match="background"):
            await operation(OWNER, final["id"])
    with pytest.raises(InvalidRequest):
        await streamed(stack, background=True, store=False)
    await stack.aclose()


async def test_an_orderly_stop_leaves_the_work_to_the_next_start(tmp_path):
    target = f"sqlite:{tmp_path}/x.db"
    stack = stack_of(EchoInference(EchoConfig(delay_s=0.02)), Storage(target, STEPS))
    conversation = await stack.conversations.create(OWNER, read_conversation())
    asked = wire(input="a text of some length", background=True, conversation=conversation["id"])
    plan = await stack.responses.prepare(OWNER, asked, "")
    await stack.responses.background.enqueue(OWNER, plan)
    early = []
    async for event in stack.responses.background.tail(OWNER, plan.id, -1):
        early.append(event)
        if len(early) == 9:
            break
    await stack.aclose()
    stack = stack_of(EchoInference(), Storage(target, STEPS))
    await stack.start()
    kept = await ended(stack, plan.id)
    assert kept["status"] == "completed" and kept["output"][0]["content"][0]["text"] == "a text of some length"
    events = [event async for event in stack.responses.background.tail(OWNER, plan.id, -1)]
    assert events[:9] == early and [event["sequence_number"] for event in events] == list(range(len(events)))
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == "a text of some length"
    items = await stack.conversations.history(OWNER, conversation["id"])
    assert [item.body["role"] for item in items] == ["user", "assistant"]
    await stack.aclose()


def read_conversation():
    from llamakit.api.openai_conversations import WireConversationRequest

    return WireConversationRequest()


async def test_a_model_that_answers_otherwise_the_second_time_fails_the_response(tmp_path):
    target = f"sqlite:{tmp_path}/x.db"
    stack = stack_of(Scripted("first answer", pause_s=0.05), Storage(target, STEPS))
    plan = await stack.responses.prepare(OWNER, wire(background=True), "")
    await stack.responses.background.enqueue(OWNER, plan)
    async for event in stack.responses.background.tail(OWNER, plan.id, -1):
        if event["type"] == "response.output_text.delta":
            break
    await stack.aclose()
    stack = stack_of(Scripted("other", repeat_last=True), Storage(target, STEPS))
    await stack.start()
    kept = await ended(stack, plan.id)
    assert kept["status"] == "failed" and "differs" in kept["error"]["message"]
    assert kept["output"][0]["content"][0]["text"][0] == "f"
    await stack.aclose()


async def test_a_tool_is_not_run_a_second_time(tmp_path):
    target = f"sqlite:{tmp_path}/x.db"
    tool = Tool("look")
    turns = [("look", {"q": 1})], "a long answer that takes its time"
    stack = stack_of(Scripted(*turns, pause_s=0.02), Storage(target, STEPS), web_search=tool)
    plan = await stack.responses.prepare(OWNER, wire(background=True, **SEARCH), "")
    await stack.responses.background.enqueue(OWNER, plan)
    async for event in stack.responses.background.tail(OWNER, plan.id, -1):
        if event["type"] == "response.output_text.delta":
            break
    await stack.aclose()
    stack = stack_of(Scripted(*turns), Storage(target, STEPS), web_search=tool)
    await stack.start()
    kept = await ended(stack, plan.id)
    assert kept["status"] == "completed" and len(tool.calls) == 1
    await stack.aclose()


async def test_bugs_fail_a_background_response_and_tell_nothing_of_the_inside(caplog):
    class Buggy(EchoInference):
        async def chat(self, request):
            raise KeyError("secret detail")
            yield

    stack = stack_of(Buggy())
    plan = await stack.responses.prepare(OWNER, wire(background=True), "")
    await stack.responses.background.enqueue(OWNER, plan)
    kept = await ended(stack, plan.id)
    assert kept["status"] == "failed" and "secret" not in json.dumps(kept)
    events = [event async for event in stack.responses.background.tail(OWNER, plan.id, -1)]
    assert [event["type"] for event in events] == ["response.failed"]
    await stack.aclose()


# Matching what comes again.

texts = st.lists(st.text(alphabet="ab", max_size=3), max_size=6)


def delta(text):
    return {"type": "response.output_text.delta", "item_id": "m", "content_index": 0, "delta": text}


def told(pieces):
    return [{"type": "response.created"}, *map(delta, pieces), {"type": "response.output_text.done", "x": 1}]


@settings(max_examples=200, deadline=None)
@given(texts, st.data())
def test_what_is_new_follows_what_is_kept_however_the_text_was_cut(pieces, data):
    whole = "".join(pieces)
    events = told(pieces)
    kept = [number(event, at) for at, event in enumerate(events[: data.draw(st.integers(0, len(events)))])]
    cuts = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole)), max_size=4))})
    again = told([whole[a:b] for a, b in itertools.pairwise(cuts)])
    replay = Replay(copy.deepcopy(kept))
    new = [part for event in again if (part := replay.new_part(event)) is not None]
    text = "".join(event.get("delta", "") for event in [*kept, *new])
    assert text == whole
    assert [event["type"] for event in [*kept, *new] if "delta" not in event] == [
        "response.created",
        "response.output_text.done",
    ]


def test_another_text_is_noticed():
    replay = Replay(told(["abc"])[:2])
    assert replay.new_part({"type": "response.created"}) is None
    with pytest.raises(EngineStopped):
        replay.new_part(delta("b"))


async def test_events_are_kept_in_batches_by_time_and_number():
    now = [0.0]
    batches = []

    async def flush(events):
        batches.append([event["sequence_number"] for event in events])

    log = EventLog(flush, first=3, clock=lambda: now[0])
    for _ in range(3):
        await log.write({"type": "x"})
    now[0] = 1.0
    await log.write({"type": "x"})
    await log.write({"type": "x"})
    assert batches == [[3, 4, 5, 6]] and [event["sequence_number"] for event in log.take()] == [7]


def test_partial_output_of_any_beginning():
    item = {"id": "m", "type": "message", "status": "in_progress", "content": []}
    events = [
        {"type": "response.created"},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", "output_index": 0, "part": {"type": "output_text", "text": ""}},
        delta("ab") | {"output_index": 0},
        {"type": "response.output_item.done", "output_index": 0, "item": item | {"status": "completed"}},
    ]
    for end, status in ((1, None), (2, "incomplete"), (4, "incomplete"), (5, "completed")):
        made = partial_output(copy.deepcopy(events[:end]))
        assert [one["status"] for one in made] == ([] if status is None else [status])


PRINTED = {"stdout": "a\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
SHELL = {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}
RAN = HostedResult(output="a\n[exit code 0]", fields={"output": [PRINTED, PRINTED], "container_id": "cntr_1"})


async def test_a_response_with_a_shell_is_taken_up_at_any_event():
    call = [("shell", {"commands": ["echo a", "echo a"]})]
    stack = stack_of(Scripted(call, "Done."), shell=Tool("shell", answers={"shell": RAN}))
    told = await streamed(stack, **SHELL)
    plain = [{name: value for name, value in event.items() if name != "sequence_number"} for event in told]
    for kept in range(len(told)):
        replay = Replay(copy.deepcopy(told[:kept]))
        assert [part for event in plain if (part := replay.new_part(copy.deepcopy(event))) is not None] == plain[kept:]
    assert [item["type"] for item in partial_output(told)] == ["shell_call", "shell_call_output", "message"]
    begun = next(at for at, event in enumerate(told) if "shell_call_output" in str(event.get("item")))
    assert [item["status"] for item in partial_output(told[: begun + 1])] == ["completed", "incomplete"]
    await stack.aclose()


async def test_commands_that_are_one_call_too_many_are_told_so():
    call = [("shell", {"commands": ["echo a"]})]
    tool = Tool("shell", answers={"shell": RAN})
    model = Scripted(call, "Enough.")
    stack = stack_of(model, shell=tool)
    final = (await streamed(stack, **SHELL, max_tool_calls=0))[-1]["response"]
    output = final["output"][1]
    assert not tool.calls and output["type"] == "shell_call_output"
    assert "limit of 0 tool calls" in output["output"][0]["stderr"] and output["output"][0]["outcome"]["exit_code"] == 1
    await stack.aclose()
