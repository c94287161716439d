"""The tools of `llama serve` as flags: what becomes of them, and what is refused."""

import pytest

from llamakit.cli.serve_tools import with_tools
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.stack.distribution import Distribution, single
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.tool_providers import MCP, with_default_tools


def test_flags_become_rows_and_groups():
    made = with_tools(
        single("inline::echo"),
        ["code-interpreter", "remote::tavily-search"],
        ["time=uvx 'mcp server'", "web=https://mcp.example.org/mcp"],
        ["mcp.example.org", "127.0.0.1:9000"],
    )
    kinds = [row.provider_type for row in made.of(Api.tools)]
    assert kinds == ["inline::code-interpreter", "remote::tavily-search", "inline::file-search", MCP]
    time, web = made.tool_groups
    assert time.toolgroup_id == "mcp::time" and time.args == {"command": ["uvx", "mcp server"]}
    assert web.mcp_endpoint is not None and web.mcp_endpoint.uri == "https://mcp.example.org/mcp"
    outbound = made.of(Api.tools)[-1].config["outbound"]
    assert outbound == {"hosts": ["mcp.example.org", "127.0.0.1:9000"], "private": ["mcp.example.org", "127.0.0.1"]}


def test_a_tool_that_is_there_is_not_added_again():
    made = with_tools(single("inline::echo"), ["file-search", "inline::file-search"], [], [])
    assert [row.provider_type for row in made.of(Api.tools)] == ["inline::file-search", MCP]


def test_nothing_asked_is_nothing_changed():
    base = single("inline::echo")
    assert with_tools(base, [], [], []) is base


@pytest.mark.parametrize(
    ("tools", "servers", "said"),
    [
        (["tavily"], [], "tavily-search"),
        ([], ["https://x"], "NAME=URL"),
        ([], ["a='unclosed"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(tools, servers, said):
    with pytest.raises(ConfigError, match=said):
        with_tools(Distribution(), tools, servers, [])


def test_a_server_that_is_offline_has_no_tools_that_reach_out():
    made = with_default_tools(Distribution(server=ServeConfig(offline=True)))
    assert [row.provider_type for row in made.of(Api.tools)] == ["inline::file-search"]
