"""Forced and strict calls: what the constraint lets through is a call that fits, and only that."""

from __future__ import annotations

import llguidance
import pytest

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec, user
from llamakit.core.sampling import Constraint
from llamakit.runtime.ask import Ask, NamedTool
from llamakit.runtime.tool_choice import tool_constraint

EVENT = ToolSpec(
    name="create_event",
    parameters={
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "minutes": {"type": "integer"},
            "kind": {"enum": ["it's", "other"]},
            "who": {"type": "array", "items": {"type": "string"}},
            "private": {"type": "boolean"},
        },
        "required": ["title", "minutes"],
    },
)
PING = ToolSpec(name="ping")
OPTIONAL = ToolSpec(
    name="opt",
    strict=True,
    parameters={"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}},
)


def ask(choice, *tools: ToolSpec, parallel: bool = True) -> Ask:
    return Ask(messages=[user("x")], tools=tools, tool_choice=choice, parallel_tool_calls=parallel)


def accepts(constraint: Constraint, text: str) -> bool:
    if constraint.kind == "grammar":
        grammar = llguidance.LLMatcher.grammar_from_lark(constraint.source)
    else:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(constraint.source)
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (r"[create_event(title='it\'s late', minutes=30)]", True),
        ("""[create_event(title='x', minutes=3, kind='it\\'s', who=["a"], private=True)]""", True),
        ("[create_event(title='x', minutes=3, private=False)]", True),
        ('[create_event(title="a \\"b\\"", minutes=3, kind="it\'s")]', True),
        ("[ping()]", True),
        ("[opt(b=2.5), ping(), opt()]", True),
        ("[opt(a='x', b=-1)]", True),
        ("[create_event(minutes=3)]", False),
        ("[create_event(title='x', minutes='3')]", False),
        ("[create_event(title='x', minutes=3, kind='nope')]", False),
        ("[unknown()]", False),
        ("Hello", False),
    ],
)
def test_required_call_in_python_list(text: str, fits: bool) -> None:
    constraint = tool_constraint(ask("required", EVENT, PING, OPTIONAL), "python_list")
    assert constraint is not None
    assert accepts(constraint, text) is fits


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("python_list", "[ping()]"),
        ("json", '{"name": "ping", "parameters": {}}'),
        ("function_tag", "<function=ping>{}</function>"),
    ],
)
def test_named_tool_forces_that_tool_in_every_style(style, text: str) -> None:
    constraint = tool_constraint(ask(NamedTool(name="ping"), PING, EVENT), style)
    assert constraint is not None
    assert accepts(constraint, text)
    assert not accepts(constraint, "some text")
    assert not accepts(constraint, text.replace("ping", "create_event"))


def test_a_texts_pattern_binds_in_every_style() -> None:
    parameters = {"type": "object", "properties": {"input": {"type": "string", "pattern": "^(?:[0-9]+ EUR)$"}}}
    tool = ToolSpec(name="pay", strict=True, parameters=parameters | {"required": ["input"]})
    shapes = {
        "python_list": '[pay(input="{}")]',
        "json": '{{"name": "pay", "parameters": {{"input": "{}"}}}}',
        "function_tag": '<function=pay>{{"input": "{}"}}</function>',
    }
    for style, shape in shapes.items():
        constraint = tool_constraint(ask("auto", tool), style)  # pyright: ignore[reportArgumentType]
        assert constraint is not None
        assert accepts(constraint, shape.format("5 EUR")) and not accepts(constraint, shape.format("5 EUR, please"))


def test_one_call_where_parallel_calls_are_off() -> None:
    constraint = tool_constraint(ask("required", PING, parallel=False), "python_list")
    assert constraint is not None
    assert accepts(constraint, "[ping()]")
    assert not accepts(constraint, "[ping(), ping()]")


@pytest.mark.parametrize("style", ["python_list", "json", "function_tag"])
def test_strict_tools_leave_text_free_and_bind_calls(style) -> None:
    constraint = tool_constraint(ask("auto", OPTIONAL), style)
    assert constraint is not None
    assert accepts(constraint, "Hello there.\nHow are you?")
    bad = {"python_list": "[opt(c=1)]", "json": '{"name": "nope"}', "function_tag": "<function=nope>{}</function>"}
    assert not accepts(constraint, bad[style])


def test_a_free_choice_has_no_constraint() -> None:
    assert tool_constraint(ask("auto", PING, EVENT), "json") is None
    assert tool_constraint(ask("none", OPTIONAL), "json") is None
    assert tool_constraint(ask("auto"), "json") is None


def test_names_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="notation"):
        tool_constraint(ask("required", ToolSpec(name="a b")), "python_list")


def test_choices_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not in tools"):
        ask(NamedTool(name="other"), PING)
    with pytest.raises(InvalidRequest, match="needs tools"):
        ask("required")
