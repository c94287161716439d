from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.core.errors import InvalidRequest
from llamakit.evals.aggregate import aggregate
from llamakit.evals.answers import boxed, result_of, same_result
from llamakit.evals.scoring import BUILT_IN, JUDGE_TEMPLATE, _filled, score

FUNCTIONS = {function.id: function for function in BUILT_IN}


async def nobody(model: str, prompt: str) -> str:
    raise AssertionError("no judge was wanted")


async def marks(id: str, *pairs: tuple[str, str], ask=nobody, **changes) -> list:
    function = FUNCTIONS[id]
    rows = [{"input_query": "?", "expected_answer": wanted, "generated_answer": given} for wanted, given in pairs]
    scored = await score(function, rows, dataclasses.replace(function.params, **changes), ask)
    return [row["score"] for row in scored.rows]


async def test_plain_comparisons():
    assert await marks("basic::equality", ("Paris", "Paris"), ("Paris", "paris")) == [1.0, 0.0]
    assert await marks("basic::subset_of", ("Paris", "It is Paris."), ("Paris", "Rome")) == [1.0, 0.0]


async def test_choices_are_read_from_prose():
    pairs = [("B", "Let me think.\nThe answer is (B)."), ("C", "**Answer:** C"), ("A", "\\boxed{A}"), ("D", "D.")]
    pairs += [("A", "The answer is B"), ("A", "no idea")]
    assert await marks("basic::regex_parser_multiple_choice_answer", *pairs) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("expected", "given", "is_right"),
    [
        ("1/2", "so \\boxed{\\frac{1}{2}}", True),
        ("0.5", "the answer is $\\frac12$ or \\boxed{\\dfrac{1}{2}}.", True),
        ("1234", "The result is 1,234.", True),
        ("12", "x = 12", True),
        ("x^{2}", "\\boxed{x^{2}}", True),
        ("90", "\\boxed{90^\\circ}", True),
        ("3", "\\boxed{4}", False),
        ("1", "\\boxed{1/0}", False),
        ("7", "", False),
    ],
)
async def test_results_are_compared_as_numbers(expected: str, given: str, is_right: bool):
    assert await marks("basic::regex_parser_math_response", (expected, given)) == [float(is_right)]


@given(st.text(max_size=60))
def test_any_text_has_a_result(text: str):
    assert isinstance(result_of(text), str)
    assert same_result(text, text)
    boxed(text)


async def test_a_judge_is_asked_with_the_row_and_only_the_row():
    asked = []

    async def ask(model: str, prompt: str) -> str:
        asked.append((model, prompt))
        return "Fine.\nScore: 1" if "yes" in prompt else "Score: bad"

    pairs = [("a", "yes {expected_answer}"), ("b", "no")]
    assert await marks("llm-as-judge::base", *pairs, ask=ask, judge_model="m", aggregations=()) == [1.0, None]
    assert asked[0][0] == "m" and "yes {expected_answer}" in asked[0][1]
    with pytest.raises(InvalidRequest, match="judge_model"):
        await marks("llm-as-judge::base", ("a", "b"), ask=ask)


@given(st.text(), st.text())
def test_what_is_filled_in_is_not_read_again(expected: str, generated: str):
    row = {"input_query": "{generated_answer}", "expected_answer": expected, "generated_answer": generated}
    assert _filled("<{input_query}|{expected_answer}>", row) == f"<{{generated_answer}}|{expected}>"
    assert "{0}" in _filled(JUDGE_TEMPLATE + "{0}", row)


async def test_patterns_of_strangers_are_bounded():
    id = "basic::regex_parser_multiple_choice_answer"
    with pytest.raises(InvalidRequest, match="no regular expression"):
        await marks(id, ("a", "b"), patterns=("(",))
    with pytest.raises(InvalidRequest, match="1 to 64"):
        await marks(id, ("a", "b"), patterns=())


@pytest.mark.slow
async def test_a_pattern_that_never_ends_is_stopped():
    with pytest.raises(InvalidRequest, match="took too long"):
        await marks("basic::regex_parser_multiple_choice_answer", ("a", "a" * 60 + "!"), patterns=("(a+)+$",))


async def test_a_row_without_its_columns_is_named():
    function = FUNCTIONS["basic::equality"]
    with pytest.raises(InvalidRequest, match="row 1 has no generated_answer"):
        rows = [{"expected_answer": 1, "generated_answer": 1}, {"expected_answer": 1}]
        await score(function, rows, function.params, nobody)


def test_aggregations():
    scores = [{"score": 1.0, "weight": 3}, {"score": 0.0}, {"score": 0.5}]
    found = aggregate(("average", "weighted_average", "median", "accuracy", "categorical_count"), scores)
    assert found["average"] == {"average": 0.5} and found["median"] == {"median": 0.5}
    assert found["weighted_average"] == {"weighted_average": 0.7}
    assert found["accuracy"] == {"accuracy": 1 / 3, "num_correct": 1, "num_total": 3}
    assert found["categorical_count"] == {"categorical_count": {"0.0": 1, "0.5": 1, "1.0": 1}}
    assert aggregate(("average", "accuracy"), [])["accuracy"]["accuracy"] is None
    with pytest.raises(InvalidRequest, match="categorical_count"):
        aggregate(("median",), [{"score": "good"}])
