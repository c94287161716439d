"""Tool groups: built in, configured and registered; who sees them, what their tools do, and what is kept."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripted import Scripted, stack_with_tools

from llamakit.core.errors import ConfigError, Conflict, InvalidRequest, NotFound, OutboundFailed, OutboundRefused
from llamakit.stack.distribution import McpEndpoint, ToolGroupEntry
from llamakit.stack.tool_groups import ToolGroup

pytest.importorskip("mcp")
SERVERS = str(Path(__file__).parents[1] / "agents" / "mcp_servers.py")
PROGRAM = ToolGroupEntry(toolgroup_id="mcp::tests", args={"command": [sys.executable, SERVERS, "stdio"]})
MCP = "remote::model-context-protocol"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVERS, "http", str(port)])
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    server.kill()
    server.wait()


async def test_a_configured_program_is_a_group():
    stack = stack_with_tools(Scripted(), groups=[PROGRAM])
    groups = stack.tool_groups
    assert [group.id for group in await groups.list("me")] == ["builtin::rag", "mcp::tests"]
    tools = {tool.spec.name: tool for tool in await groups.tools("me", "mcp::tests")}
    assert "add" in tools and tools["add"].group == "mcp::tests" and not tools["add"].needs_approval
    assert {"knowledge_search", "add"} <= {tool.spec.name for tool in await groups.tools("me")}
    assert (await groups.invoke("me", "add", {"a": 1, "b": 2})).text == "3"
    assert (await groups.invoke("me", "mcp::tests/add", {"a": 1, "b": 2})).text == "3"
    wrong = await groups.invoke("me", "add", {"a": 1}, group="mcp::tests")
    assert wrong.is_error and "lacks 'b'" in wrong.text
    for name, group in (("sub", None), ("add", "mcp::none"), ("builtin::rag/add", None)):
        with pytest.raises(NotFound):
            await groups.invoke("me", name, {}, group=group)
    with pytest.raises(InvalidRequest, match="stays"):
        await groups.unregister("me", "mcp::tests")
    await stack.aclose()


async def test_an_owner_registers_servers_that_the_policy_allows(url):
    host = url.split("/")[2]
    settings = {"outbound": {"hosts": [host, "mcp.example.org"], "private": ["127.0.0.1"]}}
    stack = stack_with_tools(Scripted(), {MCP: settings})
    groups = stack.tool_groups
    made = await groups.register("me", "mcp::mine", "model-context-protocol", url, {"allowed_tools": ["add"]})
    assert made == await groups.get("me", "mcp::mine")
    assert made == await groups.register("me", "mcp::mine", "model-context-protocol", url, {"allowed_tools": ["add"]})
    with pytest.raises(Conflict):
        await groups.register("me", "mcp::mine", "model-context-protocol", url)
    assert [tool.spec.name for tool in await groups.tools("me", "mcp::mine")] == ["add"]
    assert (await groups.invoke("me", "add", {"a": 4, "b": 4}, args={"headers": {"x-user": "me"}})).text == "8"
    # Another owner sees none of it, and may use the same name.
    with pytest.raises(NotFound):
        await groups.get("you", "mcp::mine")
    with pytest.raises(NotFound):
        await groups.unregister("you", "mcp::mine")
    assert await groups.list("you") == [] and await groups.tools("you") == []
    await groups.register("you", "mcp::mine", "model-context-protocol", "https://elsewhere.example/mcp")
    with pytest.raises(OutboundRefused):
        await groups.tools("you", "mcp::mine")
    assert await groups.tools("you") == []
    await groups.unregister("me", "mcp::mine")
    with pytest.raises(NotFound):
        await groups.tools("me", "mcp::mine")
    await stack.aclose()


async def test_what_cannot_be_registered():
    stack = stack_with_tools(Scripted())
    url = "https://mcp.example.org"
    for id, provider, endpoint, args in (
        ("builtin::mine", "model-context-protocol", url, {}),
        ("a b", "model-context-protocol", url, {}),
        ("", "model-context-protocol", url, {}),
        ("x" * 200, "model-context-protocol", url, {}),
        ("mcp::x", "absent", url, {}),
        ("mcp::x", "model-context-protocol", None, {}),
        ("docs", "file-search", url, {}),
        ("mcp::x", "model-context-protocol", url, {"headers": {"authorization": "hunter2"}}),
        ("mcp::x", "model-context-protocol", url, {"big": "x" * 70_000}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await stack.tool_groups.register("me", id, provider, endpoint, args)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(Conflict):
        await stack.tool_groups.register("me", "builtin::rag", "other")
    same = await stack.tool_groups.register("me", "builtin::rag", "file-search")
    assert same == ToolGroup(id="builtin::rag", provider_id="file-search")
    await stack.aclose()


async def test_files_are_searched_by_a_group_of_ones_own():
    stack = stack_with_tools(Scripted())
    groups = stack.tool_groups
    await groups.register("me", "docs", "file-search", args={"vector_store_ids": ["vs_" + "0" * 48]})
    with pytest.raises(NotFound, match="vector store"):
        await groups.tools("me", "docs")
    outcome = await groups.invoke("me", "builtin::rag/knowledge_search", {"query": "x", "vector_db_ids": ["vs_0"]})
    assert outcome.is_error and "vector store" in outcome.text
    await stack.aclose()


async def test_a_group_that_is_away_does_not_hide_the_others():
    dead = ToolGroupEntry(toolgroup_id="mcp::dead", args={"command": [sys.executable, SERVERS, "dies"]})
    stack = stack_with_tools(Scripted(), groups=[dead, PROGRAM])
    assert "add" in {tool.spec.name for tool in await stack.tool_groups.tools("me")}
    assert (await stack.tool_groups.invoke("me", "add", {"a": 1, "b": 1})).text == "2"
    with pytest.raises(OutboundFailed):
        await stack.tool_groups.tools("me", "mcp::dead")
    await stack.aclose()


@pytest.mark.parametrize(
    "group",
    [
        ToolGroupEntry(toolgroup_id="docs"),
        ToolGroupEntry(toolgroup_id="mcp::x", provider_id="absent", mcp_endpoint=McpEndpoint(uri="https://x.org")),
        ToolGroupEntry(toolgroup_id="mcp::x", mcp_endpoint=McpEndpoint(uri="https://x.org"), args={"command": ["x"]}),
    ],
)
def test_groups_that_cannot_be_are_refused_at_the_start(group):
    with pytest.raises(ConfigError):
        stack_with_tools(Scripted(), groups=[group])
