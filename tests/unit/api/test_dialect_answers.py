"""Streams of the other dialects say what their whole answers say, whatever the events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.api.anthropic_answer import AnthropicMessage, MessageEvent, MessageEvents
from llamakit.api.anthropic_answer import to_body as to_message
from llamakit.api.ollama_answer import AnswerLines, OllamaChat, OllamaGenerated
from llamakit.api.ollama_answer import to_body as to_answer
from llamakit.core.errors import EngineStopped
from llamakit.core.messages import Done, Finish, PrefillProgress, TextDelta, ToolCallDelta, Usage, fold

TEXTS = st.lists(st.text(max_size=4), max_size=4)
ARGUMENTS = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2)
ENDS = st.sampled_from([("stop", None), ("stop", "END"), ("length", None), ("tool_calls", None)])


@st.composite
def answers(draw):
    """Events in an order that providers give: text, then calls one after the other, an end, the books."""
    events = [PrefillProgress(done=done, total=9, cached=2) for done in draw(st.sampled_from([(), (9,), (4, 9)]))]
    events += [TextDelta(text=text) for text in draw(TEXTS)]
    for index, arguments in enumerate(draw(st.lists(ARGUMENTS, max_size=3))):
        events.append(ToolCallDelta(index=index, id=f"call_{index}", name=f"tool_{index}"))
        events += [ToolCallDelta(index=index, arguments=char) for char in json.dumps(arguments)]
    reason, stop = draw(ENDS)
    usage = Usage(prompt_tokens=9, cached_tokens=2, completion_tokens=draw(st.integers(0, 99)))
    return [*events, Finish(reason=reason, stop=stop), Done(usage=usage)]


def rebuilt(events):
    """The message that a reader of Anthropic's stream puts together."""
    pieces = MessageEvents("msg-1", "m")
    message, arguments, names = {}, {}, []
    for event in events:
        for piece in pieces.push(event):
            head, data = piece.split("\n")
            value = json.loads(data.removeprefix("data: "))
            assert head == f"event: {value['type']}" and not MessageEvent.model_validate(value).model_extra
            names.append(value["type"])
            match value["type"]:
                case "message_start":
                    message = value["message"]
                case "content_block_start":
                    assert value["index"] == len(message["content"])
                    message["content"].append(value["content_block"])
                case "content_block_delta":
                    block = message["content"][value["index"]]
                    if value["delta"]["type"] == "text_delta":
                        block["text"] += value["delta"]["text"]
                    else:
                        arguments.setdefault(value["index"], []).append(value["delta"]["partial_json"])
                case "message_delta":
                    message |= value["delta"] | {"usage": value["usage"]}
    for index, parts in arguments.items():
        message["content"][index]["input"] = json.loads("".join(parts))
    assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop")
    return message


@settings(max_examples=100, deadline=None)
@given(answers())
def test_anthropics_stream_is_its_message(events):
    whole = to_message("msg-1", "m", fold(events))
    assert not AnthropicMessage.model_validate(whole).model_extra
    assert rebuilt(events) == whole


@settings(max_examples=100, deadline=None)
@given(answers(), st.booleans())
def test_ollamas_lines_are_its_answer(events, is_chat):
    whole = to_answer("m", fold(events), 1.0, is_chat=is_chat)
    writer = AnswerLines("m", is_chat=is_chat)
    lines = [json.loads(line) for event in events for line in writer.push(event)]
    kind = OllamaChat if is_chat else OllamaGenerated
    assert not any(kind.model_validate(value).model_extra for value in [*lines, whole])
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    for name in ("done_reason", "prompt_eval_count", "eval_count"):
        assert lines[-1][name] == whole[name]
    if is_chat:
        assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]
        calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
        assert calls == whole["message"].get("tool_calls", [])
    else:
        assert "".join(line["response"] for line in lines) == whole["response"]


CUT = [ToolCallDelta(index=0, id="c", name="t"), ToolCallDelta(index=0, arguments='{"a": "b')]
CUT += [Finish(reason="length"), Done(usage=Usage())]


def test_a_call_that_was_cut_off_is_not_made():
    whole = to_message("msg-1", "m", fold(CUT))
    assert whole["stop_reason"] == "max_tokens" and whole["content"][0]["input"] == {}
    answer = to_answer("m", fold(CUT), 1.0, is_chat=True)
    assert answer["done_reason"] == "length" and "tool_calls" not in answer["message"]
    writer = AnswerLines("m", is_chat=True)
    (line,) = [json.loads(line) for event in CUT for line in writer.push(event)]
    assert line["done_reason"] == "length"


@pytest.mark.parametrize("reason", ["cancelled", "error"])
def test_an_end_that_is_no_answer_is_an_error(reason):
    events = [TextDelta(text="a"), Finish(reason=reason), Done(usage=Usage())]
    for write in (lambda: to_message("i", "m", fold(events)), lambda: to_answer("m", fold(events), 1.0, is_chat=True)):
        with pytest.raises(EngineStopped):
            write()
    for writer in (MessageEvents("i", "m"), AnswerLines("m", is_chat=True)):
        with pytest.raises(EngineStopped):
            for event in events:
                list(writer.push(event))
