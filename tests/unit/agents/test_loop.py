"""The loop without any I/O: needs come out, replies go in, all as plain lists."""

import pytest

from llamakit.agents.loop import (
    Approve,
    CallTools,
    Check,
    Ended,
    Infer,
    Inferred,
    LoopSettings,
    LoopTool,
    ToolOutcome,
    run_turn,
)
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import ToolCall, ToolSpec, Usage, assistant, tool_result, user

ADD = LoopTool(spec=ToolSpec(name="add"))
ASK = LoopTool(spec=ToolSpec(name="ask"), needs_approval=True)
LOCAL = LoopTool(spec=ToolSpec(name="local"), runs="client")


def call(id: str, name: str = "add", arguments: str = "{}") -> ToolCall:
    return ToolCall(id=id, name=name, arguments=arguments)


def says(text: str = "", *calls: ToolCall, reason: str = "stop", tokens: int = 10) -> Inferred:
    return Inferred(assistant(text, *calls), reason, Usage(prompt_tokens=5, completion_tokens=tokens))  # type: ignore[arg-type]


def play(turn, *replies) -> tuple[list, Ended]:
    """The needs in order and the end, with these replies."""
    needs, waiting = [], list(replies)
    try:
        need = next(turn)
        while True:
            needs.append(need)
            need = turn.send(waiting.pop(0))
    except StopIteration as end:
        assert waiting == []
        return needs, end.value


def test_an_answer_ends_the_turn():
    needs, ended = play(run_turn([user("hi")], [ADD]), says("hello"))
    assert [type(need) for need in needs] == [Infer]
    assert needs[0].tools == (ADD.spec,) and needs[0].tool_choice == "auto"
    assert (ended.reason, ended.messages, ended.usage.total_tokens) == ("done", (assistant("hello"),), 15)


def test_calls_are_answered_together_and_the_model_reads_them():
    one, two = call("1"), call("2")
    outcomes = [ToolOutcome("three"), ToolOutcome("broke", is_error=True)]
    needs, ended = play(run_turn([user("go")], [ADD]), says("", one, two), outcomes, says("done"))
    assert needs[1].calls == (one, two)
    assert needs[2].messages[-2:] == (tool_result(one, "three"), tool_result(two, "broke"))
    assert ended.reason == "done" and len(ended.messages) == 4
    assert ended.usage.completion_tokens == 20


def test_a_call_of_no_tool_is_told_and_the_run_goes_on():
    needs, ended = play(run_turn([user("go")], [ADD]), says("", call("1", "subtract")), says("I cannot"))
    assert "no tool 'subtract'; the tools are: add" in needs[1].messages[-1].text
    assert ended.reason == "done"


def test_client_tools_end_the_turn_after_the_others_ran():
    mine, theirs = call("1"), call("2", "local")
    needs, ended = play(run_turn([user("go")], [ADD, LOCAL]), says("", mine, theirs), [ToolOutcome("3")])
    assert (ended.reason, ended.pending) == ("client tools", (theirs,))
    assert ended.messages[-1] == tool_result(mine, "3")
    resumed = [user("go"), *ended.messages, tool_result(theirs, "4")]
    needs, ended = play(run_turn(resumed, [ADD, LOCAL]), says("7"))
    assert [type(need) for need in needs] == [Infer] and ended.reason == "done"


def test_approval_now_later_or_never():
    wants = call("1", "ask")
    needs, ended = play(run_turn([user("go")], [ASK]), says("", wants), {"1": True}, [ToolOutcome("ok")], says("done"))
    assert needs[1] == Approve((wants,)) and ended.reason == "done"
    needs, ended = play(run_turn([user("go")], [ASK]), says("", wants), {"1": False}, says("pity"))
    assert "refused" in needs[2].messages[-1].text
    _, ended = play(run_turn([user("go")], [ASK]), says("", wants), {})
    assert (ended.reason, ended.pending) == ("approval", (wants,))
    later = run_turn([user("go"), *ended.messages], [ASK], decisions={"1": True})
    needs, ended = play(later, [ToolOutcome("ok")], says("done"))
    assert isinstance(needs[0], CallTools) and ended.reason == "done"


def test_every_bound_ends_the_turn():
    def calling(n: int) -> Inferred:
        return says("", call(str(n), arguments=f'{{"n": {n}}}'))

    one = [ToolOutcome("x")]
    _, ended = play(run_turn([user("go")], [ADD], LoopSettings(max_steps=2)), calling(1), one, calling(2), one)
    assert ended.reason == "steps"
    needs, ended = play(run_turn([user("go")], [ADD], LoopSettings(max_tokens=15)), calling(1), one, calling(2), one)
    assert ended.reason == "tokens" and [need.max_tokens for need in needs if isinstance(need, Infer)] == [15, 5]
    now = iter([0.0, 1.0, 2.0, 3.0, 50.0, 101.0, 102.0])
    _, ended = play(
        run_turn([user("go")], [ADD], LoopSettings(max_seconds=100), clock=lambda: next(now)), calling(1), one
    )
    assert ended.reason == "time"
    same = [says("", call(str(n), arguments='{"a": 1}' if n % 2 else '{ "a":1 }')) for n in range(4)]
    replies = [reply for answer in same for reply in (answer, one)][:-1]
    _, ended = play(run_turn([user("go")], [ADD], LoopSettings(max_repeats=3)), *replies)
    assert ended.reason == "repeating" and len(ended.pending) == 1


def test_a_spent_call_limit_is_told_and_no_more_tools_are_offered():
    calls = [call(str(n), arguments=str(n)) for n in range(3)]
    turn = run_turn([user("go")], [ADD], LoopSettings(max_calls=2))
    needs, ended = play(turn, says("", *calls), [ToolOutcome("a"), ToolOutcome("b")], says("done"))
    assert len(needs[1].calls) == 2
    assert "limit of 2" in needs[2].messages[-1].text and needs[2].tools == () and needs[2].tool_choice == "none"
    assert ended.reason == "done"


def test_a_demand_for_a_tool_holds_once():
    for choice in ("required", "add"):
        turn = run_turn([user("go")], [ADD], LoopSettings(tool_choice=choice))
        needs, _ = play(turn, says("", call("1")), [ToolOutcome("x")], says("done"))
        assert [need.tool_choice for need in needs if isinstance(need, Infer)] == [choice, "auto"]
    needs, _ = play(run_turn([user("go")], [ADD], LoopSettings(tool_choice="none")), says("no tools"))
    assert needs[0].tools == ()


def test_one_call_at_a_time():
    first, second = call("1"), call("2")
    turn = run_turn([user("go")], [ADD], LoopSettings(parallel=False))
    needs, _ = play(turn, says("", first, second), [ToolOutcome("x")], says("done"))
    assert needs[1].calls == (first,) and "one call at a time" in needs[2].messages[-1].text


def test_shields_stand_at_input_output_and_tools():
    shielded = LoopSettings(check_input=True, check_output=True, check_tools=True)
    needs, ended = play(run_turn([user("bad")], [ADD], shielded), "not that")
    assert needs == [Check("input", (user("bad"),))]
    assert (ended.reason, ended.refusal, ended.messages) == ("refused", "not that", ())
    _, ended = play(run_turn([user("x")], [ADD], shielded), None, says("bad"), "not that")
    assert ended.reason == "refused" and ended.messages == ()
    needs, ended = play(
        run_turn([user("x")], [ADD], shielded), None, says("", call("1")), None, [ToolOutcome("bad")], "not that"
    )
    assert needs[-1] == Check("tools", (tool_result(call("1"), "bad"),))
    assert ended.reason == "refused" and all(message.role != "tool" for message in ended.messages)


@pytest.mark.parametrize(("reason", "end"), [("length", "length"), ("cancelled", "cancelled"), ("error", "error")])
def test_an_answer_that_stopped_early_says_so(reason: str, end: str):
    assert play(run_turn([user("x")], []), says("half", reason=reason))[1].reason == end


def test_what_cannot_be_run_is_refused():
    for conversation in ([], [user("x"), assistant("y")]):
        with pytest.raises(InvalidRequest, match="add a message"):
            next(run_turn(conversation, []))
    with pytest.raises(InvalidRequest, match="same name"):
        run_turn([user("x")], [ADD, ADD])
    with pytest.raises(InvalidRequest, match="tool_choice"):
        run_turn([user("x")], [ADD], LoopSettings(tool_choice="other"))
    with pytest.raises(ConfigError):
        LoopSettings(max_steps=0)


def test_a_driver_that_sends_nonsense_is_told():
    turn = run_turn([user("x")], [ADD])
    next(turn)
    with pytest.raises(TypeError, match="Inferred"):
        turn.send(None)
