"""The tools of a server in Responses, through the official OpenAI client: each kind with a real provider behind it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import served

from llamakit.stack.distribution import ToolGroupEntry

SERVERS = str(Path(__file__).parents[1] / "unit" / "agents" / "mcp_servers.py")
MCP = "remote::model-context-protocol"
FOUND = b'{"results": [{"title": "Llama", "url": "https://example.org/llama", "content": "Woolly <b>animal</b>."}]}'


class SearchService(BaseHTTPRequestHandler):
    """Answers every search with one page."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(FOUND)

    def log_message(self, format, *args):
        pass


@contextlib.contextmanager
def search_service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SearchService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def mcp_service() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVERS, "http", str(port)])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def client_of(stack) -> Iterator[openai.OpenAI]:
    with served(stack) as server, openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


def kinds(events, part: str) -> list[str]:
    return [event.type for event in events if part in event.type]


def test_web_search_cites_what_it_found():
    model = Scripted([("web_search", {"query": "llama"})], "A llama is a woolly animal [1].", "So it is.")
    with search_service() as url:
        tools = {"remote::tavily-search": {"api_key": "hunter2", "base_url": url}}
        with client_of(stack_with_tools(model, tools)) as client:
            asked = {"model": "echo", "input": "What is a llama?", "tools": [{"type": "web_search"}]}
            events = list(client.responses.create(**asked, stream=True, include=["web_search_call.action.sources"]))
            final = events[-1].response
            again = client.responses.create(model="echo", input="Sure?", previous_response_id=final.id)
    stages = ("in_progress", "searching", "completed")
    assert kinds(events, "web_search_call") == [f"response.web_search_call.{stage}" for stage in stages]
    call, message = final.output
    assert call.status == "completed" and call.action.query == "llama"
    assert [source.url for source in call.action.sources] == ["https://example.org/llama"]
    (annotation,) = message.content[0].annotations
    assert annotation.type == "url_citation" and annotation.url == "https://example.org/llama"
    text = message.content[0].text
    assert text[annotation.start_index : annotation.end_index] == "[1]"
    assert kinds(events, "annotation") == ["response.output_text.annotation.added"]
    assert "Woolly animal." in model.asked[1].messages[-1].text
    assert again.output_text == "So it is." and "Woolly animal." in model.asked[2].messages[-3].text


def test_file_search_cites_file_page_and_place():
    model = Scripted([("knowledge_search", {"query": "What do llamas eat?"})], "They eat grass [1].")
    with client_of(stack_with_tools(model)) as client:
        file = client.files.create(file=("food.md", b"# Food\n\nLlamas eat grass and hay."), purpose="assistants")
        store = client.vector_stores.create(file_ids=[file.id])
        for _ in range(200):
            if client.vector_stores.retrieve(store.id).file_counts.completed:
                break
            time.sleep(0.05)
        search = {"type": "file_search", "vector_store_ids": [store.id], "ranking_options": {"score_threshold": 0.0}}
        asked = {"model": "echo", "input": "Food?", "tools": [search], "include": ["file_search_call.results"]}
        events = list(client.responses.create(**asked, stream=True))
        with pytest.raises(openai.NotFoundError):
            client.responses.create(**asked | {"tools": [search | {"vector_store_ids": ["vs_" + "0" * 48]}]})
        with pytest.raises(openai.BadRequestError):
            client.responses.create(**asked | {"tools": [search | {"filters": {"type": "near", "key": "a"}}]})
    call, message = events[-1].response.output
    assert call.queries == ["What do llamas eat?"] and call.results[0].file_id == file.id
    assert "Llamas eat grass" in call.results[0].text and call.results[0].filename == "food.md"
    (annotation,) = message.content[0].annotations
    assert (annotation.type, annotation.file_id, annotation.filename) == ("file_citation", file.id, "food.md")
    assert len(annotation.model_extra["span"]) == 2
    stages = ("in_progress", "searching", "completed")
    assert kinds(events, "file_search_call") == [f"response.file_search_call.{stage}" for stage in stages]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_the_code_interpreter_keeps_a_container():
    write = ("code_interpreter", {"code": "open('n.txt', 'w').write('42'); print('done')"})
    read = ("code_interpreter", {"code": "print(open('n.txt').read())"})
    model = Scripted([write], "It is in n.txt.", [read], "It is 42.")
    tool = {"type": "code_interpreter", "container": {"type": "auto"}}
    with client_of(stack_with_tools(model, {"inline::code-interpreter": {}})) as client:
        asked = {"model": "echo", "include": ["code_interpreter_call.outputs"], "input": "Go."}
        events = list(client.responses.create(**asked, tools=[tool], stream=True))
        call = events[-1].response.output[0]
        (annotation,) = events[-1].response.output[1].content[0].annotations
        downloaded = client.containers.files.content.retrieve(
            annotation.file_id, container_id=annotation.container_id
        ).read()
        uploaded = client.containers.files.create(call.container_id, file=("extra.txt", b"more"))
        listed = [file.path for file in client.containers.files.list(call.container_id, order="asc")]
        second = client.responses.create(**asked, tools=[tool | {"container": call.container_id}])
        assert client.containers.retrieve(call.container_id).status == "running"
        client.containers.delete(call.container_id)
        with pytest.raises(openai.NotFoundError):
            client.responses.create(**asked, tools=[tool | {"container": "cntr_" + "0" * 48}])
    assert (annotation.type, annotation.filename, downloaded) == ("container_file_citation", "n.txt", b"42")
    assert uploaded.source == "user" and listed == ["/work/n.txt", "/work/extra.txt"]
    assert call.outputs[0].logs == "done" and call.code.startswith("open(") and call.status == "completed"
    assert second.output[0].outputs[0].logs == "42" and second.output[0].container_id == call.container_id
    assert kinds(events, "code_interpreter_call") == [
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
    ]


def test_mcp_servers_are_listed_approved_and_called():
    pytest.importorskip("mcp")
    model = Scripted([("add", {"a": 2, "b": 3})], "Five.", [("add", {"a": 1, "b": 1})], "Two.", [("fail", {})], "Oh.")
    program = ToolGroupEntry(toolgroup_id="mcp::local", args={"command": [sys.executable, SERVERS, "stdio"]})
    with mcp_service() as url:
        policy = {"outbound": {"hosts": [url.split("/")[2]], "private": ["127.0.0.1"]}}
        with client_of(stack_with_tools(model, {MCP: policy}, [program])) as client:
            server = {"type": "mcp", "server_label": "sums", "server_url": url, "authorization": "hunter2"}
            asked = {"model": "echo", "input": "2 + 3?", "tools": [server | {"allowed_tools": ["add", "fail"]}]}
            first = list(client.responses.create(**asked, stream=True))
            listed, request = first[-1].response.output
            allowed = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
            answered = client.responses.create(
                **asked | {"input": [allowed]}, previous_response_id=first[-1].response.id, stream=True
            )
            second = list(answered)
            never = server | {"require_approval": "never"}
            third = list(client.responses.create(**asked | {"tools": [never]}, stream=True))
            local = {"type": "mcp", "server_label": "local", "connector_id": "mcp::local"}
            broken = client.responses.create(**asked | {"tools": [local]})
            elsewhere = server | {"server_url": "https://elsewhere.example/mcp"}
            with pytest.raises(openai.PermissionDeniedError, match=r"outbound\.hosts"):
                client.responses.create(**asked | {"tools": [elsewhere]})
    assert [tool.name for tool in listed.tools] == ["add", "fail"] and listed.server_label == "sums"
    assert kinds(first, "mcp_list_tools") == [
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
    ]
    assert (request.type, request.name, request.arguments) == ("mcp_approval_request", "add", '{"a": 2, "b": 3}')
    call, message = second[-1].response.output
    assert (call.type, call.output, call.approval_request_id) == ("mcp_call", "5", request.id)
    assert message.content[0].text == "Five."
    assert kinds(third, "mcp_call") == [
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ]
    failed = next(item for item in broken.output if item.type == "mcp_call")
    assert failed.status == "failed" and failed.error
    shown = "".join(event.to_json() for event in (*first, *second, *third))
    assert "hunter2" not in shown
