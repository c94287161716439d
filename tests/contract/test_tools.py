"""What every provider of tools promises, held to all of them: each against a real thing of its kind."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.faultserver import Answer, Asked, faulty

from llamakit.api.hosted_tools import HostedResult, ServerParts, ToolProvider
from llamakit.core.errors import InvalidRequest, NotFound, SandboxUnavailable, ToolError
from llamakit.providers.specs import BUILT_IN, Api
from llamakit.stack.container_rows import ContainerRows, create_containers
from llamakit.stack.resolve import build_provider, resolve_spec
from llamakit.stack.storage import TEMPORARY, Storage
from llamakit.stack.tool_groups import BUILTIN_TOOLS

SERVERS = str(Path(__file__).parents[1] / "unit" / "agents" / "mcp_servers.py")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
STORE = "vs_" + "0" * 48
KINDS = sorted(spec.name for spec in BUILT_IN if spec.api == Api.tools)


@dataclass
class Passage:
    file_id: str = "file-1"
    filename: str = "a.md"
    score: float = 0.5
    text: str = "Llamas eat grass."
    attributes: Any = None
    page: int | None = None
    span: tuple[int, int] | None = (0, 17)


class Stores:
    """One store of one owner."""

    async def get(self, owner: str, store: str) -> dict[str, Any]:
        if (owner, store) != ("me", STORE):
            raise NotFound("no vector store")
        return {}

    async def search(self, owner: str, store: str, query: str, **wishes: Any) -> list[Passage]:
        await self.get(owner, store)
        return [Passage()][: wishes["limit"]]


@dataclass
class Made:
    """A provider, how it is used, and a call that works."""

    provider: ToolProvider
    settings: dict[str, Any]
    name: str
    arguments: dict[str, Any]


async def _answer(asked: Asked, answer: Answer) -> None:
    page = {"title": "Llama", "url": "https://example.org", "content": "wool", "description": "wool", "snippet": "wool"}
    pages = [{**page, "name": "Llama"}]
    if "images" in asked.path:
        await answer.json({"created": 1, "data": [{"b64_json": PIXEL}]})
    elif "llm-api" in asked.path:
        await answer.head(200, "text/plain")
        await answer.send(b"Result: 42")
    else:
        await answer.json({"results": pages, "web": {"results": pages}, "webPages": {"value": pages}})


@asynccontextmanager
async def made(kind: str) -> AsyncIterator[Made]:
    async with faulty(_answer) as server:
        remote = {"base_url": f"http://127.0.0.1:{server.port}", "api_key": "hunter2"}
        query = {"query": "llama"}
        match kind:
            case "inline::file-search":
                row: tuple[dict[str, Any], dict[str, Any], str, dict[str, Any]]
                row = ({}, {"vector_store_ids": [STORE]}, "knowledge_search", query)
            case "inline::code-interpreter":
                if shutil.which("bwrap") is None:
                    pytest.skip("bubblewrap is not installed")
                row = ({}, {}, "code_interpreter", {"code": "print(6 * 7)"})
            case "remote::model-context-protocol":
                pytest.importorskip("mcp")
                program = {"command": [sys.executable, SERVERS, "stdio"], "allowed_tools": ["add"]}
                row = ({"servers": {"t": program}}, {"connector_id": "t"}, "add", {"a": 40, "b": 2})
            case "remote::wolfram-alpha":
                row = (remote, {}, "wolfram_alpha", query)
            case "remote::openai-images":
                row = (remote | {"model": "painter"}, {}, "image_generation", {"prompt": "A llama."})
            case "remote::searxng":
                row = ({"base_url": remote["base_url"]}, {}, "web_search", query)
            case _:
                row = (remote, {}, "web_search", query)
        provider = build_provider(resolve_spec(Api.tools, kind), row[0], {})
        storage = Storage(TEMPORARY, (create_containers,))
        provider.bind(ServerParts(vector_stores=Stores(), containers=ContainerRows(storage)))  # type: ignore[arg-type]
        try:
            await provider.start()
        except SandboxUnavailable as fault:
            pytest.skip(f"no namespaces here: {fault}")
        try:
            yield Made(provider, *row[1:])
        finally:
            await provider.aclose()
            await storage.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tool_is_told_called_and_ended(kind: str):
    async with made(kind) as one:
        await one.provider.start()
        opened = await one.provider.open("me", one.settings)
        (spec,) = opened.specs
        assert spec.name == one.name and spec.description
        jsonschema.Draft202012Validator.check_schema(dict(spec.parameters))
        assert spec.parameters["type"] == "object"
        jsonschema.validate(one.arguments, dict(spec.parameters))
        result = await opened.call(one.name, json.dumps(one.arguments))
        assert isinstance(result, HostedResult) and result.output.strip() and not result.is_failed
        json.dumps(dict(result.fields))
        for mark, citation in result.citations.items():
            assert mark in result.output and citation["type"].endswith("_citation")
        assert isinstance(opened.needs_approval(one.name), bool)
        if one.provider.group is not None:
            assert BUILTIN_TOOLS[one.provider.group] == (one.name,)
        await one.provider.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_settings_that_nobody_knows_are_refused(kind: str):
    async with made(kind) as one:
        with pytest.raises(InvalidRequest, match="nonsense"):
            await one.provider.open("me", {**one.settings, "nonsense": 1})


@pytest.mark.parametrize("kind", KINDS)
async def test_arguments_that_do_not_fit_are_words_for_the_model(kind: str):
    async with made(kind) as one:
        opened = await one.provider.open("me", one.settings)
        for spoilt in ("{", "[]", "{}", '{"query": 1, "code": 1}'):
            try:
                result = await opened.call(one.name, spoilt)
            except ToolError as fault:
                assert str(fault)
            else:
                assert result.is_failed and result.output


@pytest.mark.parametrize("kind", KINDS)
async def test_it_works_beside_itself(kind: str):
    async with made(kind) as one:
        opened = await one.provider.open("me", one.settings)
        results = await asyncio.gather(*(opened.call(one.name, json.dumps(one.arguments)) for _ in range(3)))
        assert all(not result.is_failed for result in results)
        marks = [mark for result in results for mark in result.citations]
        assert len(marks) == len(set(marks)), "each citation of a response has a mark of its own"
