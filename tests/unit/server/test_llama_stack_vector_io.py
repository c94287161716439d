"""Vector databases, chunks and the RAG tool over HTTP: kept, found, refused, and nobody else's."""

from __future__ import annotations

import base64

import pytest
from tests.serving import echo_stack, in_process

from llamakit.api.llama_stack_rag import LlamaStackRagResult, fill
from llamakit.api.llama_stack_vector_io import LlamaStackFound, LlamaStackVectorDb
from llamakit.core.config import Secret
from llamakit.server.app import build_app
from llamakit.stack.run_config import ServeConfig

ANNA, BORIS = ({"authorization": f"Bearer key-of-{name}"} for name in ("anna", "boris"))
DB = {"vector_db_id": "my/notes", "embedding_model": "echo", "embedding_dimension": 32}


@pytest.fixture
async def client():
    stack = echo_stack()
    keys = (Secret("key-of-anna"), Secret("key-of-boris"))
    async with in_process(build_app(stack, ServeConfig(api_keys=keys))) as made:
        made.headers.update(ANNA)
        yield made
    await stack.aclose()


@pytest.fixture
async def db(client):
    response = await client.post("/v1/vector-dbs", json=DB)
    assert response.status_code == 200, response.text
    return response.json()


def chunk(text, document="d1", **fields):
    return {"content": text, "metadata": {"document_id": document, "page": 3}, **fields}


async def insert(client, *chunks, **fields):
    return await client.post("/v1/vector-io/insert", json={"vector_db_id": "my/notes", "chunks": chunks, **fields})


async def query(client, text, **params):
    body = {"vector_db_id": "my/notes", "query": text, "params": params}
    response = await client.post("/v1/vector-io/query", json=body)
    assert response.status_code == 200, response.text
    assert not LlamaStackFound.model_validate(response.json()).model_extra
    return response.json()


async def test_databases(client, db):
    assert not LlamaStackVectorDb.model_validate(db).model_extra
    assert (db["identifier"], db["type"], db["embedding_dimension"]) == ("my/notes", "vector_db", 32)
    again = await client.post("/v1/vector-dbs", json={**DB, "provider_id": "faiss"})
    assert again.json() == db and again.headers["x-llamakit-ignored"] == "provider_id"
    store = (await client.post("/v1/vector_stores", json={"name": "another"})).json()
    listed = (await client.get("/v1/vector-dbs")).json()["data"]
    assert [row["identifier"] for row in listed] == ["my/notes", store["id"]]
    assert (await client.get("/v1/vector-dbs/my/notes")).json() == db
    assert (await client.get(f"/v1/vector-dbs/{store['id']}")).json()["provider_resource_id"] == store["id"]
    assert (await client.get(f"/v1/vector_stores/{db['provider_resource_id']}")).json()["name"] == "my/notes"
    for id in ("my/notes", store["id"]):
        for method in ("GET", "DELETE"):
            assert (await client.request(method, f"/v1/vector-dbs/{id}", headers=BORIS)).status_code == 404
        assert (await client.delete(f"/v1/vector-dbs/{id}")).status_code == 204
        assert (await client.get(f"/v1/vector-dbs/{id}")).status_code == 404
    assert (await client.get(f"/v1/vector_stores/{db['provider_resource_id']}")).status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"embedding_dimension": 16}, 400, "embedding_dimension"),
        ({"embedding_model": "nobody"}, 404, "model"),
        ({"vector_db_id": "vs_" + "0" * 48}, 400, "vector_db_id"),
        ({"vector_db_id": ""}, 400, "vector_db_id"),
    ],
    ids=str,
)
async def test_what_cannot_be_registered(client, change, status, param):
    response = await client.post("/v1/vector-dbs", json={**DB, **change})
    assert response.status_code == status and response.json()["error"]["param"] == param
    assert (await client.get("/v1/vector_stores")).json()["data"] == []


async def test_a_name_that_is_taken_otherwise(client, db):
    response = await client.post("/v1/vector-dbs", json={**DB, "embedding_model": "meta/echo:1b"})
    assert response.status_code == 409 and "echo" in response.json()["detail"]


async def test_chunks_come_back_with_all_that_was_said_of_them(client, db):
    facts = {"chunk_id": "c9", "source": "book", "content_token_count": 4}
    assert (await insert(client, chunk("llamas spit", chunk_metadata=facts), chunk("cats purr"))).status_code == 204
    assert (await insert(client, chunk("dogs bark", "d2", stored_chunk_id="mine"))).status_code == 204
    made = await query(client, "llamas spit", k=1)
    (found,) = made["chunks"]
    assert (found["content"], found["metadata"]) == ("llamas spit", {"document_id": "d1", "page": 3})
    assert (found["chunk_id"], found["embedding_model"], found["embedding_dimension"]) == ("c9", "echo", 32)
    assert found["chunk_metadata"] == {"chunk_id": "c9", "document_id": "d1", **facts} and made["scores"][0] > 0.99
    keyword = await query(client, "bark", mode="keyword")
    assert [one["chunk_id"] for one in keyword["chunks"]] == ["mine"]
    hybrid = {"mode": "hybrid", "reranker_type": "weighted", "reranker_params": {"alpha": 0.2}}
    assert (await query(client, "cats", **hybrid))["chunks"][0]["content"] == "cats purr"
    assert (await query(client, "llamas spit", max_chunks=5, score_threshold=1.0))["chunks"] == [found]
    # The same chunks again take their own place.
    await insert(client, chunk("llamas spit", chunk_metadata=facts), chunk("cats purr"))
    assert len((await query(client, "x", k=50))["chunks"]) == 3


async def test_vectors_of_ones_own_and_the_stores_own_id(client, db):
    vector = [1.0] + [0.0] * 31
    assert (await insert(client, chunk("far from its words", embedding=vector))).status_code == 204
    store = db["provider_resource_id"]
    body = {"vector_store_id": store, "query": [{"type": "text", "text": "words"}], "params": {"mode": "keyword"}}
    made = (await client.post("/v1/vector-io/query", json=body)).json()
    assert made["chunks"][0]["content"] == "far from its words"
    searched = await client.post(f"/v1/vector_stores/{store}/search", json={"query": "words"})
    assert searched.json()["data"][0]["filename"] == "d1"
    assert (await client.post("/v1/vector-io/query", json=body, headers=BORIS)).status_code == 404


@pytest.mark.parametrize(
    ("chunks", "fields", "param"),
    [
        ([], {}, "chunks"),
        ([chunk("  ")], {}, "chunks[0].content"),
        ([chunk([{"type": "image", "image": {"data": "iVBORw0KGgo="}}])], {}, "chunks[0].content"),
        ([chunk("a", embedding=[0.5] * 32), chunk("b")], {}, "chunks[1].embedding"),
        ([chunk("a")], {"ttl_seconds": 5}, "ttl_seconds"),
        ([chunk("a")], {"vector_store_id": "vs_other"}, "vector_store_id"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_bad_inserts(client, db, chunks, fields, param):
    response = await insert(client, *chunks, **fields)
    assert response.status_code == 400 and response.json()["error"]["param"].startswith(param)
    assert (await insert(client, chunk("a", embedding=[0.5] * 8))).status_code == 400
    unknown = {"vector_db_id": "nobody", "chunks": [chunk("a")]}
    assert (await client.post("/v1/vector-io/insert", json=unknown)).status_code == 404


async def test_documents_and_questions(client, db):
    text = "Llamas are kept for wool.\n\n" + "Alpacas are smaller. " * 60
    page = base64.b64encode(b"<h1>Cats</h1><p>Cats purr at night.</p>").decode()
    documents = [
        {"document_id": "llamas", "content": text, "mime_type": "text/plain", "metadata": {"year": 2024}},
        {"document_id": "cats", "content": f"data:text/html;base64,{page}", "metadata": {}},
    ]
    body = {"documents": documents, "vector_db_id": "my/notes", "chunk_size_in_tokens": 64}
    for _ in range(2):
        response = await client.post("/v1/tool-runtime/rag-tool/insert", json=body)
        assert response.status_code == 204, response.text
    asked = {"content": "purr", "vector_db_ids": ["my/notes"], "query_config": {"mode": "keyword", "max_chunks": 3}}
    made = (await client.post("/v1/tool-runtime/rag-tool/query", json=asked)).json()
    assert not LlamaStackRagResult.model_validate(made).model_extra
    assert made["metadata"]["document_ids"] == ["cats"] and len(made["metadata"]["scores"]) == 1
    assert "Cats purr at night." in made["content"][1]["text"] and "purr" in made["content"][-1]["text"]
    template = "[{index}|{chunk.content}|{metadata}|{chunk.__class__}]"
    config = {"mode": "keyword", "chunk_template": template, "ranker": {"type": "rrf", "impact_factor": 30}}
    made = (await client.post("/v1/tool-runtime/rag-tool/query", json={**asked, "query_config": config})).json()
    assert made["content"][1]["text"].startswith("[1|") and "{chunk.__class__}" in made["content"][1]["text"]
    short = {"mode": "keyword", "max_tokens_in_context": 1}
    made = (await client.post("/v1/tool-runtime/rag-tool/query", json={**asked, "query_config": short})).json()
    assert made["content"] is None and made["metadata"]["document_ids"] == []
    # A new text of a document takes the place of the old.
    renewed = {**body, "documents": [{"document_id": "cats", "content": "Cats meow."}]}
    await client.post("/v1/tool-runtime/rag-tool/insert", json=renewed)
    made = (await client.post("/v1/tool-runtime/rag-tool/query", json=asked)).json()
    assert made["content"] is None


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"uri": "http://169.254.169.254/x"}, "documents[0].content.uri"),
        ("data:application/pdf;base64,!!!", "documents[0].content"),
        ("   ", "documents[0].content"),
        ("data:application/pdf;base64,AAAA", "documents[0].content"),
    ],
    ids=str,
)
async def test_documents_that_cannot_be_read(client, db, content, param):
    documents = [{"document_id": "d", "content": content}]
    body = {"documents": documents, "vector_db_id": "my/notes", "chunk_size_in_tokens": 64}
    response = await client.post("/v1/tool-runtime/rag-tool/insert", json=body)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


async def test_questions_that_are_refused(client, db):
    asked = {"content": "x", "vector_db_ids": ["my/notes"]}
    generator = {"type": "llm", "model": "echo", "template": "{{ messages }}"}
    body = {**asked, "query_config": {"query_generator_config": generator}}
    response = await client.post("/v1/tool-runtime/rag-tool/query", json=body)
    assert response.status_code == 400 and "template" in response.json()["detail"]
    assert (await client.post("/v1/tool-runtime/rag-tool/query", json={**asked, "content": ""})).status_code == 400
    elsewhere = await client.post("/v1/tool-runtime/rag-tool/query", json=asked, headers=BORIS)
    assert elsewhere.status_code == 404


def test_a_template_is_filled_in_once():
    assert fill("{index} {chunk.content}", 1, "{metadata}", {"a": 1}) == "1 {metadata}"
