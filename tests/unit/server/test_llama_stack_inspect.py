"""Providers, routes, version and models as Llama Stack's clients ask for them."""

from __future__ import annotations

import pytest
from tests.serving import in_process

from llamakit import __version__
from llamakit.api.llama_stack_inspect import LlamaStackProvider, LlamaStackRoutes, shown
from llamakit.api.openai_models import WireModel
from llamakit.core.config import Secret
from llamakit.server.app import build_app
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry, StorageConfig

ECHO = ProviderEntry(
    provider_id="here", provider_type="inline::echo", config={"models": ("echo", "large"), "keep_alive": 60.0}
)
REMOTE = ProviderEntry(
    provider_id="there",
    provider_type="remote::vllm",
    config={"base_url": "http://127.0.0.1:9/v1", "api_key": Secret("sk-very-secret"), "max_tokens": 9},
)


@pytest.fixture
async def client():
    distribution = Distribution(
        providers={"inference": (ECHO, REMOTE)},
        models=(ModelEntry(model_id="small", provider_id="here", provider_model_id="echo"),),
        storage=StorageConfig(database=":memory:"),
    )
    stack = build_stack(distribution)
    async with in_process(build_app(stack, distribution.server)) as made:
        yield made
    await stack.aclose()


@pytest.mark.parametrize("base", ["/v1", "/v1alpha/admin"])
async def test_providers(client, base):
    response = await client.get(f"{base}/providers")
    assert "very-secret" not in response.text
    rows = {row["provider_id"]: row for row in response.json()["data"] if row["api"] == "inference"}
    for row in rows.values():
        assert not LlamaStackProvider.model_validate(row).model_extra
    assert rows["here"]["provider_type"] == "inline::echo" and rows["here"]["health"] == {"status": "OK"}
    assert rows["there"]["config"]["api_key"] == "********"
    assert rows["there"]["config"]["max_tokens"] == 9
    assert (await client.get(f"{base}/providers/here")).json() == rows["here"]
    missing = await client.get(f"{base}/providers/nobody")
    assert missing.status_code == 404 and "here" in missing.json()["detail"]


def test_settings_that_may_be_shown():
    nested = {"Authorization": "x", "deep": [Secret("y"), ("z",)]}
    config = {"max_tokens": 1, "access_token": "t", "nested": nested, "url": "postgresql://u:p@h/d", "kind": object}
    assert shown(config) == {
        "max_tokens": 1,
        "access_token": "********",
        "nested": {"Authorization": "********", "deep": ["********", ["z"]]},
        "url": "postgresql://********@h/d",
        "kind": str(object),
    }


@pytest.mark.parametrize("base", ["/v1", "/v1alpha/admin"])
async def test_routes(client, base):
    async def routes(**query):
        body = (await client.get(f"{base}/inspect/routes", params=query)).json()
        assert not LlamaStackRoutes.model_validate(body).model_extra
        return {(row["method"], row["route"]): row for row in body["data"]}

    everything = await routes()
    assert everything["POST", "/v1/inference/chat-completion"]["provider_types"] == [
        "inline::echo",
        "remote::vllm",
    ]
    assert ("GET", "/v1/models/{model}") in everything and ("GET", "/api/tags") in everything
    assert {path.split("/")[1] for _, path in await routes(api_filter="v1alpha")} == {"v1alpha"}
    old = await routes(api_filter="deprecated")
    assert ("POST", "/v1/openai/v1/chat/completions") in old and not old.keys() & everything.keys()
    response = await client.get(f"{base}/inspect/routes?api_filter=v7")
    assert response.status_code == 400 and response.json()["error"]["param"] == "api_filter"


async def test_version_and_health(client):
    for base in ("/v1", "/v1alpha/admin"):
        assert (await client.get(f"{base}/version")).json() == {"version": __version__}
        assert (await client.get(f"{base}/health")).json()["status"] in ("OK", "not ready")


async def test_a_model_gets_a_name_and_loses_it(client):
    body = {"model_id": "org/mine:1", "provider_id": "here", "provider_model_id": "large", "metadata": {"a": 1}}
    made = await client.post("/v1/models", json=body)
    assert made.status_code == 200 and not WireModel.model_validate(made.json()).model_extra
    model = made.json()
    assert model["identifier"] == model["id"] == "org/mine:1" and model["metadata"]["a"] == 1
    assert model["custom_metadata"]["provider_resource_id"] == model["provider_resource_id"] == "large"
    assert (await client.get("/v1/models/org/mine:1")).json() == model
    chat = {"model_id": "org/mine:1", "messages": [{"role": "user", "content": "hi"}]}
    answer = await client.post("/v1/inference/chat-completion", json=chat)
    assert answer.json()["completion_message"]["content"] == "hi"
    gone = await client.delete("/v1/models/org/mine:1")
    assert gone.json() == {"id": "org/mine:1", "object": "model", "deleted": True}
    assert (await client.delete("/v1/models/org/mine:1")).status_code == 404
    assert (await client.delete("/v1/models/small")).status_code == 400
    refused = await client.post("/v1/models", json={**body, "provider_id": "nowhere"})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "provider_id"
