"""Scoring functions: rows with an answer and what was expected -> a score a row, and the numbers for all of them.

The ids, columns and parameters are those of Llama Stack. A judge is a callable, so nothing here knows a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llamakit.core.errors import InvalidRequest
from llamakit.evals.aggregate import Aggregation, aggregate
from llamakit.evals.answers import CHOICE_PATTERNS, result_of, same_result
from llamakit.evals.patterns import last_matches

QUESTION, EXPECTED, GENERATED = "input_query", "expected_answer", "generated_answer"
MAX_ROWS = 10_000
JUDGED_TOGETHER = 8
JUDGE_TEMPLATE = (
    "You judge an answer.\n\nQuestion: {input_query}\n\nExpected answer: {expected_answer}\n\n"
    "Given answer: {generated_answer}\n\nIs the given answer right? End with a line `Score: 1` if it is "
    "and `Score: 0` if it is not."
)
JUDGE_PATTERNS = (r"(?i)score\s*:\s*\**\s*([0-9]+(?:\.[0-9]+)?)",)

Kind = Literal["basic", "regex_parser", "llm_as_judge"]
Rule = Literal["equality", "subset", "choice", "result", "judge"]
Ask = Callable[[str, str], Awaitable[str]]
"""A model's answer to a prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringParams:
    """What can be set of a scoring function."""

    kind: Kind
    aggregations: tuple[Aggregation, ...] = ()
    patterns: tuple[str, ...] = ()
    """Of the answer that is meant, or of the judge's score."""
    judge_model: str | None = None
    template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringFunction:
    """A way of scoring."""

    id: str
    about: str
    rule: Rule
    columns: tuple[str, ...]
    """What each row must have."""
    params: ScoringParams
    returns: str = "number"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What came of it."""

    rows: list[dict[str, Any]]
    aggregated: dict[str, Any] = field(default_factory=dict)


BUILT_IN: tuple[ScoringFunction, ...] = (
    ScoringFunction(
        id="basic::equality",
        about="1 where the answer is exactly what was expected.",
        rule="equality",
        columns=(EXPECTED, GENERATED),
        params=ScoringParams(kind="basic", aggregations=("accuracy",)),
    ),
    ScoringFunction(
        id="basic::subset_of",
        about="1 where the answer contains what was expected.",
        rule="subset",
        columns=(EXPECTED, GENERATED),
        params=ScoringParams(kind="basic", aggregations=("accuracy",)),
    ),
    ScoringFunction(
        id="basic::regex_parser_multiple_choice_answer",
        about="1 where the choice that the answer names is the expected letter.",
        rule="choice",
        columns=(EXPECTED, GENERATED),
        params=ScoringParams(kind="regex_parser", aggregations=("accuracy",), patterns=CHOICE_PATTERNS),
    ),
    ScoringFunction(
        id="basic::regex_parser_math_response",
        about="1 where the result that the answer ends with is the expected one, as a number where both are.",
        rule="result",
        columns=(EXPECTED, GENERATED),
        params=ScoringParams(kind="basic", aggregations=("accuracy",)),
    ),
    ScoringFunction(
        id="llm-as-judge::base",
        about="What a model says of the answer.",
        rule="judge",
        columns=(QUESTION, EXPECTED, GENERATED),
        params=ScoringParams(
            kind="llm_as_judge",
            aggregations=("average", "categorical_count"),
            patterns=JUDGE_PATTERNS,
            template=JUDGE_TEMPLATE,
        ),
    ),
)


async def score(
    function: ScoringFunction, rows: Sequence[Mapping[str, Any]], params: ScoringParams, ask: Ask
) -> Scored:
    """Score every row; raises `InvalidRequest` for a row without a column, or params that cannot be."""
    if len(rows) > MAX_ROWS:
        raise InvalidRequest(f"{len(rows)} rows, at most {MAX_ROWS} are scored at once", param="input_rows")
    if params.kind != function.params.kind:
        raise InvalidRequest(
            f"scoring function {function.id!r} takes params of type {function.params.kind!r}, got {params.kind!r}",
            param="scoring_functions",
        )
    texts = [_columns(function, row, index) for index, row in enumerate(rows)]
    scores = await _scores(function, texts, params, ask)
    return Scored(rows=scores, aggregated=aggregate(params.aggregations, scores))


async def _scores(
    function: ScoringFunction, rows: list[dict[str, str]], params: ScoringParams, ask: Ask
) -> list[dict[str, Any]]:
    match function.rule:
        case "equality":
            return [_mark(row[EXPECTED] == row[GENERATED]) for row in rows]
        case "subset":
            return [_mark(row[EXPECTED] in row[GENERATED]) for row in rows]
        case "result":
            return [_mark(same_result(row[EXPECTED], result_of(row[GENERATED]))) for row in rows]
        case "choice":
            found = await last_matches(params.patterns, [row[GENERATED] for row in rows], "parsing_regexes")
            return [
                _mark(one is not None and one.strip().casefold() == row[EXPECTED].strip().casefold())
                for one, row in zip(found, rows, strict=True)
            ]
        case "judge":
            return await _judged(rows, params, ask)


async def _judged(rows: list[dict[str, str]], params: ScoringParams, ask: Ask) -> list[dict[str, Any]]:
    model = params.judge_model
    if not model:
        raise InvalidRequest("judge_model is required: the model that judges", param="judge_model")
    places = asyncio.Semaphore(JUDGED_TOGETHER)

    async def one(row: dict[str, str]) -> str:
        async with places:
            return await ask(model, _filled(params.template or JUDGE_TEMPLATE, row))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(row)) for row in rows]
    said = [task.result() for task in tasks]
    found = await last_matches(params.patterns or JUDGE_PATTERNS, said, "judge_score_regexes")
    return [{"score": _number(score), "judge_feedback": feedback} for score, feedback in zip(found, said, strict=True)]


def _filled(template: str, row: Mapping[str, str]) -> str:
    """The template with the row's columns in place of their names; nothing else in it has a meaning."""
    pieces = [template]
    for name in (QUESTION, EXPECTED, GENERATED):
        mark = "{" + name + "}"
        # What was put in is not looked at again: an answer cannot smuggle in a placeholder.
        pieces = [
            part
            for index, piece in enumerate(pieces)
            for part in ([piece] if index % 2 else _between(piece.split(mark), row.get(name, "")))
        ]
    return "".join(pieces)


def _between(parts: list[str], value: str) -> list[str]:
    made = [parts[0]]
    for part in parts[1:]:
        made += [value, part]
    return made


def _columns(function: ScoringFunction, row: Mapping[str, Any], index: int) -> dict[str, str]:
    made = {}
    for column in function.columns:
        value = row.get(column)
        if value is None or isinstance(value, list | dict):
            raise InvalidRequest(
                f"row {index} has no {column}, which {function.id} compares; give text or a number",
                param=f"input_rows[{index}].{column}",
            )
        made[column] = value if isinstance(value, str) else str(value)
    return made


def _mark(is_right: bool) -> dict[str, Any]:
    return {"score": 1.0 if is_right else 0.0}


def _number(text: str | None) -> float | str | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text
