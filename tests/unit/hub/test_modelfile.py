"""The Modelfile parser: what it reads, what it refuses, and that writing and reading are inverse."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import SamplingParams
from llamakit.hub.modelfile import MAX_BYTES, Modelfile, from_json, merged, parse, parse_parameter, render, to_json

EXAMPLE = '''
# A comment
from llama3.2:1b
PARAMETER temperature 0.2
PARAMETER num_ctx 4096
PARAMETER stop "<end>"
PARAMETER stop Human:
PARAMETER mirostat 2
SYSTEM """You are terse.

Answer in one line."""
ADAPTER ./adapter
MESSAGE user "Is it \\"late\\"?"
MESSAGE assistant No.
LICENSE Apache-2.0
'''


def test_every_instruction_is_read() -> None:
    assert parse(EXAMPLE) == Modelfile(
        base="llama3.2:1b",
        parameters=(("temperature", 0.2), ("context", 4096), ("stop", "<end>"), ("stop", "Human:")),
        system="You are terse.\n\nAnswer in one line.",
        adapters=("./adapter",),
        messages=(("user", 'Is it "late"?'), ("assistant", "No.")),
        licence="Apache-2.0",
        set_aside=("mirostat",),
    )


def test_parameters_become_sampling_and_context() -> None:
    recipe = parse(EXAMPLE)
    assert recipe.context == 4096
    assert SamplingParams(**recipe.sampling()) == SamplingParams(temperature=0.2, stop=("<end>", "Human:"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SYSTEM hi", "no FROM; begin with"),
        ("FROM a\nFROM b", "FROM appears 2 times"),
        ("FROM a\nSYSTEM x\nSYSTEM y", "SYSTEM appears 2 times"),
        ("FROM a\nTEMPLATE {{ .Prompt }}", "line 2: TEMPLATE is not supported: the prompt format is tested code"),
        ("FROM a\nSYTEM x", "line 2: unknown instruction 'SYTEM'; nearest: 'SYSTEM'"),
        ("FROM a\nPARAMETER temprature 1", "line 2: unknown parameter 'temprature'; nearest: 'temperature'"),
        ("FROM a\nPARAMETER temperature hot", "line 2: temperature must be a number, got 'hot'"),
        ("FROM a\nPARAMETER temperature nan", "temperature must be a number"),
        ("FROM a\nPARAMETER top_k 1.5", "top_k must be an integer, got '1.5'"),
        ("FROM a\nPARAMETER top_k", "PARAMETER top_k needs a value"),
        ("FROM a\nMESSAGE tool hi", "a MESSAGE is of system, user, assistant, got 'tool'"),
        ("FROM a\nMESSAGE user", "MESSAGE user needs a value"),
        ("FROM", "line 1: FROM needs a value"),
        ('FROM a\nSYSTEM """never\nclosed', 'line 2: the text opened with """ is never closed'),
        ('FROM a\nSYSTEM """x""" y', 'nothing may follow the closing """, got \'y\''),
        ("FROM a\n" + "#" * MAX_BYTES, "larger than"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse(text)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
PARAMETER = st.one_of(
    st.tuples(st.sampled_from(["temperature", "top_p", "min_p"]), NUMBERS),
    st.tuples(st.sampled_from(["context", "max_tokens", "seed"]), st.integers(-(2**31), 2**31)),
    st.tuples(st.just("stop"), TEXT),
)
RECIPE = st.builds(
    Modelfile,
    base=TEXT,
    parameters=st.lists(PARAMETER, max_size=4).map(tuple),
    system=st.none() | TEXT,
    adapters=st.lists(TEXT, max_size=2).map(tuple),
    messages=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=3).map(tuple),
    licence=st.none() | TEXT,
)


@given(RECIPE)
@settings(deadline=None, max_examples=200)
def test_writing_and_reading_are_inverse(recipe: Modelfile) -> None:
    assert parse(render(recipe)) == recipe
    assert from_json(json.loads(json.dumps(to_json(recipe))), where="stored") == recipe


@given(st.text(max_size=200) | st.text(alphabet='FROMSYTEfrom"\\ \n#', max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        recipe = parse(text)
    except InvalidRequest:
        return
    assert recipe.base


@pytest.mark.parametrize(
    "data",
    [
        None, [], {}, {"from": 3}, {**to_json(Modelfile(base="a")), "parameters": [["top_k", "x"]]},
        {**to_json(Modelfile(base="a")), "parameters": [["nope", 1]]},
        {**to_json(Modelfile(base="a")), "messages": [["tool", "x"]]},
        {**to_json(Modelfile(base="a")), "adapters": [None]},
    ],
)  # fmt: skip
def test_a_stored_recipe_that_we_did_not_write_is_refused(data: object) -> None:
    with pytest.raises(InvalidRequest):
        from_json(data, where="x.json")


def test_a_recipe_on_top_of_another_wins_where_it_speaks() -> None:
    below = parse("FROM a\nPARAMETER temperature 1\nPARAMETER top_k 5\nSYSTEM below\nMESSAGE user hi")
    above = parse("FROM mine\nPARAMETER temperature 0\nMESSAGE assistant yes")
    both = merged(below, above)
    assert both.base == "a" and both.system == "below"
    assert dict(both.parameters) == {"top_k": 5, "temperature": 0.0}
    assert both.messages == (("user", "hi"), ("assistant", "yes"))


def test_parameters_are_known_in_both_spellings() -> None:
    assert parse_parameter("num_predict", "5") == parse_parameter("max_tokens", "5") == ("max_tokens", 5)
