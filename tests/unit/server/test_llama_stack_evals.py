"""Datasets and scoring over HTTP: rows kept, stretches of them, and what they score."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager

import pytest
from tests.serving import echo_stack, in_process

from llamakit.api.llama_stack_datasets import LlamaStackDataset, LlamaStackDatasets
from llamakit.api.llama_stack_scoring import LlamaStackBatchScores, LlamaStackScores, LlamaStackScoringFunctions
from llamakit.core.config import Secret
from llamakit.server.app import build_app
from llamakit.stack.run_config import ServeConfig

KEYS = ("key-of-anna", "key-of-boris")
ANNA, BORIS = ({"authorization": f"Bearer {key}"} for key in KEYS)
ROWS = [
    {"input_query": "2+2?", "expected_answer": "4", "generated_answer": "The answer is 4."},
    {"input_query": "2+3?", "expected_answer": "5", "generated_answer": "The answer is 6."},
]


@asynccontextmanager
async def client_of(**settings):
    stack = echo_stack()
    async with in_process(build_app(stack, ServeConfig(**settings))) as client:
        try:
            yield client
        finally:
            await stack.aclose()


def dataset(rows=ROWS, **fields) -> dict:
    return {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": rows}, **fields}


async def test_rows_are_kept_and_come_in_stretches():
    async with client_of() as client:
        rows = [{"question": str(n), "answer": "x" * n} for n in range(1203)]
        made = (await client.post("/v1/datasets", json=dataset(rows, dataset_id="team/set", metadata={"a": 1}))).json()
        LlamaStackDataset.model_validate(made)
        assert made["identifier"] == "team/set" and made["metadata"] == {"a": 1}
        assert (await client.get("/v1/datasets/team/set")).json() == made
        LlamaStackDatasets.model_validate((await client.get("/v1/datasets")).json())
        path = "/v1/datasetio/iterrows/team/set"
        assert (await client.get(path)).json() == {"data": rows, "has_more": False, "url": path}
        some = (await client.get(path, params={"start_index": 1200, "limit": 2})).json()
        assert some["data"] == rows[1200:1202] and some["has_more"]
        more = {"rows": [{"question": "last", "answer": ""}]}
        assert (await client.post("/v1/datasetio/append-rows/team/set", json=more)).status_code == 204
        end = (await client.get(path, params={"start_index": 1203, "limit": 9})).json()
        assert end["data"] == more["rows"] and not end["has_more"]
        assert (await client.post("/v1/datasets", json=dataset(dataset_id="team/set"))).status_code == 409
        assert (await client.delete("/v1/datasets/team/set")).status_code == 204
        assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("mime", "text"),
    [
        ("text/csv", "question,answer\nwhy,so\nhow,thus\n"),
        ("application/json", json.dumps([{"question": "why", "answer": "so"}, {"question": "how", "answer": "thus"}])),
        ("application/jsonl", '{"question": "why", "answer": "so"}\n{"question": "how", "answer": "thus"}\n'),
    ],
)
async def test_rows_come_from_data_urls_and_files(mime: str, text: str):
    wanted = [{"question": "why", "answer": "so"}, {"question": "how", "answer": "thus"}]
    async with client_of() as client:
        url = f"data:{mime};base64," + base64.b64encode(text.encode()).decode()
        name = "rows.csv" if "csv" in mime else "rows.jsonl"
        sent = await client.post("/v1/files", files={"file": (name, text)}, data={"purpose": "user_data"})
        for uri in (url, f"file://{sent.json()['id']}"):
            body = {"purpose": "eval/question-answer", "source": {"type": "uri", "uri": uri}}
            made = (await client.post("/v1/datasets", json=body)).json()
            rows = (await client.get(f"/v1/datasetio/iterrows/{made['identifier']}")).json()
            assert rows["data"] == wanted


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (dataset([{"x": 1}], purpose="eval/messages-answer"), "has no messages"),
        (dataset(purpose="fun"), "purpose"),
        ({"purpose": "eval/question-answer", "source": {"type": "uri", "uri": "http://x/y.csv"}}, "not fetched"),
        ({"purpose": "eval/question-answer", "source": {"type": "uri", "uri": "data:,nothing"}}, "no rows"),
        ({"purpose": "eval/question-answer", "source": {"type": "uri", "uri": "data:text/csv,a%0A1,2"}}, "rows"),
        ({"purpose": "eval/question-answer", "source": {"type": "uri", "uri": "file://file-1"}}, "file"),
    ],
)
async def test_what_holds_no_rows_is_refused(body: dict, words: str):
    async with client_of() as client:
        answer = await client.post("/v1/datasets", json=body)
        assert answer.status_code in (400, 404) and words in json.dumps(answer.json())
        assert (await client.get("/v1/datasets")).json() == {"data": []}


async def test_rows_are_scored_by_several_functions():
    async with client_of() as client:
        functions = {"basic::subset_of": None, "basic::regex_parser_math_response": {"type": "basic"}}
        body = {"input_rows": ROWS, "scoring_functions": functions}
        made = (await client.post("/v1/scoring/score", json=body)).json()
        LlamaStackScores.model_validate(made)
        for result in made["results"].values():
            assert [row["score"] for row in result["score_rows"]] == [1.0, 0.0]
            assert result["aggregated_results"]["accuracy"]["num_correct"] == 1


async def test_a_model_judges():
    async with client_of() as client:
        params = {
            "type": "llm_as_judge",
            "judge_model": "echo",
            "prompt_template": "Score: {expected_answer}",
            "judge_score_regexes": ["Score: ([0-9]+)"],
            "aggregation_functions": ["average"],
        }
        body = {"input_rows": ROWS, "scoring_functions": {"llm-as-judge::base": params}}
        result = (await client.post("/v1/scoring/score", json=body)).json()["results"]["llm-as-judge::base"]
        assert [row["score"] for row in result["score_rows"]] == [4.0, 5.0]
        assert result["aggregated_results"] == {"average": {"average": 4.5}}


async def test_a_dataset_is_scored_and_its_scores_are_kept():
    async with client_of() as client:
        made = (await client.post("/v1/datasets", json=dataset())).json()
        body = {"dataset_id": made["identifier"], "scoring_functions": {"basic::equality": None}}
        scored = (await client.post("/v1/scoring/score-batch", json={**body, "save_results_dataset": True})).json()
        LlamaStackBatchScores.model_validate(scored)
        kept = (await client.get(f"/v1/datasetio/iterrows/{scored['dataset_id']}")).json()["data"]
        assert kept[0] == {**ROWS[0], "scores": {"basic::equality": {"score": 0.0}}}


async def test_functions_are_listed_named_anew_and_owned():
    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        listed = (await client.get("/v1/scoring-functions", headers=ANNA)).json()
        LlamaStackScoringFunctions.model_validate(listed)
        assert "llm-as-judge::base" in [one["identifier"] for one in listed["data"]]
        new = {
            "scoring_fn_id": "mine::letters",
            "description": "Letters in brackets.",
            "return_type": {"type": "number"},
            "params": {"type": "regex_parser", "parsing_regexes": ["\\[([A-D])\\]"]},
        }
        made = (await client.post("/v1/scoring-functions", json=new, headers=ANNA)).json()
        assert made["params"]["parsing_regexes"] == ["\\[([A-D])\\]"]
        one = "/v1/scoring-functions/mine::letters"
        assert (await client.get(one, headers=ANNA)).json() == made
        assert (await client.get(one, headers=BORIS)).status_code == 404
        body = {
            "input_rows": [{"expected_answer": "B", "generated_answer": "[A] no, [B]"}],
            "scoring_functions": {"mine::letters": None},
        }
        scored = (await client.post("/v1/scoring/score", json=body, headers=ANNA)).json()
        assert scored["results"]["mine::letters"]["score_rows"] == [{"score": 1.0}]
        assert (await client.post("/v1/scoring/score", json=body, headers=BORIS)).status_code == 404
        assert (await client.post("/v1/scoring-functions", json=new, headers=ANNA)).status_code == 409
        taken = new | {"scoring_fn_id": "basic::equality"}
        assert (await client.post("/v1/scoring-functions", json=taken, headers=ANNA)).status_code == 409


@pytest.mark.parametrize(
    ("functions", "status", "words"),
    [
        ({}, 400, "names none"),
        ({"basic::none": None}, 404, "basic::none"),
        ({"basic::equality": {"type": "llm_as_judge", "judge_model": "echo"}}, 400, "takes params of type"),
        ({"llm-as-judge::base": None}, 400, "judge_model"),
    ],
)
async def test_scoring_that_cannot_be_is_refused(functions: dict, status: int, words: str):
    async with client_of() as client:
        answer = await client.post("/v1/scoring/score", json={"input_rows": ROWS, "scoring_functions": functions})
        assert answer.status_code == status and words in json.dumps(answer.json())


async def test_datasets_belong_to_their_owner():
    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        await client.post("/v1/datasets", json=dataset(dataset_id="mine"), headers=ANNA)
        paths = ("/v1/datasets/mine", "/v1/datasetio/iterrows/mine")
        for path in paths:
            assert (await client.get(path, headers=BORIS)).status_code == 404
        assert (await client.delete(paths[0], headers=BORIS)).status_code == 404
        append = await client.post("/v1/datasetio/append-rows/mine", json={"rows": []}, headers=BORIS)
        assert append.status_code == 404
        batch = {"dataset_id": "mine", "scoring_functions": {"basic::equality": None}}
        assert (await client.post("/v1/scoring/score-batch", json=batch, headers=BORIS)).status_code == 404
        assert (await client.post("/v1/datasets", json=dataset(dataset_id="mine"), headers=BORIS)).status_code == 200
