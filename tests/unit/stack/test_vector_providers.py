"""Who keeps the vectors: each provider behind a whole stack, chosen by the distribution."""

from __future__ import annotations

import pytest
from tests.kept import until
from tests.postgres import empty_database
from tests.qdrant import qdrant_at

from llamakit.api.vector_stores import WireStoreRequest
from llamakit.core.errors import ConfigError, MissingExtra, OutboundFailed
from llamakit.providers.inline.vector_io import local
from llamakit.providers.specs import Api
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ProviderEntry, StorageConfig, VectorStoreConfig
from llamakit.stack.resolve import build_provider, resolve_spec

NEEDS = {"inline::numpy": (), "inline::faiss": ("faiss",), "inline::sqlite-vec": ("apsw", "sqlite_vec")}


def distribution(*types: str, chosen: str | None = None, config=None, **settings) -> Distribution:
    echo = ProviderEntry(provider_id="echo", provider_type="inline::echo")
    entries = [
        ProviderEntry(provider_id=f"v{n}", provider_type=type, config=config or {}) for n, type in enumerate(types)
    ]
    return Distribution(
        providers={Api.inference: (echo,), Api.vector_io: tuple(entries)},
        storage=StorageConfig(database=":memory:"),
        vector_stores=VectorStoreConfig(provider_id=chosen, **settings),
    )


async def one_round(stack) -> None:
    try:
        file = await stack.files.create("ann", "a.md", "assistants", b"Llamas give soft wool.")
        store = await stack.vector_stores.create("ann", WireStoreRequest(file_ids=[file["id"]]))
        done = await until(lambda: stack.vector_stores.get("ann", store["id"]))
        assert done["file_counts"]["completed"] == 1 and done["embedding_model"] == "ngrams"
        (found,) = await stack.vector_stores.search("ann", store["id"], "wool")
        assert found.file_id == file["id"]
        await stack.vector_stores.delete("ann", store["id"])
    finally:
        await stack.aclose()


@pytest.mark.parametrize("type", NEEDS)
async def test_vectors_in_process(type):
    for package in NEEDS[type]:
        pytest.importorskip(package)
    await one_round(build_stack(distribution(type, embedding_model="ngrams")))


async def test_vectors_in_another_database(postgres_server):
    async with empty_database(postgres_server) as url:
        await one_round(build_stack(distribution("remote::pgvector", config={"url": url}, embedding_model="ngrams")))


async def test_vectors_in_qdrant(tmp_path):
    with qdrant_at(tmp_path / "qdrant", api_key="secret-key") as (url, engine):
        config = {"url": url, "api_key": "secret-key"}
        await one_round(build_stack(distribution("remote::qdrant", config=config, embedding_model="ngrams")))
        assert engine.shards == {} and len(engine.seen) > 8


async def test_a_server_starts_without_its_qdrant_and_says_what_is_missing():
    stack = build_stack(distribution("remote::qdrant", config={"url": "http://127.0.0.1:9"}, embedding_model="ngrams"))
    await stack.start()
    with pytest.raises(OutboundFailed, match=r"Qdrant: .* is it running"):
        await one_round(stack)


async def test_pgvector_wants_postgresql():
    stack = build_stack(distribution("remote::pgvector"))
    with pytest.raises(ConfigError, match="pgvector needs PostgreSQL"):
        await one_round(stack)


async def test_the_distribution_chooses():
    stack = build_stack(distribution("remote::pgvector", "inline::numpy", chosen="v1", embedding_model="ngrams"))
    await one_round(stack)
    with pytest.raises(ConfigError, match=r"no vector_io provider 'v9'.*v0, v1"):
        build_stack(distribution("remote::pgvector", "inline::numpy", chosen="v9"))


def test_settings_and_packages_that_are_not_there(monkeypatch):
    spec = resolve_spec(Api.vector_io, "inline::faiss")
    with pytest.raises(ConfigError, match="speed"):
        build_provider(spec, {"speed": 9}, {})
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"llamakit\[faiss\]"):
        build_provider(spec, {}, {})
    with pytest.raises(ConfigError, match="'url'"):
        build_provider(resolve_spec(Api.vector_io, "remote::pgvector"), {"urls": "x"}, {})
