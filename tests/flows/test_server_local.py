"""The whole road, HTTP to the engine and back, on a tiny random checkpoint; and what harnesses rely on."""

from __future__ import annotations

import asyncio
import math

import httpx2
import openai
import pytest
from tests.serving import served
from tests.tiny import tiny_checkpoint

from llamakit.providers.specs import Api
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry, StorageConfig, single

SETTINGS = {"threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("served") / "tiny")
    distribution = single(models=(str(checkpoint),), config=SETTINGS)
    with served(build_stack(distribution)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=60) as made:
        yield made


GREEDY = {"model": "tiny", "temperature": 0, "seed": 1234}
USER = [{"role": "user", "content": "Tell me of llamas."}]


def test_streamed_and_whole_answers_are_the_same(client):
    whole = client.chat.completions.create(**GREEDY, messages=USER, max_tokens=20)
    chunks = list(client.chat.completions.create(**GREEDY, messages=USER, max_tokens=20, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage.completion_tokens <= 20


def test_a_second_request_finds_its_prefix(client):
    messages = [{"role": "user", "content": "A long story about llamas in the mountains. " * 8}]
    client.chat.completions.create(**GREEDY, messages=messages, max_tokens=2)
    again = client.chat.completions.create(**GREEDY, messages=messages, max_tokens=2)
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert again.model_extra["timings"]["cache_n"] == again.usage.prompt_tokens_details.cached_tokens


def test_the_path_of_the_model_stays_here(server, client):
    assert "tiny" in [model.id for model in client.models.list()]
    for path in ("/v1/models", "/v1/llamakit/ps", "/metrics", "/tokenizer_info"):
        assert "/served" not in httpx2.get(server.url + path).text, path


def test_a_path_may_have_a_name(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "hidden")
    entry = ProviderEntry(provider_id="here", provider_type="inline::local", config=SETTINGS)
    echo = ProviderEntry(provider_id="there", provider_type="inline::echo")
    models = (ModelEntry(model_id="mine", provider_id="here", provider_model_id=str(checkpoint)),)
    distribution = Distribution(
        providers={Api.inference: (entry, echo)}, models=models, storage=StorageConfig(database=":memory:")
    )
    with served(build_stack(distribution)) as running:
        for path in ("/v1/models", "/v1/llamakit/ps", "/metrics"):
            told = httpx2.get(running.url + path).text
            assert str(tmp_path) not in told and '"mine"' in told, (path, told)
        body = {**GREEDY, "model": "mine", "messages": USER, "max_tokens": 2}
        assert httpx2.post(f"{running.base_url}/chat/completions", json=body).json()["model"] == "mine"


@pytest.mark.parametrize("model", ["/etc/passwd", "../../etc/passwd", "./tiny", "~/x", "..", "nope:1b"])
def test_clients_name_models_and_not_paths(client, model):
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        client.chat.completions.create(model=model, messages=USER)


def harness(server, prompts, **fields):
    """What an evaluation harness sends, and what it reads of the answer."""
    body = {**GREEDY, "prompt": prompts, "max_tokens": 1, "logprobs": 1, "echo": True, **fields}
    response = httpx2.post(f"{server.base_url}/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return sorted(response.json()["choices"], key=lambda choice: choice["index"])


def tokens_of(server, text):
    body = {"prompt": text, "add_special_tokens": False}
    return httpx2.post(f"{server.url}/tokenize", json=body).json()["tokens"]


def test_the_harness_finds_its_tokenizer(server):
    info = httpx2.get(f"{server.url}/tokenizer_info").json()
    assert info["eos_token"] and info["bos_token"] == "<|begin_of_text|>"
    ids = tokens_of(server, "test it")
    assert bytes(ids) == b"test it"
    body = {"tokens": ids}
    assert httpx2.post(f"{server.url}/detokenize", json=body).json() == {"prompt": "test it"}


@pytest.mark.parametrize("max_tokens", [1, 0])
def test_loglikelihoods(server, max_tokens):
    contexts = ["Llamas are", "The capital of Peru is"]
    continuations = [" shy", " Lima"]
    prompts = [
        [256, *tokens_of(server, context + continuation)]
        for context, continuation in zip(contexts, continuations, strict=True)
    ]
    choices = harness(server, prompts, max_tokens=max_tokens)
    for choice, prompt in zip(choices, prompts, strict=True):
        logprobs = choice["logprobs"]
        lengths = {len(logprobs[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
        assert lengths == {len(prompt) + max_tokens}
        assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
        assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
        for own, top in zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True):
            assert max(top.values()) >= own
    alone = [harness(server, prompt, max_tokens=max_tokens)[0]["logprobs"]["token_logprobs"] for prompt in prompts]
    assert [choice["logprobs"]["token_logprobs"] for choice in choices] == alone


def test_prompt_logprobs_are_those_of_decoding(server):
    """Token by token, what echo says of a prompt is what sampling says of the same tokens."""
    prompt = [256, *tokens_of(server, "Llamas")]
    (made,) = harness(server, [prompt], max_tokens=6, ignore_eos=True)
    generated = made["logprobs"]["token_logprobs"][len(prompt) :]
    response = httpx2.post(
        f"{server.base_url}/completions",
        json={**GREEDY, "prompt": [prompt], "max_tokens": 6, "prompt_logprobs": 0, "logprobs": 0, "ignore_eos": True},
    ).json()
    ids = response["choices"][0]["logprobs"]["tokens"]
    assert len(ids) == 6
    whole = httpx2.post(
        f"{server.base_url}/completions",
        json={**GREEDY, "prompt": [prompt + ids_of(made, len(prompt))], "max_tokens": 0, "logprobs": 0, "echo": True},
    ).json()
    echoed = whole["choices"][0]["logprobs"]["token_logprobs"][len(prompt) :]
    assert all(math.isclose(one, two, abs_tol=1e-4) for one, two in zip(generated, echoed, strict=True))


def ids_of(choice, start):
    """Byte tokens spell their id, special ones are found by their place after the bytes."""
    from llamakit.text.specials import LLAMA3_SPECIALS

    made = []
    for text in choice["logprobs"]["tokens"][start:]:
        if text.startswith("bytes:\\x"):
            made.append(int(text[8:], 16))
        elif text in LLAMA3_SPECIALS:
            made.append(256 + LLAMA3_SPECIALS.index(text))
        else:
            made.append(ord(text))
    return made


async def test_many_streams_at_once_say_what_each_says_alone(server):
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=60) as client:

        async def one(number: int) -> str:
            stream = await client.chat.completions.create(
                **GREEDY, messages=[{"role": "user", "content": f"Number {number}?"}], max_tokens=12, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        alone = [await one(number) for number in range(12)]
        assert await asyncio.gather(*map(one, range(12))) == alone


def test_a_client_that_leaves_frees_every_block(server):
    body = {**GREEDY, "messages": USER, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    for _ in range(4):
        with httpx2.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=60) as response:
            next(response.iter_lines())

    def gauge(name: str) -> float:
        text = httpx2.get(f"{server.url}/metrics").text
        line = next(line for line in text.splitlines() if line.startswith(f"vllm:{name}{{"))
        return float(line.rsplit(" ", 1)[1])

    import time

    deadline = time.monotonic() + 5
    while gauge("num_requests_running") or gauge("kv_cache_usage_perc"):
        assert time.monotonic() < deadline, "work or blocks were left behind"
        time.sleep(0.02)
