"""MCP servers as a provider of tools: which are reached, by whom, with what approval, and over which connection."""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError, InvalidRequest, OutboundFailed, OutboundRefused, ToolError
from llamakit.providers.remote.tools.mcp import build
from llamakit.providers.remote.tools.mcp_settings import read_headers, read_usage

pytest.importorskip("mcp")
SERVERS = str(Path(__file__).parents[1] / "agents" / "mcp_servers.py")


def command(kind: str = "stdio", **more):
    return {"command": [sys.executable, SERVERS, kind], **more}


@pytest.fixture(scope="module", params=["http", "sse"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVERS, request.param, str(port)])
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/{'mcp' if request.param == 'http' else 'sse'}"
    server.kill()
    server.wait()


def allowing(url: str) -> dict:
    host = url.split("/")[2]
    return {"outbound": {"hosts": [host], "private": ["127.0.0.1"]}}


async def test_a_request_reaches_a_server_as_far_as_the_policy_goes(url, caplog):
    caplog.set_level(logging.DEBUG)
    tools = build(allowing(url), {})
    asked = {"type": "mcp", "server_label": "t", "server_url": url, "authorization": "hunter2"}
    opened = await tools.open("me", asked | {"allowed_tools": ["add", "fail"]})
    assert {spec.name for spec in opened.specs} == {"add", "fail"} and opened.needs_approval("add")
    assert (await opened.call("add", '{"a": 2, "b": 3}')).output == "5"
    failed = await opened.call("fail", "{}")
    assert failed.is_failed and failed.fields["error"]["type"] == "mcp_tool_execution_error"
    assert "lacks 'b'" in (await opened.call("add", '{"a": 2}')).output
    with pytest.raises(ToolError, match="offers no tool 'slow'"):
        await opened.call("slow", "{}")
    await tools.aclose()
    assert "hunter2" not in caplog.text
    closed = build({}, {})
    with pytest.raises(OutboundRefused, match="not an allowed host"):
        await closed.open("me", asked)


async def test_connections_are_kept_for_one_owner_and_one_credential():
    tools = build({"servers": {"t": command()}}, {})
    asked = {"connector_id": "t"}
    await asyncio.gather(*(tools.open("me", asked) for _ in range(5)))
    await tools.open("you", asked)
    entries = tools._pool._entries
    assert len(entries) == 2
    opened = await tools.open("me", asked)
    assert not opened.needs_approval("add")
    # A server that ended is started again by the next use.
    assert (await opened.call("leave", "{}")).is_failed
    assert (await (await tools.open("me", asked)).call("add", '{"a": 1, "b": 1}')).output == "2"
    await tools.aclose()
    assert not entries


async def test_the_least_used_connection_makes_room():
    tools = build({"servers": {"t": command()}, "max_connections": 1}, {})
    for owner in ("a", "b", "a"):
        opened = await tools.open(owner, {"connector_id": "t"})
        assert (await opened.call("add", '{"a": 1, "b": 2}')).output == "3"
    assert len(tools._pool._entries) == 1
    await tools.aclose()


async def test_programs_come_from_the_configuration_only():
    tools = build({"servers": {"t": command(allowed_tools=["add", "slow"], require_approval="always")}}, {})
    for settings in (
        {"server_label": "x", "command": ["id"]},
        {"server_label": "x"},
        {"connector_id": "absent"},
        {"connector_id": "t", "server_url": "https://example.org"},
        {"connector_id": "t", "headers": {"a": "b"}},
        {"server_url": 3},
        {"server_url": "https://x", "tunnel_id": "t"},
    ):
        with pytest.raises(InvalidRequest):
            await tools.open("me", settings)
    opened = await tools.open(
        "me", {"connector_id": "t", "allowed_tools": ["add", "fail"], "require_approval": "never"}
    )
    # Both the configuration and the request narrow what may be used, and each may ask for approval.
    assert [spec.name for spec in opened.specs] == ["add"] and opened.needs_approval("add")
    await tools.aclose()


async def test_a_server_that_does_not_answer_is_the_networks_fault():
    tools = build({"servers": {"t": command("dies")}}, {})
    with pytest.raises(OutboundFailed, match="could not be opened"):
        await tools.open("me", {"connector_id": "t"})
    assert not tools._pool._entries
    await tools.aclose()


@pytest.mark.parametrize(
    "server",
    [
        {},
        {"command": "a string"},
        {"command": ["x"], "url": "https://example.org"},
        {"url": "https://example.org", "transport": "carrier pigeon"},
        {"url": "https://example.org", "require_approval": "sometimes"},
        {"url": "https://example.org", "colour": "red"},
    ],
)
def test_a_server_that_cannot_be_is_refused_at_the_start(server):
    with pytest.raises(ConfigError):
        build({"servers": {"t": server}}, {})


def test_approval_as_openai_spells_it():
    assert read_usage({}).needs_approval("x")
    assert not read_usage({"require_approval": "never"}).needs_approval("x")
    never = read_usage({"require_approval": {"never": {"tool_names": ["x"]}}})
    assert not never.needs_approval("x") and never.needs_approval("y")
    always = read_usage({"require_approval": {"always": {"tool_names": ["x"]}}})
    assert always.needs_approval("x") and not always.needs_approval("y")
    for bad in ("maybe", {"sometimes": {}}, {"always": ["x"]}, {"always": {"tool_names": "x"}}):
        with pytest.raises(InvalidRequest):
            read_usage({"require_approval": bad})


def test_headers_are_checked_and_never_repeated():
    assert read_headers({"X-A": "1"}, "token") == {"x-a": "1", "authorization": "Bearer token"}
    assert read_headers(None, "Basic abc") == {"authorization": "Basic abc"}
    for headers, authorization in (
        ({"host": "evil"}, None),
        ({"a b": "x"}, None),
        ({"a": "hunter2\r\nx: y"}, None),
        (["a"], None),
        (None, "hunter2\n"),
        ({"a": "x" * 9000}, None),
    ):
        with pytest.raises(InvalidRequest) as caught:
            read_headers(headers, authorization)
        assert "hunter2" not in str(caught.value)


async def test_secrets_of_the_configuration_reach_the_server_and_no_text():
    server = {"url": "https://example.org/mcp", "headers": {"authorization": Secret("hunter2")}}
    tools = build({"servers": {"t": server}}, {})
    known = tools._servers["t"].server
    assert known.at.headers == {"authorization": "hunter2"} and "hunter2" not in repr(known)
    await tools.aclose()
