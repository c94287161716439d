"""Tool groups over HTTP: listed, registered by their owner, called; and what a caller's own keys do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import in_process

from llamakit.api.llama_stack_tool_groups import (
    LlamaStackListedTool,
    LlamaStackToolDef,
    LlamaStackToolGroup,
    LlamaStackToolResult,
)
from llamakit.core.config import Secret
from llamakit.server.app import build_app
from llamakit.stack.distribution import ToolGroupEntry
from llamakit.stack.run_config import ServeConfig

pytest.importorskip("mcp")
SERVERS = str(Path(__file__).parents[1] / "agents" / "mcp_servers.py")
PROGRAM = ToolGroupEntry(toolgroup_id="mcp::tests", args={"command": [sys.executable, SERVERS, "stdio"]})
MINE = {
    "toolgroup_id": "mcp::mine",
    "provider_id": "model-context-protocol",
    "mcp_endpoint": {"uri": "https://mcp.example.org/mcp"},
    "args": {"allowed_tools": ["add"]},
}
ANNA, BORIS = ({"authorization": f"Bearer key-of-{name}"} for name in ("anna", "boris"))


@pytest.fixture
async def client():
    stack = stack_with_tools(Scripted(), groups=[PROGRAM])
    keys = (Secret("key-of-anna"), Secret("key-of-boris"))
    async with in_process(build_app(stack, ServeConfig(api_keys=keys))) as made:
        made.headers.update(ANNA)
        yield made
    await stack.aclose()


async def test_tools_of_a_configured_server(client):
    groups = (await client.get("/v1/toolgroups")).json()["data"]
    assert [group["identifier"] for group in groups] == ["builtin::rag", "mcp::tests"]
    assert all(not LlamaStackToolGroup.model_validate(group).model_extra for group in groups)
    assert (await client.get("/v1/toolgroups/mcp::tests")).json() == groups[1]
    tools = (await client.get("/v1/tools?toolgroup_id=mcp::tests")).json()["data"]
    add = next(tool for tool in tools if tool["identifier"] == "add")
    assert not LlamaStackListedTool.model_validate(add).model_extra
    assert (add["name"], add["type"], add["toolgroup_id"]) == ("add", "tool", "mcp::tests")
    assert {one["name"]: one["required"] for one in add["parameters"]} == {"a": True, "b": True}
    assert add["input_schema"]["type"] == "object"
    assert (await client.get("/v1/tools/add")).json() == (await client.get("/v1/tools/mcp::tests/add")).json() == add
    everything = (await client.get("/v1/admin/tools")).json()["data"]
    assert {"add", "knowledge_search"} <= {tool["name"] for tool in everything}
    listed = (await client.get("/v1/tool-runtime/list-tools?tool_group_id=mcp::tests")).json()["data"]
    assert [tool["name"] for tool in listed] == [tool["name"] for tool in tools]
    assert not LlamaStackToolDef.model_validate(listed[0]).model_extra


async def test_calls(client):
    async def invoke(name, **kwargs):
        response = await client.post("/v1/tool-runtime/invoke", json={"tool_name": name, "kwargs": kwargs})
        assert response.status_code == 200, response.text
        assert not LlamaStackToolResult.model_validate(response.json()).model_extra
        return response.json()

    assert (await invoke("add", a=1, b=2))["content"] == "3"
    made = await invoke("mcp::tests/add", a=1, b=2)
    assert (made["content"], made["error_message"], made["error_code"]) == ("3", None, None)
    failed = await invoke("add", a=1)
    assert failed["error_code"] == 1 and "lacks 'b'" in failed["error_message"]
    missing = await client.post("/v1/tool-runtime/invoke", json={"tool_name": "sub", "kwargs": {}})
    assert missing.status_code == 404 and "sub" in missing.json()["detail"]


async def test_an_owner_registers_what_nobody_else_sees(client):
    made = await client.post("/v1/toolgroups", json=MINE)
    assert made.status_code == 200 and made.json()["mcp_endpoint"] == MINE["mcp_endpoint"]
    assert (await client.post("/v1/toolgroups", json=MINE)).json() == made.json()
    assert (await client.post("/v1/toolgroups", json={**MINE, "args": None})).status_code == 409
    one = "/v1/toolgroups/mcp::mine"
    assert (await client.get(one)).json() == made.json()
    for method in ("GET", "DELETE"):
        assert (await client.request(method, one, headers=BORIS)).status_code == 404
    assert len((await client.get("/v1/toolgroups", headers=BORIS)).json()["data"]) == 2
    refused = await client.get("/v1/tools?toolgroup_id=mcp::mine")
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "outbound_refused"
    assert (await client.delete(one)).status_code == 204
    assert (await client.get(one)).status_code == 404
    assert (await client.delete("/v1/toolgroups/mcp::tests")).status_code == 400


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"provider_id": "nobody"}, "provider_id"),
        ({"mcp_endpoint": None}, "mcp_endpoint"),
        ({"mcp_endpoint": "https://x"}, "mcp_endpoint"),
        ({"toolgroup_id": "builtin::mine"}, "toolgroup_id"),
        ({"args": {"authorization": "secret"}}, "args"),
    ],
    ids=str,
)
async def test_what_cannot_be_registered(client, change, param):
    response = await client.post("/v1/toolgroups", json={**MINE, **change})
    assert response.status_code == 400 and response.json()["error"]["param"] == param


async def test_the_callers_own_keys(client):
    path, body = "/v1/tool-runtime/invoke", {"tool_name": "add", "kwargs": {"a": 1, "b": 1}}
    data = {"tavily_search_api_key": "sk-secret", "mcp_headers": {"https://elsewhere": {"x": "y"}}}
    response = await client.post(path, json=body, headers={"X-LlamaStack-Provider-Data": json.dumps(data)})
    assert response.json()["content"] == "2"
    ignored = response.headers["x-llamakit-ignored"]
    assert ignored == "x-llamastack-provider-data.tavily_search_api_key" and "sk-secret" not in ignored
    for bad in ("{", "[]", "x" * 20_000):
        response = await client.post(path, json=body, headers={"X-OGX-Provider-Data": bad})
        assert response.status_code == 400 and "xxxx" not in response.text
    await client.post("/v1/toolgroups", json=MINE)
    header = {"X-LlamaStack-Provider-Data": json.dumps({"mcp_headers": "wrong"})}
    response = await client.get("/v1/tools?toolgroup_id=mcp::mine", headers=header)
    assert response.status_code == 400 and "mcp_headers" in response.json()["detail"]


async def test_a_server_that_no_group_names(client):
    path = "/v1/tool-runtime/list-tools"
    response = await client.get(path, params={"mcp_endpoint[uri]": "https://nowhere.example/mcp"})
    assert response.status_code == 400 and "toolgroups" in response.json()["detail"]
    await client.post("/v1/toolgroups", json=MINE)
    response = await client.get(path, params={"mcp_endpoint[uri]": MINE["mcp_endpoint"]["uri"]})
    assert response.status_code == 403
