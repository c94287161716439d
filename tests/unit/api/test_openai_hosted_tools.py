"""Hosted tools on the wire: what a provider is told of them, and what is refused with its path."""

from __future__ import annotations

import pytest

from llamakit.api.openai_hosted_tools import check_keepable, settings_of
from llamakit.api.openai_responses import ResponseRequest
from llamakit.api.wire import read
from llamakit.core.errors import InvalidRequest


def tool(**fields):
    asked, unknown = read(ResponseRequest, {"input": "hi", "tools": [fields]})
    return (asked.tools or [])[0], unknown


def test_a_provider_is_told_what_is_known_and_asked_for():
    given = {
        "type": "mcp",
        "server_label": "a",
        "server_url": "https://x",
        "allowed_tools": {"read_only": True, "z": 1},
    }
    made, unknown = tool(**given, command=["id"], allowed_callers=["direct"], defer_loading=False)
    assert settings_of(made) == {
        "type": "mcp",
        "server_label": "a",
        "server_url": "https://x",
        "allowed_tools": {"read_only": True},
    }
    assert set(unknown) == {"tools[0].command", "tools[0].allowed_tools.z"}


def test_filters_and_places_keep_their_shape():
    tree = {"type": "and", "filters": [{"type": "eq", "key": "a", "value": 1}]}
    made, _ = tool(type="file_search", vector_store_ids=["vs_1"], filters=tree, ranking_options={"ranker": "auto"})
    assert settings_of(made)["filters"] == tree
    made, _ = tool(type="web_search", user_location={"type": "approximate", "country": "DE", "city": None})
    assert settings_of(made)["user_location"] == {"type": "approximate", "country": "DE"}
    made, _ = tool(type="code_interpreter", container={"type": "auto", "file_ids": ["file-1"]})
    assert settings_of(made)["container"] == {"type": "auto", "file_ids": ["file-1"]}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"type": "mcp", "server_label": "a", "require_approval": "sometimes"}, "tools[0].require_approval"),
        ({"type": "mcp", "server_label": "a", "allowed_tools": "add"}, "tools[0].allowed_tools"),
        ({"type": "code_interpreter", "container": {"type": "manual"}}, "tools[0].container.type"),
        ({"type": "code_interpreter"}, "tools[0].container"),
        ({"type": "web_search", "user_location": {"country": "Germany"}}, "tools[0].user_location.country"),
        ({"type": "file_search", "vector_store_ids": ["a"], "filters": {"type": "near"}}, "tools[0].filters.type"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(given, param):
    with pytest.raises(InvalidRequest) as caught:
        tool(**given)
    assert caught.value.param == param


def test_a_request_with_credentials_is_not_kept():
    for fields, name in (({"authorization": "hunter2"}, "authorization"), ({"headers": {"x": "hunter2"}}, "headers")):
        made, _ = tool(type="mcp", server_label="a", server_url="https://x", **fields)
        with pytest.raises(InvalidRequest) as caught:
            check_keepable([made])
        assert caught.value.param == f"tools[0].{name}" and "hunter2" not in str(caught.value)
    check_keepable([tool(type="mcp", server_label="a", connector_id="mcp::a")[0]])
