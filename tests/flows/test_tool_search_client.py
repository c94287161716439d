"""Tools that are found when they are wanted, namespaces, and MCP servers that are away, through OpenAI's client."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import openai
import pytest
from tests.flows.test_hosted_tools_client import mcp_service
from tests.scripted import Scripted, stack_with_tools
from tests.serving import served

MCP = "remote::model-context-protocol"
ORDERS = {
    "type": "function",
    "name": "list_orders",
    "description": "List the open orders of a customer.",
    "parameters": {"type": "object", "properties": {"customer": {"type": "string"}}, "required": ["customer"]},
    "defer_loading": True,
}
REFUND = {"type": "custom", "name": "refund", "description": "Pay money back.", "defer_loading": True}
CRM = {"type": "namespace", "name": "crm", "description": "Customers and what they buy.", "tools": [ORDERS, REFUND]}
CLOCK = {"type": "function", "name": "clock", "description": "Tell the time.", "parameters": None}
WEATHER = CLOCK | {"name": "weather", "description": "Forecast for a town.", "defer_loading": True}


@contextlib.contextmanager
def client_of(stack) -> Iterator[openai.OpenAI]:
    with served(stack) as server, openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


def names(request) -> list[str]:
    return [spec.name for spec in request.tools]


def test_the_server_finds_tools_and_the_model_calls_them():
    model = Scripted(
        [("tool_search", {"query": "open orders of a customer"})],
        [("crm__list_orders", {"customer": "ann"})],
        "None.",
    )
    tools = [CRM, CLOCK, WEATHER, {"type": "tool_search"}]
    with client_of(stack_with_tools(model)) as client:
        events = list(client.responses.create(model="echo", input="Orders?", tools=tools, stream=True))
        first = events[-1].response
        search, found, call = first.output
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "[]"}
        final = client.responses.create(model="echo", input=[output], tools=tools, previous_response_id=first.id)
    assert (search.type, search.execution, search.call_id) == ("tool_search_call", "server", None)
    assert search.arguments == {"query": "open orders of a customer"} and found.execution == "server"
    (group,) = found.tools
    assert (group.type, group.name, [tool.name for tool in group.tools]) == ("namespace", "crm", ["list_orders"])
    assert (call.type, call.name, call.namespace) == ("function_call", "list_orders", "crm")
    assert json.loads(call.arguments) == {"customer": "ann"}
    # What is deferred is not seen before, and stays when the conversation goes on.
    assert names(model.asked[0]) == ["clock", "tool_search"]
    assert names(model.asked[1]) == names(model.asked[2]) == ["clock", "tool_search", "crm__list_orders"]
    about = model.asked[0].tools[1].description
    assert "crm (2 tools): Customers and what they buy." in about and "weather: Forecast" in about
    assert "crm__list_orders" in model.asked[1].messages[-1].text
    assert [message.text for message in model.asked[2].messages][:3] == [
        message.text for message in model.asked[1].messages
    ]
    assert final.output_text == "None."


def test_a_search_without_result_is_told():
    model = Scripted([("tool_search", {"query": "elephants"})], "Nothing.")
    with client_of(stack_with_tools(model)) as client:
        answer = client.responses.create(model="echo", input="?", tools=[WEATHER, {"type": "tool_search"}])
    assert answer.output[1].tools == [] and "no tool fits" in model.asked[1].messages[-1].text
    assert answer.output_text == "Nothing."


def test_the_client_finds_tools():
    model = Scripted([("tool_search", {"goal": "weather"})], [("weather", {})], "Sun.")
    search = {
        "type": "tool_search",
        "execution": "client",
        "description": "Ask for tools.",
        "parameters": {"type": "object", "properties": {"goal": {"type": "string"}}},
    }
    with client_of(stack_with_tools(model)) as client:
        first = client.responses.create(model="echo", input="Weather?", tools=[search])
        (asked,) = first.output
        loaded = {"type": "tool_search_output", "call_id": asked.call_id, "execution": "client", "tools": [WEATHER]}
        second = client.responses.create(model="echo", input=[loaded], tools=[search], previous_response_id=first.id)
        items = client.responses.input_items.list(second.id, order="asc").data
    assert (asked.type, asked.execution, asked.arguments) == ("tool_search_call", "client", {"goal": "weather"})
    assert asked.call_id and model.asked[0].tools[0].description == "Ask for tools."
    assert names(model.asked[1]) == ["tool_search", "weather"] and second.output[0].name == "weather"
    assert items[-1].type == "tool_search_output" and items[-1].tools[0].name == "weather"


def test_tools_that_an_item_adds_are_there_from_then_on():
    model = Scripted("ok", "ok")
    more = {"type": "additional_tools", "role": "developer", "tools": [CLOCK]}
    with client_of(stack_with_tools(model)) as client:
        first = client.responses.create(model="echo", input=[more, {"role": "user", "content": "hi"}])
        client.responses.create(model="echo", input="again", previous_response_id=first.id)
    assert names(model.asked[0]) == names(model.asked[1]) == ["clock"]


def test_custom_tools_in_namespaces_and_formats():
    model = Scripted([("crm__refund", {"input": "5 EUR"})], "ok")
    grammar = {"type": "grammar", "syntax": "regex", "definition": "[0-9]+ EUR"}
    refund = REFUND | {"defer_loading": False, "format": grammar}
    with client_of(stack_with_tools(model)) as client:
        asked = {"model": "echo", "tools": [CRM | {"tools": [refund]}]}
        first = client.responses.create(**asked, input="Refund.", tool_choice={"type": "custom", "name": "refund"})
        (call,) = first.output
        output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "paid"}
        client.responses.create(**asked, input=[output], previous_response_id=first.id)
    assert (call.type, call.name, call.namespace, call.input) == ("custom_tool_call", "refund", "crm", "5 EUR")
    (spec,) = model.asked[0].tools
    assert spec.strict and spec.parameters["properties"]["input"]["pattern"] == "^(?:[0-9]+ EUR)$"
    assert model.asked[0].tool_choice.name == "crm__refund"
    assert model.asked[1].messages[-2].tool_calls[0].name == "crm__refund"


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ([WEATHER], "tool_search"),
        ([{"type": "tool_search"}, {"type": "tool_search"}], "one tool_search"),
        ([CRM, CRM, {"type": "tool_search"}], "another tool has"),
    ],
)
def test_tools_that_cannot_go_together_are_refused(tools, words):
    with client_of(stack_with_tools(Scripted())) as client, pytest.raises(openai.BadRequestError, match=words):
        client.responses.create(model="echo", input="hi", tools=tools)


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """A port that nobody else gets, and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections, and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"


def test_a_server_that_is_away_does_not_end_the_response(monkeypatch):
    pytest.importorskip("mcp")
    monkeypatch.setattr("llamakit.stack.response_offer.LIST_S", 1.5)
    model = Scripted([("add", {"a": 1, "b": 2})], "Three.", "Alone.", [("add", {"a": 1, "b": 1})], "Two.")
    with mcp_service() as url, closed_port() as closed, silent_server() as silent:
        hosts = [one.split("/")[2] for one in (url, closed, silent)]
        policy = {"outbound": {"hosts": hosts, "private": ["127.0.0.1"]}}
        server = {"type": "mcp", "require_approval": "never"}
        away = server | {"server_label": "away", "server_url": closed}
        slow = server | {"server_label": "slow", "server_url": silent}
        there = server | {"server_label": "sums", "server_url": url, "allowed_tools": ["add"]}
        with client_of(stack_with_tools(model, {MCP: policy})) as client:
            started = time.monotonic()
            asked = {"model": "echo", "input": "1 + 2?", "tools": [away, there, slow]}
            events = list(client.responses.create(**asked, stream=True))
            assert time.monotonic() - started < 10
            alone = client.responses.create(model="echo", input="hi", tools=[away])
            back = away | {"server_url": url, "allowed_tools": ["add"]}
            again = client.responses.create(model="echo", input="1 + 1?", tools=[back], previous_response_id=alone.id)
            for choice in ("required", {"type": "mcp", "server_label": "away"}):
                with pytest.raises(openai.InternalServerError, match="away") as refused:
                    client.responses.create(model="echo", input="hi", tools=[away], tool_choice=choice)
                assert refused.value.status_code == 502
    lists = {item.server_label: item for item in events[-1].response.output if item.type == "mcp_list_tools"}
    assert [tool.name for tool in lists["sums"].tools] == ["add"] and lists["sums"].error is None
    assert lists["away"].tools == [] and "could not be opened" in lists["away"].error
    assert lists["slow"].tools == [] and "did not list its tools within" in lists["slow"].error
    kinds = [event.type for event in events if "mcp_list_tools" in event.type]
    assert sorted(kinds) == [
        "response.mcp_list_tools.completed",
        *["response.mcp_list_tools.failed"] * 2,
        *["response.mcp_list_tools.in_progress"] * 3,
    ]
    assert events[-1].response.output_text == "Three." and names(model.asked[0]) == ["add"]
    assert [item.type for item in alone.output] == ["mcp_list_tools", "message"] and alone.output[0].error
    # A server that comes back is listed, though the conversation knows a list of it: a failed one.
    assert [item.type for item in again.output] == ["mcp_list_tools", "mcp_call", "message"]
    assert again.output[0].error is None and again.output[1].output == "2"


def test_the_tools_of_a_server_are_found_when_they_are_wanted():
    pytest.importorskip("mcp")
    model = Scripted([("tool_search", {"query": "sums"})], [("add", {"a": 1, "b": 2})], "Three.")
    with mcp_service() as url:
        policy = {"outbound": {"hosts": [url.split("/")[2]], "private": ["127.0.0.1"]}}
        server = {"type": "mcp", "server_label": "sums", "server_url": url, "require_approval": "never"}
        server |= {"defer_loading": True, "server_description": "Adds numbers.", "allowed_tools": ["add", "fail"]}
        with client_of(stack_with_tools(model, {MCP: policy})) as client:
            answer = client.responses.create(model="echo", input="?", tools=[server, {"type": "tool_search"}])
    assert names(model.asked[0]) == ["tool_search"] and "Adds numbers." in model.asked[0].tools[0].description
    found = next(item for item in answer.output if item.type == "tool_search_output")
    assert found.tools[0].server_label == "sums" and found.tools[0].allowed_tools == ["add", "fail"]
    assert next(item for item in answer.output if item.type == "mcp_call").output == "3"
