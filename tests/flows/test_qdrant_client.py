"""Vector stores kept in Qdrant, through OpenAI's client: files, filters, every kind of search, and a server's end."""

from __future__ import annotations

import pytest
from tests.qdrant import qdrant_at
from tests.serving import served

from llamakit.providers.specs import Api
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ProviderEntry, StorageConfig, VectorStoreConfig

openai = pytest.importorskip("openai")

TEXTS = {
    "wool.md": (b"# Wool\n\nAlpacas give soft wool.", {"year": 2024, "topic": "animals", "day": "2024-05-01"}),
    "bank.md": (b"The central bank raised the interest rate.", {"year": 2026, "topic": "money", "day": "2026-01-09"}),
    "hay.md": (b"Llamas eat grass and hay in the Andes.", {"year": 2025, "topic": "animals", "day": "2025-11-30"}),
}  # fmt: skip


@pytest.fixture
def serve(tmp_path):
    with qdrant_at(tmp_path / "qdrant", api_key="the-key") as (url, engine):
        keeper = ProviderEntry(
            provider_id="q", provider_type="remote::qdrant", config={"url": url, "api_key": "the-key"}
        )
        echo = ProviderEntry(provider_id="echo", provider_type="inline::echo")
        distribution = Distribution(
            providers={Api.inference: (echo,), Api.vector_io: (keeper,)},
            storage=StorageConfig(database=f"sqlite:{tmp_path / 'server.db'}"),
            vector_stores=VectorStoreConfig(embedding_model="ngrams"),
        )
        yield lambda: served(build_stack(distribution)), engine


def client_of(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)


def names(client, store, query="wool hay bank", **options) -> set[str]:
    return {found.filename for found in client.vector_stores.search(store, query=query, **options).data}


def compare(kind, key, value):
    return {"filters": {"type": kind, "key": key, "value": value}}


def test_a_store_in_qdrant(serve):
    start, engine = serve
    with start() as server, client_of(server) as client:
        store = client.vector_stores.create(name="kept").id
        for name, (data, attributes) in TEXTS.items():
            file = client.files.create(file=(name, data), purpose="assistants").id
            client.vector_stores.files.create_and_poll(file, vector_store_id=store, attributes=attributes,
                                                       poll_interval_ms=50)  # fmt: skip
        assert client.vector_stores.retrieve(store).file_counts.completed == 3
        for mode in ("vector", "keyword", "hybrid"):
            best = client.vector_stores.search(store, query="soft wool", extra_body={"search_mode": mode}).data[0]
            assert best.filename == "wool.md" and "soft wool" in best.content[0].text and best.span[1] > best.span[0]
            both = {"extra_body": {"search_mode": mode}}
            assert names(client, store, **compare("eq", "topic", "money"), **both) == {"bank.md"}
            assert names(client, store, **compare("gte", "year", 2025), **both) == {"bank.md", "hay.md"}
            assert names(client, store, **compare("lt", "day", "2025-12"), **both) == {"wool.md", "hay.md"}
            assert names(client, store, **compare("nin", "topic", ["money"]), **both) == {"wool.md", "hay.md"}
        (bank,) = [one.id for one in client.files.list().data if one.filename == "bank.md"]
        client.vector_stores.files.update(bank, vector_store_id=store, attributes={"topic": "animals"})
        assert names(client, store, **compare("eq", "topic", "animals")) == set(TEXTS)
        client.vector_stores.files.delete(bank, vector_store_id=store)
        assert names(client, store) == {"wool.md", "hay.md"}
    with start() as first, start() as second, client_of(first) as one, client_of(second) as other:
        assert names(one, store) == names(other, store) == {"wool.md", "hay.md"}
        file = one.files.create(file=("new.md", b"Vicunas give the finest wool."), purpose="assistants").id
        one.vector_stores.files.create_and_poll(file, vector_store_id=store, poll_interval_ms=50)
        assert "new.md" in names(other, store, "finest wool")
        assert len(engine.shards) == 1
        other.vector_stores.delete(store)
        with pytest.raises(openai.NotFoundError):
            one.vector_stores.search(store, query="wool")
        assert engine.shards == {}


def test_a_qdrant_that_is_away_is_a_bad_gateway_with_the_reason(serve, tmp_path):
    start, engine = serve
    with start() as server, client_of(server) as client:
        store = client.vector_stores.create(name="kept").id
        engine.api_key = "another-key"
        with pytest.raises(openai.InternalServerError, match=r"Qdrant refused our key \(401\)") as refused:
            client.vector_stores.search(store, query="wool")
        assert refused.value.status_code == 502 and "the-key" not in str(refused.value)
