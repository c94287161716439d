"""Reading answers: every dialect, streamed as whole, nothing lost, nothing raised."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.messages import TextDelta, ToolSpec
from llamakit.text.calls.parser import ToolCallParser, new_call_id
from llamakit.text.calls.reading import Toolbox, toolbox

TAG = 7
WEATHER = ToolSpec(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
)
BOX = toolbox([WEATHER, ToolSpec(name="send"), ToolSpec(name="book-room")], ("brave_search", "code_interpreter"))

Item = str | tuple[str, object]


def read(pieces: Sequence[str | int], box: Toolbox = BOX) -> list[Item]:
    """Text and calls in order, neighbouring text joined."""
    parser = ToolCallParser(box, TAG)
    parts = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    items: list[Item] = []
    num_calls = 0
    for part in parts:
        if not isinstance(part, TextDelta):
            assert part.index == num_calls and part.name is not None and part.id is not None
            num_calls += 1
            items.append((part.name, json.loads(part.arguments)))
        elif items and isinstance(items[-1], str):
            items[-1] += part.text
        else:
            items.append(part.text)
    assert parser.made_calls == (num_calls > 0)
    return items


BERN = ("get_weather", {"city": "Bern"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # JSON
        ('{"name": "get_weather", "parameters": {"city": "Bern"}}', [BERN]),
        ('{"type": "function", "name": "get_weather", "parameters": {"city": "Bern"}}', [BERN]),
        ('{"name": "get_weather", "arguments": {"city": "Bern"}}', [BERN]),
        ('{"name": "get_weather", "arguments": "{\\"city\\": \\"Bern\\"}"}', [BERN]),
        ('{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Bern"}}}', [BERN]),
        ('{"type": "function", "function": "get_weather", "parameters": {"city": "Bern"}}', [BERN]),
        ('{"parameters": {"city": "Bern"}, "name": "get_weather"}', [BERN]),
        ("{'name': 'get_weather', 'parameters': {'city': 'Bern'}}", [BERN]),
        ('\n\n  {"name": "get_weather", "parameters": {"city": "Bern"}}\n', [BERN]),
        ('{"name": "unheard", "parameters": {"n": "10"}}', [("unheard", {"n": "10"})]),
        ('{"name": "send", "parameters": {"a": {"b": ["}", "]", "\\""]}}}', [("send", {"a": {"b": ["}", "]", '"']}})]),
        (
            '{"name": "send", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Bern"}}',
            [("send", {}), BERN],
        ),
        ('{"name": "send", "parameters": {}}\n{"name": "send", "parameters": {}}', [("send", {}), ("send", {})]),
        ('[{"name": "send", "parameters": {}}, {"name": "get_weather", "parameters": {"city": "Bern"}}]',
         [("send", {}), BERN]),
        ('```json\n{"name": "get_weather", "parameters": {"city": "Bern"}}\n```', [BERN]),
        ('```\n[get_weather(city="Bern")]\n```\n', [BERN]),
        # function tags
        ('<function=get_weather>{"city": "Bern"}</function>', [BERN]),
        ('<function=get_weather>{"city": "Bern"}', [BERN]),
        ('<function=get_weather>{"city": "Bern"}</func', [BERN]),
        ('<function=send>{"a": {"b": {}}}</function><function=get_weather>{"city": "Bern"}</function>',
         [("send", {"a": {"b": {}}}), BERN]),
        ('Let me see: <function=get_weather>{"city": "Bern"}</function> Done.', ["Let me see: ", BERN, " Done."]),
        # Python lists
        ("[get_weather(city='Bern')]", [BERN]),
        ("[get_weather(city='Bern'), send()]", [BERN, ("send", {})]),
        ('[get_weather("Bern", 3)]', [("get_weather", {"city": "Bern", "days": 3})]),
        ("[get_weather('Bern', days=-3,)]", [("get_weather", {"city": "Bern", "days": -3})]),
        ("[send(to=['a', 'b'], when={'at': (1, 2.5)}, on=True, off=None)]",
         [("send", {"to": ["a", "b"], "when": {"at": [1, 2.5]}, "on": True, "off": None})]),
        ("[\n  get_weather(\n    city = 'Bern'\n  )\n]", [BERN]),
        ("[send(note='''it's ]}) fine''')]", [("send", {"note": "it's ]}) fine"})]),
        ('[book-room(room="A")]', [("book-room", {"room": "A"})]),
        ("Sure.\n[get_weather(city='Bern')]\nIt is done.", ["Sure.", BERN, "\nIt is done."]),
        # built-in tools
        ('brave_search.call(query="gold \\"price\\"")', [("brave_search", {"query": 'gold "price"'})]),
        ('[brave_search.call(query="gold")]', [("brave_search", {"query": "gold"})]),
        ('{"name": "brave_search", "parameters": {"q": "gold"}}', [("brave_search", {"query": "gold"})]),
        ('<function=brave_search>{"text": "gold"}</function>', [("brave_search", {"query": "gold"})]),
    ],
)  # fmt: skip
def test_calls(text: str, wanted: list[Item]) -> None:
    assert read([text]) == wanted
    assert read(list(text)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "Hello there.",
        "",
        "\n\n",
        '{"answer": 42}',
        '{"name": "Bob", "age": 3}',
        '{"name": "get_weather"}',
        '{"name": "get_weather", "parameters": 3}',
        '{"name": 3, "parameters": {}}',
        '{"name": "get_weather", "parameters": {"city": "Be',
        "[1] See the note.\n[2] And this one.",
        "[unheard(x=1)]",
        "[get_weather(city=Bern)]",
        "[get_weather(city='Bern'",
        "[get_weather(1, 2, 3)]",
        "[send(open('/etc/passwd'))]",
        "[send(a=1e999)]",
        "[]",
        "get_weather returns the weather.",
        "get_weather(city='Bern')",
        "other.call(query='x')",
        "a < b and <b>bold</b> <function",
        "<function=>{}",
        "<function=f>text</function>",
        "<function=f>[1]</function>",
        "```json\n{}\n```",
        "```python\n[x for x in y]\n```",
        "[{'name': 'send', 'parameters': {}}, 3]",
        "{" * 200,
        "[" * 200,
    ],
)
def test_text_that_is_no_call_is_unchanged(text: str) -> None:
    wanted = [text] if text else []
    assert read([text]) == wanted
    assert read(list(text)) == wanted


def test_without_tools_nothing_is_a_call() -> None:
    text = '{"name": "get_weather", "parameters": {}}\n<function=f>{}</function>\n[get_weather()]'
    parser = ToolCallParser(toolbox([]), TAG)
    assert parser.push(text) == [TextDelta(text=text)]
    assert parser.finish() == [] and not parser.made_calls


def test_plain_text_is_not_held() -> None:
    parser = ToolCallParser(BOX, TAG)
    for word in ("Hello", " there", ".", " How", " are", " you?"):
        assert parser.push(word) == [TextDelta(text=word)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"name": "unheard", "parameters": {"city": "Bern"}}', [("unheard", {"city": "Bern"})]),
        ("[unheard(a=1), get_weather(city='Bern')]", [("unheard", {"a": 1}), BERN]),
        ("get_weather(city='Bern')", [BERN]),
        ('wolfram_alpha.call(query="pi")', [("wolfram_alpha", {"query": "pi"})]),
        ("print(1)", [("code_interpreter", {"code": "print(1)"})]),
        ("def f():\n    return {'name': 1}\n", [("code_interpreter", {"code": "def f():\n    return {'name': 1}\n"})]),
        ("[x for x in y]", [("code_interpreter", {"code": "[x for x in y]"})]),
        ("  \n", ["  \n"]),
        ("", []),
    ],
)
def test_after_the_python_tag(text: str, wanted: list[Item]) -> None:
    assert read([TAG, text]) == wanted
    assert read([TAG, *text]) == wanted
    assert read(["Let me see.", TAG, text]) == (["Let me see.", *wanted] if wanted != ["  \n"] else ["Let me see.  \n"])


def test_text_behind_a_tagged_call_stays_text() -> None:
    assert read([TAG, "[get_weather(city='Bern')]\nI asked."]) == [BERN, "\nI asked."]


def test_code_needs_somebody_to_run_it() -> None:
    box = toolbox([WEATHER])
    assert read([TAG, "print(1)"], box) == ["print(1)"]
    assert read([TAG, "print(1)"], toolbox([])) == [("code_interpreter", {"code": "print(1)"})]
    assert read([TAG, '{"name": "f", "parameters": {}}'], toolbox([])) == [("f", {})]


def test_several_python_tags() -> None:
    assert read([TAG, "[get_weather(city='Bern')]", TAG, "[send()]"]) == [BERN, ("send", {})]


def test_other_control_ids_carry_nothing() -> None:
    assert read(["a", 99, "b"]) == ["ab"]


def test_call_ids_are_random() -> None:
    assert re.fullmatch(r"call_[0-9a-f]{24}", new_call_id())
    assert len({new_call_id() for _ in range(100)}) == 100


FRAGMENTS = (
    '{"name": "get_weather", "parameters": {"city": "Bern"}}', '{"type":"function","name":"x","parameters":{}}',
    "[get_weather(city='Bern', days=3)]", '[get_weather("Bern", 2), send()]', "<function=get_weather>{'city': 'a'}",
    '<function=f>{"a":{"b":1}}</function>', 'brave_search.call(query="x")', "; ", "\n", " ", "```json\n", "```", "{",
    "}", "[", "]", "(", ")", '"', "'", "\\", "<", "<function=", "</function>", "get_weather", "name", '"name"', ":",
    ",", "Hello there", '{"answer": 4}', "'''", "\\u00e9", "true", "None", "1e999", "-3", "é🙂", "=", "send(",
    ".call(", " " * 20, "[[[[", '{"name":{"name":', '"id": 3', "\ud800", "\x00", "9" * 30,
)  # fmt: skip


def _cut(rng: random.Random, text: str) -> list[str]:
    pieces = []
    while text:
        size = rng.choice((1, 1, 2, 5, 20))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def _fuzz(seed: int, rounds: int) -> None:
    """Streamed equals whole; without calls the text is unchanged; arguments are always JSON objects."""
    rng = random.Random(seed)
    for _ in range(rounds):
        text = "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 12)))
        tag: list[str | int] = [TAG] if rng.random() < 0.3 else []
        whole = read([*tag, text])
        assert whole == read([*tag, *_cut(rng, text)])
        if all(isinstance(item, str) for item in whole):
            assert "".join(item for item in whole if isinstance(item, str)) == text
        assert all(isinstance(item, str) or isinstance(item[1], dict) for item in whole)


def test_fuzz() -> None:
    _fuzz(1, 3000)


@pytest.mark.slow
def test_fuzz_at_length() -> None:
    _fuzz(2, 100_000)


@settings(max_examples=300, deadline=None)
@given(text=st.text(), seed=st.integers(0, 2**32))
def test_any_text(text: str, seed: int) -> None:
    assert read([text]) == read(_cut(random.Random(seed), text))


HOSTILE = (
    "[get_weather(", '{"name":', "[\n", '\n\n{"', '{"name": "', "<function=", "```json\n", "<", "[send(a='", " ",
    "\n" + " " * 250 + "[", "[send(a=[", "```\n", "; ", '\n{"name": 1, "x": "', "<function=f>{}",
    '{"name":"send","parameters":{}}',
)  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("tagged", [False, True])
def test_time_is_linear(unit: str, tagged: bool) -> None:
    """Ten times the text takes about ten times as many lines of code; lines, because they do not depend on the day."""

    def cost(size: int) -> int:
        text = (unit * (size // len(unit) + 1))[:size]
        pieces: list[str | int] = [TAG] if tagged else []
        pieces += [text[at : at + 4] for at in range(0, size, 4)]
        lines = 0

        def count(frame: object, event: str, argument: object) -> object:
            nonlocal lines
            lines += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            read(pieces)
        finally:
            sys.settrace(before)
        return lines

    assert cost(12_000) < 13 * cost(1_200) + 1_000
