"""The literal parser: both notations, every depth, no evaluation."""

from __future__ import annotations

import ast
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.text.calls.literals import LiteralFault, read_literal, to_json, write_literal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(value=VALUES)
def test_json_reads_as_json(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=2)):
        assert read_literal(text) == (value, len(text))


@settings(max_examples=200, deadline=None)
@given(value=VALUES)
def test_python_reads_as_python(value: object) -> None:
    text = repr(value)
    assert read_literal(text) == (value, len(text))


@settings(max_examples=200, deadline=None)
@given(value=VALUES)
def test_written_literals_are_python_and_read_back(value: object) -> None:
    text = write_literal(value)
    assert ast.literal_eval(text) == value
    assert read_literal(text) == (value, len(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("  'it\\'s'", "it's"),
        ('"""a "quoted" b\nc"""', 'a "quoted" b\nc'),
        ("''", ""),
        ("''''''", ""),
        ("'''it's'''", "it's"),
        ("'a\nb'", "a\nb"),
        ("(1, 2,)", [1, 2]),
        ("()", []),
        ("{'a': [True, false, None, null],}", {"a": [True, False, None, None]}),
        ("{a: 1, b=2}", {"a": 1, "b": 2}),
        ("{1: 'x', 2.5: 'y'}", {"1": "x", "2.5": "y"}),
        ('"\\ud83d\\ude42"', "🙂"),
        ('"\\ud83d"', "\ufffd"),
        ("'\\U0001f642\\x41\\101\\q\\/'", "🙂AA\\q/"),
        ("'\\\n'", ""),
        ("-1_000", -1000),
        ("+5", 5),
        ("0x1F", 31),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("12345678901234567890123", 12345678901234567890123),
    ],
)
def test_what_models_write(text: str, value: object) -> None:
    assert read_literal(text) == (value, len(text))


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "x", "os.system('x')", "__import__('os')", "f(1)", "1e999", "-1e999", "nan", "Infinity", "'", '"abc',
        "'abc\\", "[1 2]", "[1", "{", "{'a'", "{'a':", "{'a' 1}", "{'a': }", "{[1]: 2}", "(1", "[1)", "9" * 5000,
        "1" + "0" * 5000 + ".0", "[" * 66 + "]" * 66, "*", "-", "{,}", "[,]",
    ],
)  # fmt: skip
def test_what_is_no_literal(text: str) -> None:
    with pytest.raises(LiteralFault):
        read_literal(text)


@settings(max_examples=500, deadline=None)
@given(text=st.text("[](){}'\"\\,:=01.eE+-_xuUnTtrueFalsN \n", max_size=40))
def test_total_and_only_json_values(text: str) -> None:
    try:
        value, end = read_literal(text)
    except LiteralFault:
        return
    assert 0 < end <= len(text)
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize(
    "text", ["'" + "\\n" * 200_000, "'" + "a" * 200_000, "[" + "1," * 100_000, "{" + "a:1," * 60_000]
)
def test_time_is_linear(text: str) -> None:
    start = time.process_time()
    with pytest.raises(LiteralFault):
        read_literal(text)
    assert time.process_time() - start < 3
