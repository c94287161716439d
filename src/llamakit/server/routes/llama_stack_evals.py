"""`/v1/datasets`, `/v1/datasetio`, `/v1/scoring-functions` and `/v1/scoring`: rows, and how good their answers are."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.llama_stack_datasets import (
    LlamaStackAppendRequest,
    LlamaStackDataset,
    LlamaStackDatasetRequest,
    LlamaStackDatasets,
)
from llamakit.api.llama_stack_lists import LlamaStackStretch, data_body, read_stretch
from llamakit.api.llama_stack_scoring import (
    LlamaStackBatchScores,
    LlamaStackScoreBatchRequest,
    LlamaStackScoreRequest,
    LlamaStackScores,
    LlamaStackScoringFunction,
    LlamaStackScoringFunctionRequest,
    LlamaStackScoringFunctions,
)
from llamakit.server.exchange import Principal, exchange_of
from llamakit.server.routes.llama_stack_agents import STRETCH
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service

DATASETS, SCORING = "llama stack datasets", "llama stack scoring"


def operations(service: Service) -> list[Operation]:
    """The operations of these APIs."""
    return [*_datasets(service), *_scoring(service)]


def _datasets(service: Service) -> list[Operation]:
    datasets = service.stack.datasets

    async def list_datasets(http: Request) -> Response:
        return json_response(data_body(await datasets.list(_who(http).name)))

    async def register_dataset(http: Request) -> Response:
        wire = await service.read(http, LlamaStackDatasetRequest)
        return json_response(await datasets.register(_who(http).name, wire))

    async def get_dataset(http: Request) -> Response:
        return json_response(await datasets.get(*_dataset(http)))

    async def delete_dataset(http: Request) -> Response:
        await datasets.delete(*_dataset(http))
        return Response(status_code=204)

    async def iterate_rows(http: Request) -> Response:
        rows, has_more = await datasets.rows(*_dataset(http), read_stretch(http.query_params))
        return json_response({"data": rows, "has_more": has_more, "url": http.url.path})

    async def append_rows(http: Request) -> Response:
        wire = await service.read(http, LlamaStackAppendRequest)
        await datasets.append(*_dataset(http), wire.rows)
        return Response(status_code=204)

    return [
        Operation(
            name="listDatasets",
            method="GET",
            path="/v1/datasets",
            about="Datasets.",
            endpoint=list_datasets,
            tag=DATASETS,
            answer=LlamaStackDatasets,
        ),
        Operation(
            name="registerDataset",
            method="POST",
            path="/v1/datasets",
            about="Keep a dataset: rows sent along, in a data URL, or in a file of this server.",
            endpoint=register_dataset,
            tag=DATASETS,
            body=LlamaStackDatasetRequest,
            answer=LlamaStackDataset,
        ),
        Operation(
            name="getDataset",
            method="GET",
            path="/v1/datasets/{dataset_id:path}",
            about="A dataset.",
            endpoint=get_dataset,
            tag=DATASETS,
            answer=LlamaStackDataset,
        ),
        Operation(
            name="unregisterDataset",
            method="DELETE",
            path="/v1/datasets/{dataset_id:path}",
            about="Delete a dataset with its rows.",
            endpoint=delete_dataset,
            tag=DATASETS,
            is_empty=True,
        ),
        Operation(
            name="iterateDatasetRows",
            method="GET",
            path="/v1/datasetio/iterrows/{dataset_id:path}",
            about="A stretch of the rows of a dataset.",
            endpoint=iterate_rows,
            tag=DATASETS,
            answer=LlamaStackStretch,
            query=STRETCH,
        ),
        Operation(
            name="appendDatasetRows",
            method="POST",
            path="/v1/datasetio/append-rows/{dataset_id:path}",
            about="Add rows to a dataset.",
            endpoint=append_rows,
            tag=DATASETS,
            body=LlamaStackAppendRequest,
            is_empty=True,
        ),
    ]


def _scoring(service: Service) -> list[Operation]:
    scoring = service.stack.scoring

    async def list_functions(http: Request) -> Response:
        return json_response(data_body(await scoring.list(_who(http).name)))

    async def register_function(http: Request) -> Response:
        wire = await service.read(http, LlamaStackScoringFunctionRequest)
        return json_response(await scoring.register(_who(http).name, wire))

    async def get_function(http: Request) -> Response:
        return json_response(await scoring.get(_who(http).name, http.path_params["scoring_fn_id"]))

    async def score(http: Request) -> Response:
        wire, who = await service.read(http, LlamaStackScoreRequest), _who(http)
        work = scoring.score(who.name, who.salt, wire.input_rows, wire.scoring_functions, service.metered(http))
        return json_response(await service.wanted(http, work))

    async def score_batch(http: Request) -> Response:
        wire, who = await service.read(http, LlamaStackScoreBatchRequest), _who(http)
        work = scoring.score_dataset(who.name, who.salt, wire, service.metered(http))
        return json_response(await service.wanted(http, work))

    return [
        Operation(
            name="listScoringFunctions",
            method="GET",
            path="/v1/scoring-functions",
            about="Ways of scoring.",
            endpoint=list_functions,
            tag=SCORING,
            answer=LlamaStackScoringFunctions,
        ),
        Operation(
            name="registerScoringFunction",
            method="POST",
            path="/v1/scoring-functions",
            about="Name a way of scoring with params of one's own.",
            endpoint=register_function,
            tag=SCORING,
            body=LlamaStackScoringFunctionRequest,
            answer=LlamaStackScoringFunction,
        ),
        Operation(
            name="getScoringFunction",
            method="GET",
            path="/v1/scoring-functions/{scoring_fn_id:path}",
            about="A way of scoring.",
            endpoint=get_function,
            tag=SCORING,
            answer=LlamaStackScoringFunction,
        ),
        Operation(
            name="score",
            method="POST",
            path="/v1/scoring/score",
            about="Score rows.",
            endpoint=score,
            tag=SCORING,
            body=LlamaStackScoreRequest,
            answer=LlamaStackScores,
        ),
        Operation(
            name="scoreBatch",
            method="POST",
            path="/v1/scoring/score-batch",
            about="Score a dataset.",
            endpoint=score_batch,
            tag=SCORING,
            body=LlamaStackScoreBatchRequest,
            answer=LlamaStackBatchScores,
        ),
    ]


def _who(http: Request) -> Principal:
    return exchange_of(http).principal


def _dataset(http: Request) -> tuple[str, str]:
    return _who(http).name, http.path_params["dataset_id"]
