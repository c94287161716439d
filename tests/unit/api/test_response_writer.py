"""The order of a response's events, whatever a model and its tools do; and what is read from items again."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.api.hosted_tools import HostedResult
from llamakit.api.openai_response_calls import Offered
from llamakit.api.openai_response_events import ResponseEvent
from llamakit.api.openai_response_history import history_of, read_compaction, write_compaction
from llamakit.api.openai_response_items import MessageItem, to_stored
from llamakit.api.openai_response_resource import WireResponse, resource_of
from llamakit.api.openai_response_writer import ResponseWriter
from llamakit.api.openai_responses import ResponseRequest
from llamakit.core.errors import EngineStopped, InvalidRequest
from llamakit.core.messages import Done, Finish, TextDelta, ToolCallDelta, Usage

OFFERED = {
    "look": Offered(is_hosted=True, kind="web_search"),
    "find": Offered(is_hosted=True, kind="file_search"),
    "run": Offered(is_hosted=True, kind="code_interpreter"),
    "remote": Offered(is_hosted=True, kind="mcp", label="srv"),
    "ask": Offered(is_hosted=True, kind="mcp", label="srv", needs_approval=True),
    "mine": Offered(kind="function"),
    "free": Offered(kind="custom"),
}
ARGUMENTS = '{"query": "q", "code": "1+1", "input": "some text"}'
ENDS = {"response.completed", "response.incomplete", "response.failed"}


def writer():
    wire = ResponseRequest(model="m", input="x")
    resource = resource_of(wire, id="resp_1", created_at=1, model="m", defaults={}, status="queued")
    return ResponseWriter(resource, OFFERED, include=("file_search_call.results",))


pieces = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=3)
steps = st.lists(
    st.one_of(
        pieces.map(lambda texts: [TextDelta(text=text) for text in texts]),
        st.sampled_from([*OFFERED, "made_up"]),
    ),
    max_size=4,
)
turns = st.lists(st.tuples(steps, st.sampled_from(["stop", "length"])), min_size=1, max_size=3)


def played(turns_, *, is_queued=False):
    """All events of a response whose model does this."""
    made = writer()
    events = [copy.deepcopy(event) for event in made.begin(is_queued=is_queued)]

    def see(new):
        events.extend(copy.deepcopy(list(new)))

    for steps_, reason in turns_:
        index = 0
        for step in steps_:
            if isinstance(step, str):
                see(made.push(ToolCallDelta(index=index, id="theirs", name=step)))
                for at in range(0, len(ARGUMENTS), 20):
                    see(made.push(ToolCallDelta(index=index, arguments=ARGUMENTS[at : at + 20])))
                index += 1
            else:
                for event in step:
                    see(made.push(event))
        see(made.push(Finish(reason=reason)))
        see(made.push(Done(usage=Usage(prompt_tokens=2, completion_tokens=3))))
        for call in made.take_calls():
            if call.offered.is_hosted and not call.offered.needs_approval:
                see(made.running(call))
                see(made.ran(call, HostedResult(output="found", citations={"[1]": CITED})))
        if reason == "length":
            break
    see(made.finish(9))
    return made, events


CITED = {"type": "url_citation", "url": "https://x", "title": "X"}


@settings(max_examples=150, deadline=None)
@given(turns, st.booleans())
def test_events_come_in_the_published_order(turns_, is_queued):
    _, events = played(turns_, is_queued=is_queued)
    for number, event in enumerate(events):
        wire = ResponseEvent.model_validate(event | {"sequence_number": number}).root
        assert not wire.__pydantic_extra__, event
    kinds = [event["type"] for event in events]
    first = ["response.created", *(["response.queued"] if is_queued else []), "response.in_progress"]
    assert kinds[: len(first)] == first and not set(kinds[len(first) :]) & set(first)
    assert kinds[-1] in ENDS and not set(kinds[:-1]) & ENDS
    final = events[-1]["response"]
    assert not WireResponse.model_validate(final).__pydantic_extra__
    by_item = {}
    for event in events:
        if "output_index" in event:
            by_item.setdefault(event["output_index"], []).append(event)
    assert sorted(by_item) == list(range(len(final["output"])))
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == sorted(added)
    for position, own in by_item.items():
        item = final["output"][position]
        assert own[0]["type"] == "response.output_item.added" and own[-1]["type"] == "response.output_item.done"
        assert own[-1]["item"] == item
        assert {event.get("item_id", item["id"]) for event in own} == {item["id"]}
        check_item(item, own[1:-1])
    assert len({item["id"] for item in final["output"]}) == len(final["output"])
    assert final["usage"]["total_tokens"] == 5 * sum(1 for _ in turns_[: cut_at(turns_)])


def cut_at(turns_):
    return next((at + 1 for at, (_, reason) in enumerate(turns_) if reason == "length"), len(turns_))


def check_item(item, middle):
    kinds = [event["type"] for event in middle]
    deltas = "".join(event["delta"] for event in middle if event["type"].endswith(".delta"))
    match item["type"]:
        case "message":
            assert kinds[0] == "response.content_part.added" and kinds[-1] == "response.content_part.done"
            assert deltas == item["content"][0]["text"] and middle[-1]["part"] == item["content"][0]
            assert item["phase"] in ("commentary", "final_answer")
        case "function_call" | "mcp_call":
            assert deltas == item["arguments"]
        case "custom_tool_call":
            assert deltas == item["input"] == "some text"
        case "code_interpreter_call":
            assert deltas == item["code"] == "1+1"
        case "web_search_call":
            assert item["action"]["query"] == "q"
        case "file_search_call":
            assert item["queries"] == ["q"]


@settings(max_examples=60, deadline=None)
@given(turns)
def test_the_same_model_gives_the_same_events(turns_):
    assert played(turns_)[1] == played(turns_)[1]


def test_a_cut_answer_says_so_in_every_place():
    _, events = played([([[TextDelta(text="ab")]], "length")])
    final = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete" and final["status"] == "incomplete"
    assert final["incomplete_details"] == {"reason": "max_output_tokens"}
    assert final["output"][0]["status"] == "incomplete"


def test_citations_are_where_the_text_has_their_marks():
    _, events = played([(["look"], "stop"), ([[TextDelta(text="see [1]!")]], "stop")])
    (annotation,) = events[-1]["response"]["output"][-1]["content"][0]["annotations"]
    assert annotation == CITED | {"start_index": 4, "end_index": 7}
    assert "response.output_text.annotation.added" in [event["type"] for event in events]


def test_an_answer_that_failed_keeps_what_was_written():
    made = writer()
    list(made.begin())
    list(made.push(TextDelta(text="half")))
    (event,) = made.fail("server_error", "why")
    assert event["response"]["status"] == "failed" and event["response"]["error"]["message"] == "why"
    assert event["response"]["output"][0]["content"][0]["text"] == "half"
    assert event["response"]["output"][0]["status"] == "incomplete"


def test_an_end_that_is_no_answer_is_raised():
    with pytest.raises(EngineStopped):
        list(writer().push(Finish(reason="cancelled")))


def items(*bodies):
    return [(body, {}) for body in bodies]


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}


def test_calls_join_the_turn_before_them():
    said = to_stored(MessageItem(role="assistant", content="let me see"))
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    turn, result = history_of(items(said, CALL, output)).messages
    assert turn.text == "let me see" and turn.tool_calls[0].arguments == '{"a": 1}'
    assert result.role == "tool" and result.name == "f" and result.tool_call_id == "c"


def test_tools_that_ran_here_are_told_with_what_they_gave():
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    hidden = {"name": "look", "arguments": "{}", "output": "found"}
    turn, result = history_of([(search, hidden)]).messages
    assert turn.tool_calls[0].name == "look" and result.text == "found"
    assert history_of([(search, {})]).messages == ()


def test_a_refused_call_is_told_as_refused():
    request = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "f", "arguments": "{}"}
    answer = {"type": "mcp_approval_response", "id": "mcpa_1", "approval_request_id": "mcpr_1", "approve": False}
    _, result = history_of(items(request, answer | {"reason": "no"})).messages
    assert "did not allow" in result.text and "no" in result.text
    assert history_of(items(request, answer | {"approve": True})).messages == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"type": "function_call_output", "call_id": "none", "output": "x"}, "input[0].call_id"),
        (CALL | {"arguments": "{"}, "input[0].arguments"),
        (CALL | {"arguments": "[1]"}, "input[0].arguments"),
        ({"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}, "input[0].encrypted_content"),
        ({"type": "compaction", "id": "cmp_1", "encrypted_content": "W10="}, "input[0].encrypted_content"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": "x"}]},
            "input[0].content[0].type",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]},
            "input[0].content[0].image_url",
        ),
        (
            {"type": "mcp_approval_response", "id": "m", "approval_request_id": "no", "approve": True},
            "input[0].approval_request_id",
        ),
    ],
    ids=str,
)
def test_bad_items_name_their_field(body, param):
    with pytest.raises(InvalidRequest) as caught:
        history_of(items(body))
    assert caught.value.param == param


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_compaction_and_back(text):
    assert read_compaction(write_compaction(text), "x") == (text, "none")
    assert read_compaction(write_compaction(text, "all"), "x") == (text, "all")
    json.dumps(write_compaction(text)).encode()
