"""Llama Stack's scoring on the wire: functions with their params, and results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.wire import FIRST, Texts, Wire

Aggregations = Annotated[list[Literal["average", "weighted_average", "median", "categorical_count", "accuracy"]], FIRST]


class LlamaStackBasicParams(Wire):
    """Params of a function that compares."""

    type: Literal["basic"]
    aggregation_functions: Aggregations | None = None


class LlamaStackRegexParams(Wire):
    """Params of a function that reads the answer by patterns."""

    type: Literal["regex_parser"]
    parsing_regexes: Texts | None = None
    aggregation_functions: Aggregations | None = None


class LlamaStackJudgeParams(Wire):
    """Params of a function that asks a model."""

    type: Literal["llm_as_judge"]
    judge_model: Annotated[str, Field(max_length=512)]
    """Empty in functions that leave it to each use."""
    prompt_template: str | None = None
    """Text with `{input_query}`, `{expected_answer}` and `{generated_answer}`."""
    judge_score_regexes: Texts | None = None
    aggregation_functions: Aggregations | None = None


LlamaStackScoringParams = Annotated[
    LlamaStackBasicParams | LlamaStackRegexParams | LlamaStackJudgeParams, Field(discriminator="type")
]


class LlamaStackReturnType(Wire):
    """What a score is."""

    type: str


class LlamaStackScoringFunction(Wire):
    """A way of scoring."""

    identifier: str
    provider_resource_id: str | None = None
    provider_id: str
    type: Literal["scoring_function"]
    description: str | None = None
    metadata: dict[str, Any]
    return_type: LlamaStackReturnType
    params: LlamaStackScoringParams | None = None


class LlamaStackScoringFunctions(Wire):
    """Every way of scoring."""

    data: Annotated[list[LlamaStackScoringFunction], FIRST]


class LlamaStackScoringFunctionRequest(Wire):
    """Body of `POST /v1/scoring-functions`: a function of this server under another name, with other params."""

    scoring_fn_id: Annotated[str, Field(min_length=1, max_length=256)]
    description: str
    return_type: LlamaStackReturnType
    provider_scoring_fn_id: str | None = None
    """The function of this server; by default the one that params of this type go with."""
    provider_id: str | None = None
    params: LlamaStackScoringParams | None = None


class LlamaStackScoreRequest(Wire):
    """Body of `POST /v1/scoring/score`."""

    input_rows: Annotated[list[dict[str, Any]], FIRST]
    scoring_functions: dict[str, LlamaStackScoringParams | None]
    """By id, with params in place of the function's own, or null."""


class LlamaStackScoreBatchRequest(Wire):
    """Body of `POST /v1/scoring/score-batch`."""

    dataset_id: str
    scoring_functions: dict[str, LlamaStackScoringParams | None]
    save_results_dataset: bool = False
    """Keep the rows with their scores as a dataset of its own."""


class LlamaStackScoringResult(Wire):
    """What one function gave."""

    score_rows: Annotated[list[dict[str, Any]], FIRST]
    aggregated_results: dict[str, Any]


class LlamaStackScores(Wire):
    """What every function gave."""

    results: dict[str, LlamaStackScoringResult]


class LlamaStackBatchScores(LlamaStackScores):
    """The same, with where it is kept."""

    dataset_id: str | None = None
