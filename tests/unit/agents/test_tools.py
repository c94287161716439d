import asyncio

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.agents.loop import ToolOutcome
from llamakit.agents.schema import problems
from llamakit.agents.tools import Tool, ToolBox, check_arguments
from llamakit.core.errors import InvalidRequest, ToolError
from llamakit.core.messages import ToolCall, ToolSpec

WEATHER = ToolSpec(
    name="weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 1, "maxLength": 20},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"enum": ["C", "F"]},
            "at": {"$ref": "#/$defs/place"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"place": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}},
    },
)


@pytest.mark.parametrize(
    "text",
    ['{"city": "Bern"}', '{"city": "Bern", "days": 3, "unit": "C", "at": [1, 2.5]}', '{"city": "B", "days": 2.0}'],
)
def test_fitting_arguments_pass(text: str):
    assert check_arguments(WEATHER, text)["city"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("", "lacks 'city'"),
        ("[]", "must be a JSON object, got list"),
        ("[" * 100_000, "not JSON"),
        ('{"city": NaN}', "not a JSON number"),
        ('{"city": 7}', "arguments.city must be string, got 7"),
        ('{"city": ""}', "at least 1 characters"),
        ('{"city": "B", "days": 8}', "at most 7"),
        ('{"city": "B", "days": true}', "must be integer, got true"),
        ('{"city": "B", "days": 1.5}', "must be integer"),
        ('{"city": "B", "unit": "K"}', 'one of ["C", "F"]'),
        ('{"city": "B", "more": 1}', "unknown 'more'; known are city, days, unit, at"),
        ('{"city": "B", "at": [1]}', "at least 2 items"),
        ('{"city": "B", "at": [1, "x"]}', r"arguments.at\[1\] must be number"),
        ('"' + "x" * (1 << 20) + '"', "at most 1048576"),
    ],
)
def test_what_does_not_fit_is_told(text: str, said: str):
    with pytest.raises(ToolError, match=said.replace('["', r"\[\"").replace('"]', r"\"\]")):
        check_arguments(WEATHER, text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 2.0]) | st.sampled_from(["", "a", "bb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
SCHEMAS = st.recursive(
    st.booleans()
    | st.fixed_dictionaries({"type": KINDS | st.lists(KINDS, min_size=1, max_size=3, unique=True)})
    | st.fixed_dictionaries({"enum": st.lists(JSON, min_size=1, max_size=3)})
    | st.fixed_dictionaries({"const": JSON})
    | st.fixed_dictionaries(
        {},
        optional={
            "minimum": st.integers(-3, 3), "maximum": st.integers(-3, 3), "exclusiveMinimum": st.integers(-3, 3),
            "multipleOf": st.sampled_from([1, 2, 0.5]), "minLength": st.integers(0, 2), "maxLength": st.integers(0, 2),
            "minItems": st.integers(0, 2), "maxItems": st.integers(0, 2), "uniqueItems": st.just(True),
            "maxProperties": st.integers(0, 2),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
            "additionalProperties": inner, "items": inner, "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2), "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2), "not": inner,
        },
    ),
    max_leaves=5,
)  # fmt: skip


@given(JSON, SCHEMAS)
@settings(max_examples=400, deadline=None)
def test_the_verdict_is_that_of_a_full_validator(value, schema):
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (problems(value, schema) == []) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"}, {"$ref": "#/nowhere"}, {"$ref": "https://example.com/schema"}, {"$ref": 7},
        {"type": 7}, {"enum": 7}, {"required": 7}, {"required": [[1]]}, {"properties": 7}, {"minimum": "x"},
        {"anyOf": 7}, {"multipleOf": 0}, {"pattern": "(a+)+$"}, None, 7, "x",
        {"anyOf": [{"$ref": "#"}] * 10}, {"allOf": [{"$ref": "#"}] * 10}, {"oneOf": [{"$ref": "#"}] * 10},
    ],
)  # fmt: skip
def test_a_hostile_schema_neither_raises_nor_hangs(schema):
    problems({"a": "a" * 40, "b": [1]}, schema)


def tool(name: str, call, **options) -> Tool:
    return Tool(spec=ToolSpec(name=name), call=call, **options)


async def test_every_failure_becomes_words():
    async def works(arguments):
        return "fine"

    async def breaks(arguments):
        raise KeyError("secret path /etc/x")

    async def refuses(arguments):
        raise ToolError("no such city")

    async def hangs(arguments):
        await asyncio.sleep(3600)

    async def floods(arguments):
        return ToolOutcome("x" * 1000)

    async def waits(arguments):
        raise TimeoutError("inner")

    calls = {"works": works, "breaks": breaks, "refuses": refuses, "hangs": hangs, "floods": floods, "waits": waits}
    box = ToolBox.of([tool(name, call, seconds=0.05, max_chars=100) for name, call in calls.items()])

    async def outcome(name: str, arguments: str = "{}") -> ToolOutcome:
        return await box.call(ToolCall(id="1", name=name, arguments=arguments))

    assert await outcome("works") == ToolOutcome("fine")
    assert (await outcome("breaks")) == ToolOutcome("the tool 'breaks' failed: KeyError", is_error=True)
    assert (await outcome("refuses")).text == "the tool 'refuses' failed: no such city"
    assert (await outcome("hangs")).text == "the tool 'hangs' did not answer within 0.05 s"
    assert (await outcome("waits")).is_error
    assert (await outcome("floods")).text.endswith("[cut: 900 more characters]")
    assert "no tool 'missing'" in (await outcome("missing")).text
    assert "not JSON" in (await outcome("works", "{'a': 1}")).text


def test_names_are_plain_and_single():
    async def call(arguments):
        return ""

    for name in ("", "a b", "a\nb", "x" * 200, "ü", "../x"):
        with pytest.raises(InvalidRequest, match="tool's name"):
            ToolBox.of([tool(name, call)])
    with pytest.raises(InvalidRequest, match="two tools"):
        ToolBox.of([tool("a", call)], [ToolSpec(name="a")])
    loop_tools = ToolBox.of([tool("a", call, needs_approval=True)], [ToolSpec(name="b")]).for_loop()
    assert [(t.spec.name, t.runs, t.needs_approval) for t in loop_tools] == [
        ("a", "server", True),
        ("b", "client", False),
    ]
