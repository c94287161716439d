"""The official OpenAI client: a batch from file to file, and moderations."""

from __future__ import annotations

import json
import time

import openai
import pytest
from tests.serving import served

from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry, ShieldEntry, StorageConfig


@pytest.fixture(scope="module")
def client():
    echo = ProviderEntry(provider_id="echo", provider_type="inline::echo", config={"models": ("echo",)})
    words = ProviderEntry(provider_id="words", provider_type="inline::word-list")
    distribution = Distribution(
        providers={"inference": (echo,), "safety": (words,)},
        models=(ModelEntry(model_id="echo"),),
        shields=(ShieldEntry(shield_id="names", params={"words": ["bomb"]}),),
        storage=StorageConfig(database=":memory:"),
    )
    with (
        served(build_stack(distribution)) as running,
        openai.OpenAI(base_url=running.base_url, api_key="unused", max_retries=0) as made,
    ):
        yield made


def test_a_batch_from_file_to_file(client):
    url = "/v1/chat/completions"
    rows = [
        {"custom_id": f"line-{n}", "method": "POST", "url": url, "body": {"model": model, "messages": messages}}
        for n, (model, messages) in enumerate(
            [("echo", [{"role": "user", "content": "one"}]), ("nobody", [{"role": "user", "content": "two"}])]
        )
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=url, completion_window="24h", metadata={"made": "by a test"}
    )
    deadline = time.monotonic() + 20
    while batch.status != "completed" and time.monotonic() < deadline:
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed" and batch.metadata == {"made": "by a test"}
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (2, 1, 1)
    (line,) = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    answer = openai.types.chat.ChatCompletion.model_validate(line["response"]["body"])
    assert answer.choices[0].message.content == "one"
    (error,) = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert error["response"]["status_code"] == 404
    assert batch.id in [listed.id for listed in client.batches.list(limit=1)]
    assert client.batches.cancel(batch.id).status == "completed"
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_" + "0" * 48)


def test_moderations(client):
    made = client.moderations.create(input=["fine", "a bomb"], model="omni-moderation-latest")
    assert [result.flagged for result in made.results] == [False, True]
    assert made.results[1].categories.violence is False and made.results[0].category_scores.hate == 0.0
    with pytest.raises(openai.BadRequestError, match="image"):
        client.moderations.create(input=[{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])
