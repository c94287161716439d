"""`/v1/containers` over plain HTTP: made, filled, read, ended; and a server without an interpreter."""

import shutil

import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import echo_app, in_process

from llamakit.core.errors import SandboxUnavailable
from llamakit.server.app import build_app
from llamakit.stack.run_config import ServeConfig

ABSENT = "cntr_" + "0" * 48


@pytest.fixture
async def client():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    stack = stack_with_tools(Scripted(), {"inline::code-interpreter": {"memory_mb": 1024}})
    try:
        await stack.start()
    except SandboxUnavailable as fault:
        pytest.skip(f"no namespaces here: {fault}")
    async with in_process(build_app(stack, ServeConfig())) as made:
        made.stack = stack
        yield made
    await stack.aclose()


async def test_a_container_and_its_files(client):
    kept = {"file": ("b.txt", b"from files")}
    file = (await client.post("/v1/files", files=kept, data={"purpose": "user_data"})).json()
    asked = {"name": "work", "file_ids": [file["id"]], "expires_after": {"anchor": "last_active_at", "minutes": 5}}
    made = (await client.post("/v1/containers", json=asked)).json()
    assert made["object"] == "container" and made["memory_limit"] == "1g" and made["expires_after"]["minutes"] == 5
    one = f"/v1/containers/{made['id']}"
    assert (await client.get(one)).json()["name"] == "work"
    assert [item["id"] for item in (await client.get("/v1/containers")).json()["data"]] == [made["id"]]
    added = (await client.post(f"{one}/files", files={"file": ("a.txt", b"hello")})).json()
    assert (added["path"], added["source"], added["bytes"]) == ("/work/a.txt", "user", 5)
    copied = await client.post(f"{one}/files", json={"file_id": file["id"]})
    assert copied.status_code == 200 and copied.json()["path"] == "/work/b.txt"
    page = (await client.get(f"{one}/files", params={"limit": 1, "order": "asc"})).json()
    assert page["has_more"] and page["data"][0]["path"] == "/work/b.txt"
    rest = (await client.get(f"{one}/files", params={"after": page["last_id"], "order": "asc"})).json()
    assert [item["id"] for item in rest["data"]] == [added["id"]]
    content = await client.get(f"{one}/files/{added['id']}/content")
    assert content.content == b"hello" and content.headers["content-disposition"].startswith("attachment")
    assert (await client.get(f"{one}/files/{added['id']}")).json() == added
    assert (await client.delete(f"{one}/files/{added['id']}")).json()["deleted"]
    assert (await client.get(f"{one}/files/{added['id']}/content")).status_code == 404
    assert (await client.delete(one)).json() == {"id": made["id"], "object": "container.deleted", "deleted": True}
    assert (await client.get(one)).status_code == 404


async def test_what_cannot_be_is_refused(client):
    for body in (
        {},
        {"name": ""},
        {"name": "x", "memory_limit": "64g"},
        {"name": "x", "network_policy": {"type": "allowlist"}},
        {"name": "x", "expires_after": {"anchor": "last_active_at", "minutes": 600}},
    ):
        assert (await client.post("/v1/containers", json=body)).status_code == 400, body
    absent = {"name": "x", "file_ids": ["file-" + "0" * 48]}
    assert (await client.post("/v1/containers", json=absent)).status_code == 404
    made = (await client.post("/v1/containers", json={"name": "x"})).json()
    files = f"/v1/containers/{made['id']}/files"
    assert (await client.post(files, files={"file": ("main.py", b"x")})).status_code == 400
    assert (await client.post(files, json={"file_id": "file-" + "0" * 48})).status_code == 404
    assert (await client.post(files, content=b"x")).status_code == 415


async def test_an_expired_container_is_told_of_and_not_used(client):
    made = (await client.post("/v1/containers", json={"name": "x"})).json()
    one = f"/v1/containers/{made['id']}"
    file = (await client.post(f"{one}/files", files={"file": ("a.txt", b"hello")})).json()
    database = await client.stack.storage.database()
    await database.execute("UPDATE containers SET active_ns = active_ns - ?1", 21 * 60 * 10**9)
    told = (await client.get(one)).json()
    assert told["status"] == "expired" and told["name"] == "x"
    assert [item["status"] for item in (await client.get("/v1/containers")).json()["data"]] == ["expired"]
    for method, path, sent in (
        ("GET", f"{one}/files", {}),
        ("GET", f"{one}/files/{file['id']}/content", {}),
        ("POST", f"{one}/files", {"files": {"file": ("b.txt", b"x")}}),
        ("DELETE", f"{one}/files/{file['id']}", {}),
    ):
        assert (await client.request(method, path, **sent)).status_code == 404, path
    tool = {"type": "code_interpreter", "container": made["id"]}
    refused = await client.post("/v1/responses", json={"model": "echo", "input": "x", "tools": [tool]})
    assert refused.status_code == 400 and "has expired; make another" in refused.json()["error"]["message"]
    assert (await client.delete(one)).json()["deleted"]


async def test_a_server_without_an_interpreter_says_so():
    async with in_process(echo_app()) as client:
        refused = await client.post("/v1/containers", json={"name": "x"})
        assert refused.status_code == 400 and "--tool code-interpreter" in refused.json()["error"]["message"]
        assert (await client.get("/v1/containers")).json()["data"] == []
        one = f"/v1/containers/{ABSENT}"
        file = f"{one}/files/cfile_{'0' * 48}"
        for method, path in (
            ("GET", one),
            ("DELETE", one),
            ("GET", f"{one}/files"),
            ("GET", file),
            ("GET", f"{file}/content"),
            ("DELETE", file),
        ):
            assert (await client.request(method, path)).status_code == 404
        assert (await client.post(f"{one}/files", json={"file_id": "x"})).status_code == 404
        assert (await client.post(f"{one}/files", files={"file": ("a", b"x")})).status_code == 404
