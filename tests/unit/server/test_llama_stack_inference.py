"""Llama Stack's inference over HTTP: answers, streams, refusals in its own shape, and what is counted."""

from __future__ import annotations

import pytest
from tests.serving import echo_app, events_of, in_process

from llamakit.providers.inline.inference.echo import EchoInference

LOOK = {"tool_name": "look", "parameters": {"city": {"param_type": "string"}}}


def asking(text="hello", **fields):
    return {"model_id": "echo", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def client():
    async with in_process(echo_app()) as made:
        yield made


async def test_an_answer_and_its_counts(client):
    made = (await client.post("/v1/inference/chat-completion", json=asking(logprobs={"top_k": 2}))).json()
    message = made["completion_message"]
    assert (message["role"], message["content"], message["stop_reason"]) == ("assistant", "hello", "end_of_turn")
    assert message["tool_calls"] == [] and len(made["logprobs"]) == 5
    assert len(made["logprobs"][0]["logprobs_by_token"]) == 2
    counts = {metric["metric"]: metric["value"] for metric in made["metrics"]}
    assert counts["completion_tokens"] == 5 and counts["total_tokens"] == 5 + counts["prompt_tokens"]
    assert (
        "metrics" in made
        and (await client.post("/v1/inference/chat-completion", json=asking())).json()["logprobs"] is None
    )


async def test_a_stream_says_the_same_and_ends_without_a_mark(client):
    response = await client.post("/v1/inference/chat-completion", json=asking("héllo 🦙", stream=True))
    assert response.headers["content-type"].startswith("text/event-stream") and "[DONE]" not in response.text
    events = [piece["event"] for piece in events_of(response.text)]
    assert [event["event_type"] for event in events[:1] + events[-1:]] == ["start", "complete"]
    assert "".join(event["delta"]["text"] for event in events) == "héllo 🦙"
    assert events[-1]["stop_reason"] == "end_of_turn" and all(event["stop_reason"] is None for event in events[:-1])


async def test_a_streamed_call_is_the_call_of_the_whole_answer(client):
    body = asking("please look", tools=[LOOK])
    whole = (await client.post("/v1/inference/chat-completion", json=body)).json()["completion_message"]
    assert whole["stop_reason"] == "end_of_message" and whole["tool_calls"][0]["arguments"] == {"city": ""}
    streamed = events_of((await client.post("/v1/inference/chat-completion", json={**body, "stream": True})).text)
    deltas = [piece["event"]["delta"] for piece in streamed if piece["event"]["delta"]["type"] == "tool_call"]
    written = "".join(delta["tool_call"] for delta in deltas if delta["parse_status"] == "in_progress")
    (done,) = [delta["tool_call"] for delta in deltas if delta["parse_status"] == "succeeded"]
    assert done["arguments"] == whole["tool_calls"][0]["arguments"] and done["arguments_json"] == written


async def test_structured_output_and_length(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    body = asking(response_format={"type": "json_schema", "json_schema": schema})
    made = (await client.post("/v1/inference/chat-completion", json=body)).json()
    assert made["completion_message"]["content"] == '{"n": 0}'
    short = (await client.post("/v1/inference/chat-completion", json=asking(sampling_params={"max_tokens": 2}))).json()
    assert short["completion_message"] == {
        "role": "assistant",
        "content": "he",
        "stop_reason": "out_of_tokens",
        "tool_calls": [],
    }
    much = asking(sampling_params={"max_tokens": 2_000_000_000})
    assert (await client.post("/v1/inference/chat-completion", json=much)).status_code == 200


async def test_completions_whole_streamed_and_in_batches(client):
    body = {"model_id": "echo", "content": "hi", "logprobs": {}}
    whole = (await client.post("/v1/inference/completion", json=body)).json()
    assert (whole["content"], whole["stop_reason"], len(whole["logprobs"])) == ("hi", "end_of_turn", 2)
    response = await client.post("/v1/inference/completion", json={**body, "stream": True})
    pieces = events_of(response.text)
    assert "".join(piece["delta"] for piece in pieces) == "hi" and pieces[-1]["stop_reason"] == "end_of_turn"
    assert pieces[-1]["metrics"] == whole["metrics"] and pieces[0]["logprobs"] == whole["logprobs"][:1]
    batch = {"model_id": "echo", "content_batch": ["a", "b"]}
    made = (await client.post("/v1/inference/batch-completion", json=batch)).json()["batch"]
    assert [one["content"] for one in made] == ["a", "b"]
    chats = {"model_id": "echo", "messages_batch": [asking("a")["messages"], asking("b")["messages"]]}
    made = (await client.post("/v1/inference/batch-chat-completion", json=chats)).json()["batch"]
    assert [one["completion_message"]["content"] for one in made] == ["a", "b"]


async def test_texts_that_are_too_long_are_cut_only_where_that_is_asked_for(client):
    path, text = "/v1/inference/embeddings", "a" * 40_000 + "b" * 10
    refused = EchoInference()

    async def embed(request):
        refused.asked = request.inputs
        return await EchoInference.embed(refused, request)

    refused.embed = embed
    async with in_process(echo_app(refused)) as watched:
        for where, first, last in (("start", "a", "b"), ("end", "a", "a")):
            body = {"model_id": "echo", "contents": [text, "short"], "text_truncation": where}
            assert (await watched.post(path, json=body)).status_code == 200
            ids, short = refused.asked
            assert (len(ids), chr(ids[-1]), short) == (32_768, last, "short")
    made = (await client.post(path, json={"model_id": "echo", "contents": ["a", "b"], "output_dimension": 8})).json()
    assert [len(vector) for vector in made["embeddings"]] == [8, 8]
    response = await client.post(path, json={"model_id": "echo", "contents": ["a"], "task_type": "query"})
    assert response.headers["x-llamakit-ignored"] == "task_type"


async def test_refusals_speak_to_both_generations(client):
    for body, status in ((asking(model_id="nobody"), 404), (asking(messages=[]), 400), ({"model_id": "echo"}, 400)):
        response = await client.post("/v1/inference/chat-completion", json=body)
        error = response.json()
        assert response.status_code == status and error["detail"] == error["error"]["message"]


async def test_a_failure_in_mid_stream_is_the_last_event(client):
    class Breaking(EchoInference):
        async def chat(self, request):
            async for event in super().chat(request):
                yield event
                raise OSError("secret")

    async with in_process(echo_app(Breaking())) as broken:
        response = await broken.post("/v1/inference/chat-completion", json=asking(stream=True))
        *_, last = events_of(response.text)
        assert "internal error" in last["detail"] and "secret" not in response.text


async def test_answers_are_counted(client):
    await client.post("/v1/inference/chat-completion", json=asking())
    text = (await client.get("/metrics")).text
    assert 'llamakit:generations_ended_total{outcome="finished"} 1.0' in text
    assert 'route="/v1/inference/chat-completion"' in text
