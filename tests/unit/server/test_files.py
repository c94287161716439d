"""Files, uploads and vector stores over plain HTTP: every operation by its owner, by somebody else, and gone wrong."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from tests.kept import until
from tests.serving import echo_app, echo_stack, in_process

from llamakit.api.limits import Limits
from llamakit.core.config import Secret
from llamakit.server.app import build_app, operations_of
from llamakit.stack.run_config import ServeConfig

KEYS = ("key-of-anna", "key-of-boris")
ANNA, BORIS = ({"authorization": f"Bearer {key}"} for key in KEYS)
TAGS = ("files", "uploads", "vector stores")
UNKNOWN = {
    "file_id": "file-" + "0" * 48,
    "upload_id": "upload_" + "0" * 48,
    "vector_store_id": "vs_" + "0" * 48,
    "batch_id": "vsfb_" + "0" * 48,
}


@asynccontextmanager
async def client_of(*, limits: Limits | None = None, **settings):
    stack = echo_stack()
    app = build_app(stack, ServeConfig(**settings), limits=limits or Limits())
    async with in_process(app) as client:
        try:
            yield client
        finally:
            await stack.aclose()


def form(data=b"Llamas give wool.", name="a.txt", **fields):
    return {"files": {"file": (name, data)}, "data": {"purpose": "assistants", **fields}}


async def created(client, path, headers=None, **request):
    response = await client.post(path, headers=headers, **request)
    assert response.status_code == 200, response.text
    return response.json()


async def made(client, headers=None):
    """One of everything, by the names of the path's places, and an upload of one part."""
    file = await created(client, "/v1/files", headers, **form())
    upload = {"filename": "x", "purpose": "user_data", "bytes": 5, "mime_type": "text/plain"}
    upload = await created(client, "/v1/uploads", headers, json=upload)
    store = await created(client, "/v1/vector_stores", headers, json={"name": "s"})
    path = f"/v1/vector_stores/{store['id']}/file_batches"
    batch = await created(client, path, headers, json={"file_ids": [file["id"]]})

    async def state():
        return (await client.get(f"{path}/{batch['id']}", headers=headers)).json()

    await until(state)
    ids = {"file_id": file["id"], "upload_id": upload["id"], "vector_store_id": store["id"], "batch_id": batch["id"]}
    return ids


def requests(ids, part="part_" + "0" * 48):
    """What to send where, an order in which each works."""
    return {
        "addUploadPart": {"files": {"data": b"hello"}},
        "completeUpload": {"json": {"part_ids": [part]}},
        "modifyVectorStore": {"json": {"name": "t"}},
        "searchVectorStore": {"json": {"query": "wool"}},
        "createVectorStoreFile": {"json": {"file_id": ids["file_id"]}},
        "updateVectorStoreFileAttributes": {"json": {"attributes": {"a": 1}}},
        "createVectorStoreFileBatch": {"json": {"files": [{"file_id": ids["file_id"], "attributes": {"b": True}}]}},
    }


def own_operations():
    """Those that name an object; what ends one comes last."""
    found = [o for o in operations_of(echo_app()) if o.tag in TAGS and o.alias_of is None and "{" in o.path]
    last = ("completeUpload", "cancelUpload")
    return sorted(found, key=lambda o: (o.method == "DELETE", o.name in last, o.method != "GET", -len(o.path)))


async def test_every_operation_answers_as_the_document_says():
    async with client_of() as client:
        ids = await made(client)
        part = None
        for operation in own_operations():
            if operation.name == "cancelUpload":
                continue
            request = requests(ids, part)
            response = await client.request(
                operation.method, operation.path.format(**ids), **request.get(operation.name, {})
            )
            assert response.status_code == 200, (operation.name, response.text)
            if operation.answer is None:
                assert response.content == b"Llamas give wool." and int(response.headers["content-length"]) == 17
                assert response.headers["content-type"] == "application/octet-stream"
                continue
            wire = operation.answer.model_validate(response.json())
            assert not wire.__pydantic_extra__, (operation.name, wire.__pydantic_extra__)
            part = response.json()["id"] if operation.name == "addUploadPart" else part
        assert (await client.get("/v1/vector_stores")).json()["data"] == []
        assert [file["purpose"] for file in (await client.get("/v1/files")).json()["data"]] == ["user_data"]


@pytest.mark.parametrize("operation", own_operations(), ids=lambda operation: operation.name)
async def test_what_is_somebody_elses_looks_like_what_is_not_there(operation):
    async with client_of(api_keys=tuple(Secret(key) for key in KEYS)) as client:
        ids = await made(client, ANNA)

        async def call(places, headers):
            request = requests(places).get(operation.name, {})
            return await client.request(operation.method, operation.path.format(**places), headers=headers, **request)

        foreign, absent = await call(ids, BORIS), await call(UNKNOWN, BORIS)
        assert foreign.status_code == absent.status_code == 404, (foreign.text, absent.text)
        shown = foreign.json()["error"]
        for name, id in ids.items():
            shown["message"] = shown["message"].replace(id, UNKNOWN[name])
        assert shown == absent.json()["error"]


@pytest.mark.parametrize("id", ["x", "file-", "file-" + "A" * 48, "file-" + "0" * 47, "vs_%00", "é"])
async def test_ill_formed_ids_are_absent(id):
    async with client_of() as client:
        for path in (f"/v1/files/{id}", f"/v1/files/{id}/content", f"/v1/vector_stores/{id}"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.post(f"/v1/uploads/{id}/cancel")).status_code == 404


@pytest.mark.parametrize(
    ("request_", "status", "param"),
    [
        ({"json": {"purpose": "assistants"}}, 415, None),
        ({"data": {"purpose": "assistants"}, "files": {"other": b"x"}}, 400, "file"),
        ({"files": {"file": ("a.txt", b"x")}}, 400, "purpose"),
        (form(purpose="to be read"), 400, "purpose"),
        (form(purpose="batch_output"), 400, "purpose"),
        (form(name=""), 400, "file"),
        (form(name=".."), 400, "file"),
        (form(extra="x"), 400, "extra"),
        (form(**{"expires_after[anchor]": "created_at"}), 400, "expires_after"),
        (form(**{"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}), 400, "expires_after"),
        (form(**{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}), 400, "expires_after"),
        (form(**{"expires_after[anchor]": "created_at", "expires_after[seconds]": "1e4"}), 400, "expires_after"),
        (form(data=b"x" * 2000), 413, None),
    ],
)
async def test_files_that_are_refused(request_, status, param):
    async with client_of(limits=Limits(file_bytes=1024)) as client:
        response = await client.post("/v1/files", **request_)
        assert (response.status_code, response.json()["error"]["param"]) == (status, param), response.text
        assert (await client.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=10001", "limit"), ("order=up", "order"), ("after=x", "after"), ("limit=x", "limit")],
)
async def test_pages_that_cannot_be(query, param):
    async with client_of() as client:
        response = await client.get(f"/v1/files?{query}")
        assert response.status_code == 400 and response.json()["error"]["param"] == param


STORE_REFUSED = [
    ("", {"name": 1}, "name"),
    ("", {"metadata": {"k": 1}}, "metadata.k"),
    ("", {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
    ("", {"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days"),
    ("", {"embedding_model": "nobody"}, "model"),
    ("", {"file_ids": ["x"] * 501}, "file_ids"),
    ("", {"chunking_strategy": {"type": "other"}}, "chunking_strategy.type"),
    ("/{id}/files", {"file_id": 1}, "file_id"),
    ("/{id}/files", {}, "file_id"),
    ("/{id}/files", {"file_id": "{file}", "attributes": {"a": [1]}}, "attributes.a"),
    ("/{id}/files", {"file_id": "{file}", "attributes": {str(n): n for n in range(17)}}, "attributes"),
    (
        "/{id}/files",
        {"file_id": "{file}", "chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 100}}},
        "chunking_strategy.static.chunk_overlap_tokens",
    ),
    (
        "/{id}/files",
        {
            "file_id": "{file}",
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51},
            },
        },
        "chunking_strategy.static.chunk_overlap_tokens",
    ),
    ("/{id}/file_batches", {}, "file_ids"),
    ("/{id}/file_batches", {"file_ids": ["a"], "files": [{"file_id": "a"}]}, "file_ids"),
    ("/{id}/file_batches", {"files": [{"file_id": "a"}], "attributes": {}}, "files"),
    ("/{id}/search", {}, "query"),
    ("/{id}/search", {"query": ""}, "query"),
    ("/{id}/search", {"query": []}, "query"),
    ("/{id}/search", {"query": "x", "max_num_results": 51}, "max_num_results"),
    ("/{id}/search", {"query": "x", "search_mode": "magic"}, "search_mode"),
    ("/{id}/search", {"query": "x", "ranking_options": {"score_threshold": 2.0}}, "ranking_options.score_threshold"),
    ("/{id}/search", {"query": "x", "ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
    ("/{id}/search", {"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, "filters.type"),
    (
        "/{id}/search",
        {"query": "x", "filters": {"type": "and", "filters": [{"type": "no"}]}},
        "filters.filters[0].type",
    ),
    ("/{id}/search", {"query": "x", "filters": {"type": "and", "filters": []}}, "filters.filters"),
]


async def test_stores_and_searches_that_are_refused():
    async with client_of() as client:
        store = (await created(client, "/v1/vector_stores", json={}))["id"]
        file = (await created(client, "/v1/files", **form()))["id"]
        for path, body, param in STORE_REFUSED:
            body = {key: file if value == "{file}" else value for key, value in body.items()}
            response = await client.post("/v1/vector_stores" + path.format(id=store), json=body)
            assert response.status_code in (400, 404), (path, body, response.text)
            assert response.json()["error"]["param"] == param, (path, body, response.text)


async def test_what_has_no_effect_is_named():
    async with client_of() as client:
        store = (await created(client, "/v1/vector_stores", json={}))["id"]
        body = {"query": ["a", "b"], "rewrite_query": True}
        response = await client.post(f"/v1/vector_stores/{store}/search", json=body)
        assert response.json() == {
            "object": "vector_store.search_results.page",
            "search_query": ["a", "b"],
            "data": [],
            "has_more": False,
            "next_page": None,
        }
        assert response.headers["x-llamakit-ignored"] == "rewrite_query"


async def test_names_of_downloads_are_escaped():
    async with client_of() as client:
        file = await created(client, "/v1/files", **form(name='näh;"x.txt'))
        header = (await client.get(f"/v1/files/{file['id']}/content")).headers["content-disposition"]
        assert header.startswith("attachment; filename*=UTF-8''n%C3%A4h") and '"' not in header
