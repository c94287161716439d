"""MCP against real servers: a program on standard input and output, and HTTP of both kinds."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llamakit.agents.mcp import McpAddress, McpConnection, McpProgram, McpServer, fingerprint
from llamakit.agents.tools import ToolBox
from llamakit.core.errors import ConfigError, OutboundRefused, ToolError
from llamakit.core.messages import ToolCall
from llamakit.outbound.policy import OutboundPolicy

pytest.importorskip("mcp")
SERVERS = str(Path(__file__).with_name("mcp_servers.py"))
NOWHERE = OutboundPolicy()


def program(kind: str = "stdio", **options) -> McpServer:
    return McpServer(label="t", at=McpProgram(command=sys.executable, arguments=(SERVERS, kind)), **options)


@asynccontextmanager
async def connected(server: McpServer, policy: OutboundPolicy = NOWHERE) -> AsyncIterator[McpConnection]:
    connection = McpConnection(server, policy)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module", params=["http", "sse"])
def address(request: pytest.FixtureRequest) -> Iterator[McpAddress]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVERS, request.param, str(port)])
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            break
        time.sleep(0.05)
    path, transport = ("mcp", "streamable_http") if request.param == "http" else ("sse", "sse")
    yield McpAddress(url=f"http://127.0.0.1:{port}/{path}", transport=transport, headers={"x-test": "1"})  # type: ignore[arg-type]
    server.kill()
    server.wait()


async def test_a_programs_tools_are_used_like_our_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    async with connected(program(needs_approval=("add",))) as connection:
        tools = {tool.spec.name: tool for tool in await connection.tools()}
        assert {"add", "fail", "slow", "flood"} <= set(tools)
        assert tools["add"].spec.description == "Add two numbers" and tools["add"].group == "t"
        assert tools["add"].needs_approval and not tools["fail"].needs_approval
        box = ToolBox.of(tools.values())
        outcome = await box.call(ToolCall(id="1", name="add", arguments='{"a": 2, "b": 3}'))
        assert (outcome.text, outcome.is_error) == ("5", False)
        assert "lacks 'b'" in (await box.call(ToolCall(id="2", name="add", arguments='{"a": 2}'))).text
        failed = await box.call(ToolCall(id="3", name="fail", arguments="{}"))
        assert failed.is_error and "fail" in failed.text
        flood = await box.call(ToolCall(id="4", name="flood", arguments="{}"))
        assert len(flood.text) < 100_100 and "[cut: 900000" in flood.text
        names = await box.call(ToolCall(id="5", name="environment", arguments="{}"))
        assert "OPENAI_API_KEY" not in names.text


async def test_servers_at_an_address(address: McpAddress):
    server = McpServer(label="web", at=address, allowed=("add",))
    async with connected(server, OutboundPolicy.to(address.url)) as connection:
        (tool,) = await connection.tools()
        assert (await tool.call({"a": 20, "b": 22})).text == "42"
        both = await asyncio.gather(*(tool.call({"a": n, "b": 0}) for n in range(10)))
        assert [outcome.text for outcome in both] == [str(n) for n in range(10)]


async def test_an_address_the_policy_does_not_allow_is_not_reached(address: McpAddress):
    for policy in (NOWHERE, OutboundPolicy(hosts=("*",), plain_http=True)):
        with pytest.raises(OutboundRefused):
            await McpConnection(McpServer(label="web", at=address), policy).open()


async def test_a_tool_that_changed_since_its_approval_is_refused():
    async with connected(program()) as connection:
        tools = await connection.tools()
    pins = {
        tool.spec.name: fingerprint(tool.spec.name, tool.spec.description, dict(tool.spec.parameters)) for tool in tools
    }
    async with connected(program(pins=pins)) as connection:
        assert len(await connection.tools()) == len(tools)
    async with connected(program(pins={**pins, "add": "0" * 64})) as connection:
        with pytest.raises(ToolError, match=r"'add'.*has changed"):
            await connection.tools()
    del pins["add"]
    async with connected(program(pins=pins)) as connection:
        with pytest.raises(ToolError, match=r"'add'.*is new"):
            await connection.tools()


@pytest.mark.parametrize("kind", ["silent", "noise", "dies"])
async def test_a_server_that_does_not_speak_is_given_up(kind: str):
    started = time.monotonic()
    with pytest.raises(ToolError, match="MCP server 't'"):
        await McpConnection(program(kind, connect_s=2.0, call_s=2.0), NOWHERE).open()
    assert time.monotonic() - started < 15


async def test_a_program_that_is_not_there():
    server = McpServer(label="none", at=McpProgram(command="/no/such/program"))
    with pytest.raises((ConfigError, ToolError), match="none"):
        await McpConnection(server, NOWHERE).open()


async def test_a_tool_that_hangs_or_takes_the_server_down_is_told():
    async with connected(program(call_s=1.0)) as connection:
        tools = {tool.spec.name: tool for tool in await connection.tools()}
        started = time.monotonic()
        with pytest.raises(ToolError, match=r"did not answer|failed"):
            await tools["slow"].call({})
        assert time.monotonic() - started < 5
    async with connected(program(call_s=5.0)) as connection:
        tools = {tool.spec.name: tool for tool in await connection.tools()}
        with pytest.raises(ToolError, match="MCP server 't'"):
            await tools["leave"].call({})
        with pytest.raises(ToolError, match="MCP server 't'"):
            await tools["add"].call({"a": 1, "b": 1})


async def test_a_closed_connection_says_so():
    connection = McpConnection(program(), NOWHERE)
    await connection.open()
    await connection.close()
    with pytest.raises(ToolError, match="not connected"):
        await connection.tools()
    await connection.close()
