"""Rerank by vectors and by a model's yes."""

from __future__ import annotations

import dataclasses
import math

import pytest
from tests.serving import echo_app, in_process

from llamakit.api.llama_stack_rerank import LlamaStackRerank, ranked_body, score_of_answer
from llamakit.core.messages import (
    Answer,
    Choice,
    Done,
    Finish,
    TextDelta,
    TokenLogprob,
    Usage,
    assistant,
)
from llamakit.providers.inline.inference.echo import EchoInference

PATHS = ("/v1/inference/rerank", "/v1alpha/inference/rerank")


class Judge(EchoInference):
    """Says yes to passages that speak of wool, and is less sure of longer ones."""

    async def chat(self, request):
        passage = request.messages[-1].text.partition("Passage: ")[2]
        sure = -0.01 * len(passage) if "wool" in passage else -9.0
        rest = math.log1p(-math.exp(sure))
        tokens = (
            TokenLogprob(id=1, token=" Yes", bytes=b" Yes", logprob=sure),
            TokenLogprob(id=2, token="no", bytes=b"no", logprob=rest),
        )
        best = max(tokens, key=lambda token: token.logprob)
        yield TextDelta(text=best.token, logprobs=(dataclasses.replace(best, top=tokens),))
        yield Finish(reason="stop")
        yield Done(usage=Usage(prompt_tokens=1, completion_tokens=1))


class Embedder(EchoInference):
    """The echo provider as a model made for embedding."""

    async def model(self, name):
        return dataclasses.replace(await super().model(name), kind="embedding")


async def ranked(client, path=PATHS[0], **fields):
    body = {"model": "echo", "query": "What is wool?", "items": ["sheep give wool", "cats purr"], **fields}
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert not LlamaStackRerank.model_validate(response.json()).model_extra
    return [(row["index"], row["relevance_score"]) for row in response.json()["data"]]


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_is_asked_of_each_text(path):
    async with in_process(echo_app(Judge())) as client:
        items = ["cats purr", "sheep and llamas give wool", {"type": "text", "text": "wool"}, {"text": "dogs bark"}]
        made = await ranked(client, path, items=items)
        assert [index for index, _ in made] == [2, 1, 0, 3]
        assert all(0 <= score <= 1 for _, score in made) and made[0][1] > 0.9 > 0.1 > made[2][1]
        assert await ranked(client, path, items=items, max_num_results=1) == made[:1]


async def test_a_model_for_embedding_compares_vectors():
    async with in_process(echo_app(Embedder())) as client:
        made = await ranked(client, items=["zzzz", "What is wool?", "What is wood?"])
        assert made[0] == (1, pytest.approx(1.0, abs=1e-6)) and {index for index, _ in made} == {0, 1, 2}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"items": []}, "items"),
        ({"items": ["a", " "]}, "items[1]"),
        ({"items": [{"type": "image_url", "image_url": {"url": "x"}}]}, "items[0].type"),
        ({"items": [5]}, "items[0]"),
        ({"query": ""}, "query"),
        ({"max_num_results": 0}, "max_num_results"),
    ],
    ids=str,
)
async def test_what_is_refused(fields, param):
    async with in_process(echo_app()) as client:
        body = {"model": "echo", "query": "x", "items": ["a"], **fields}
        response = await client.post(PATHS[0], json=body)
        assert response.status_code == 400 and response.json()["error"]["param"] == param
        assert (await client.post(PATHS[0], json={**body, "model": "no"})).status_code in (400, 404)


def test_a_model_without_logprobs_is_taken_at_its_word():
    for text, score in (("Yes", 1.0), ("no", 0.0)):
        choice = Choice(message=assistant(text), reason="stop")
        assert score_of_answer(Answer(choices=(choice,), usage=Usage())) == score


def test_equal_texts_keep_their_order():
    assert [row["index"] for row in ranked_body([0.5, 0.7, 0.5], None)["data"]] == [1, 0, 2]
