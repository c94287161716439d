"""Calls as the model writes them, read back by the parser."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolCall, ToolCallDelta, ToolSpec
from llamakit.text.calls.parser import ToolCallParser
from llamakit.text.calls.reading import toolbox
from llamakit.text.calls.writing import (
    arguments_of,
    write_builtin_call,
    write_json_calls,
    write_python_list,
    write_tagged_calls,
)

NAMES = ("get_weather", "book-room", "send")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["city", "days", "when", "note"])
CALLS = st.lists(
    st.builds(
        lambda name, arguments: ToolCall(id="call_1", name=name, arguments=json.dumps(arguments)),
        st.sampled_from(NAMES),
        st.dictionaries(KEYS, VALUES, max_size=3),
    ),
    min_size=1,
    max_size=3,
)
WRITERS: dict[str, Callable[[list[ToolCall]], str]] = {
    "json": lambda calls: write_json_calls(calls, typed=True),
    "untyped": lambda calls: write_json_calls(calls, typed=False),
    "tags": write_tagged_calls,
    "list": write_python_list,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("tagged", [False, True])
@settings(max_examples=100, deadline=None)
@given(calls=CALLS)
def test_what_is_written_reads_back(writer: str, tagged: bool, calls: list[ToolCall]) -> None:
    parser = ToolCallParser(toolbox([ToolSpec(name=name) for name in NAMES]), 7)
    parts = [*(parser.push(7) if tagged else []), *parser.push(WRITERS[writer](calls)), *parser.finish()]
    assert all(isinstance(part, ToolCallDelta) for part in parts)
    read = [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCallDelta)]
    assert read == [(call.name, json.loads(call.arguments)) for call in calls]
    assert parser.made_calls


def test_builtin_calls() -> None:
    search = ToolCall(id="x", name="brave_search", arguments='{"query": "a \\"b\\""}')
    assert write_builtin_call(search) == 'brave_search.call(query="a \\"b\\"")'
    code = ToolCall(id="x", name="code_interpreter", arguments='{"code": "print(1)\\n"}')
    assert write_builtin_call(code) == "print(1)\n"


def test_no_arguments_are_an_empty_object() -> None:
    assert arguments_of(ToolCall(id="x", name="f", arguments=" ")) == {}


def test_numbers_too_long_to_read_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="arguments of tool call 'f'"):
        arguments_of(ToolCall(id="x", name="f", arguments='{"a": ' + "9" * 5000 + "}"))
