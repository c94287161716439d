"""Scoring of a server: its own functions and those its users registered, over rows or datasets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from llamakit.api.ids import new_id
from llamakit.api.inference import AnswerStream, ChatRequest, RequestContext
from llamakit.api.llama_stack_lists import Stretch
from llamakit.api.llama_stack_scoring import (
    LlamaStackBasicParams,
    LlamaStackJudgeParams,
    LlamaStackRegexParams,
    LlamaStackScoreBatchRequest,
    LlamaStackScoringFunctionRequest,
)
from llamakit.api.wire import Wire
from llamakit.core.config import nearest
from llamakit.core.errors import Conflict, InvalidRequest, NotFound
from llamakit.core.messages import AnswerFold, user
from llamakit.evals.scoring import BUILT_IN, MAX_ROWS, ScoringFunction, ScoringParams, score
from llamakit.stack.datasets import DATASET, Datasets
from llamakit.stack.storage import Storage
from llamakit.storage.ids import IdKind
from llamakit.storage.sql import Executor
from llamakit.storage.tables import Table, create_owned

SCORING_FUNCTION = IdKind("scoring_", "scoring function")
FUNCTIONS = Table("scoring_functions", ("about", "returns", "base", "params"), ids=SCORING_FUNCTION)
JUDGE_TOKENS = 1024
Chat = Callable[[ChatRequest], AnswerStream]
_FIXED = {function.id: function for function in BUILT_IN}
_BY_KIND = {"llm_as_judge": "llm-as-judge::base", "regex_parser": "basic::regex_parser_multiple_choice_answer"}


async def create_scoring_functions(transaction: Executor) -> None:
    """The migration that makes the table of registered functions."""
    columns = ("about TEXT NOT NULL", "returns TEXT NOT NULL", "base TEXT NOT NULL", "params TEXT NOT NULL")
    for sql in create_owned("scoring_functions", *columns):
        await transaction.execute(sql)


class Scoring:
    """The scoring of one server."""

    def __init__(self, storage: Storage, datasets: Datasets) -> None:
        self._storage = storage
        self._datasets = datasets

    async def list(self, owner: str) -> list[dict[str, Any]]:
        """Every function: the server's, then the owner's."""
        rows = await FUNCTIONS.of(await self._storage.database(), owner).find()
        return [_body(one) for one in (*BUILT_IN, *(_function(row) for row in rows))]

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A function, or `NotFound`."""
        return _body(await self._resolved(owner, id))

    async def register(self, owner: str, wire: LlamaStackScoringFunctionRequest) -> dict[str, Any]:
        """Name a function of this server with params of one's own; `Conflict` where the name is taken."""
        if wire.scoring_fn_id in _FIXED:
            raise Conflict(f"scoring function {wire.scoring_fn_id!r} is part of this server; choose another name")
        kind = wire.params.type if wire.params is not None else "basic"
        base = _FIXED.get(wire.provider_scoring_fn_id or _BY_KIND.get(kind, ""))
        if base is None:
            raise InvalidRequest(
                f"provider_scoring_fn_id must be one of: {', '.join(_FIXED)}", param="provider_scoring_fn_id"
            )
        params = params_of(wire.params, base)
        row = {
            "about": wire.description,
            "returns": wire.return_type.type,
            "base": base.id,
            "params": json.dumps(_params_body(params)),
        }
        await FUNCTIONS.of(await self._storage.database(), owner).insert(wire.scoring_fn_id, row)
        return await self.get(owner, wire.scoring_fn_id)

    async def score(
        self, owner: str, salt: str, rows: Sequence[Mapping[str, Any]], functions: Mapping[str, Wire | None], chat: Chat
    ) -> dict[str, Any]:
        """The results of every function over the rows."""
        if not functions:
            raise InvalidRequest("scoring_functions names none; list them first", param="scoring_functions")
        resolved = {id: await self._resolved(owner, id) for id in functions}

        async def ask(model: str, prompt: str) -> str:
            context = RequestContext(id=new_id("judge"), salt=salt)
            sampling = {"temperature": 0.0, "max_tokens": JUDGE_TOKENS}
            request = ChatRequest(model=model, messages=(user(prompt),), context=context, sampling=sampling)
            fold = AnswerFold()
            async with aclosing(chat(request)) as events:
                async for event in events:
                    fold.add(event)
            return fold.answer().text

        results = {}
        for id, given in functions.items():
            scored = await score(resolved[id], rows, params_of(given, resolved[id]), ask)
            results[id] = {"score_rows": scored.rows, "aggregated_results": scored.aggregated}
        return {"results": results}

    async def score_dataset(
        self, owner: str, salt: str, wire: LlamaStackScoreBatchRequest, chat: Chat
    ) -> dict[str, Any]:
        """The same over a dataset; its rows with their scores are kept where that is wanted."""
        rows, has_more = await self._datasets.rows(owner, wire.dataset_id, Stretch(limit=MAX_ROWS))
        if has_more:
            raise InvalidRequest(
                f"dataset {wire.dataset_id!r} has more than {MAX_ROWS} rows; score it in parts", param="dataset_id"
            )
        made = await self.score(owner, salt, rows, wire.scoring_functions, chat)
        kept = None
        if wire.save_results_dataset:
            columns = {id: result["score_rows"] for id, result in made["results"].items()}
            merged = [
                {**row, "scores": {id: scores[index] for id, scores in columns.items()}}
                for index, row in enumerate(rows)
            ]
            kept = DATASET.new()
            purpose = (await self._datasets.get(owner, wire.dataset_id))["purpose"]
            source = {"type": "rows", "rows": []}
            await self._datasets.create(owner, kept, purpose, source, {"scored": wire.dataset_id}, merged)
        return {"dataset_id": kept, **made}

    async def _resolved(self, owner: str, id: str) -> ScoringFunction:
        if id in _FIXED:
            return _FIXED[id]
        rows = await FUNCTIONS.of(await self._storage.database(), owner).find({"id": id})
        if not rows:
            raise NotFound(f"no scoring function {id[:80]!r}{nearest(id, _FIXED)}; list them first")
        return _function(rows[0])


def params_of(wire: Wire | None, function: ScoringFunction) -> ScoringParams:
    """The function's params with those of the wire in their place."""
    own = function.params
    match wire:
        case LlamaStackBasicParams():
            made = replace(own, kind="basic")
        case LlamaStackRegexParams():
            made = replace(own, kind="regex_parser", patterns=tuple(wire.parsing_regexes or own.patterns))
        case LlamaStackJudgeParams():
            made = replace(
                own,
                kind="llm_as_judge",
                judge_model=wire.judge_model,
                template=wire.prompt_template or own.template,
                patterns=tuple(wire.judge_score_regexes or own.patterns),
            )
        case _:
            return own
    return replace(made, aggregations=tuple(wire.aggregation_functions or own.aggregations))


def _function(row: Mapping[str, Any]) -> ScoringFunction:
    base, kept = _FIXED[row["base"]], json.loads(row["params"])
    params = ScoringParams(
        kind=kept["type"],
        aggregations=tuple(kept["aggregation_functions"]),
        patterns=tuple(kept.get("parsing_regexes") or kept.get("judge_score_regexes") or ()),
        judge_model=kept.get("judge_model") or None,
        template=kept.get("prompt_template"),
    )
    return replace(base, id=row["id"], about=row["about"], params=params, returns=row["returns"])


def _body(function: ScoringFunction) -> dict[str, Any]:
    return {
        "identifier": function.id,
        "provider_resource_id": function.id,
        "provider_id": function.id.partition("::")[0] if function.id in _FIXED else "storage",
        "type": "scoring_function",
        "description": function.about,
        "metadata": {},
        "return_type": {"type": function.returns},
        "params": _params_body(function.params),
    }


def _params_body(params: ScoringParams) -> dict[str, Any]:
    body: dict[str, Any] = {"type": params.kind, "aggregation_functions": list(params.aggregations)}
    if params.kind == "regex_parser":
        body["parsing_regexes"] = list(params.patterns)
    if params.kind == "llm_as_judge":
        body |= {"judge_model": params.judge_model or "", "prompt_template": params.template}
        body["judge_score_regexes"] = list(params.patterns)
    return body
