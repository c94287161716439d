"""Frameworks that speak OpenAI's wire against the real server: LangChain, LiteLLM, LlamaIndex, pydantic-ai.

They do not all go together with one another and with the rest of the test extra, so each may live in an environment
of its own: CLIENTS_PYTHON lists the interpreters to try, as PATH lists folders. The extras `clients`, `litellm` and
`llamaindex` name them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.serving import served

pytestmark = pytest.mark.slow
PYTHONS = [path for path in os.environ.get("CLIENTS_PYTHON", "").split(os.pathsep) if path] or [sys.executable]

LANGCHAIN = """
import json, sys
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

base = dict(base_url=sys.argv[1], api_key="none")

@tool
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

chat = ChatOpenAI(model="echo", max_retries=0, **base)
out = {"whole": chat.invoke("hello").content}
out["streamed"] = "".join(chunk.content for chunk in chat.stream("hello"))
asked = HumanMessage("please add")
called = chat.bind_tools([add]).invoke([asked])
out["calls"] = [[call["name"], call["args"]] for call in called.tool_calls]
results = [ToolMessage(str(add.invoke(call["args"])), tool_call_id=call["id"]) for call in called.tool_calls]
out["after"] = chat.bind_tools([add]).invoke([asked, called, *results]).content
responses = ChatOpenAI(model="echo", use_responses_api=True, max_retries=0, **base)
out["responses"] = responses.invoke("hello").text
if callable(out["responses"]):
    out["responses"] = out["responses"]()
out["responses"] = str(out["responses"])
vectors = OpenAIEmbeddings(model="echo", check_embedding_ctx_length=False, **base).embed_documents(["a", "b"])
out["dimensions"] = [len(vector) for vector in vectors]
print(json.dumps(out))
"""

LITELLM = """
import json, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
litellm.suppress_debug_info = True
base = dict(api_base=sys.argv[1], api_key="none", model="openai/echo")
said = [{"role": "user", "content": "hello"}]
tools = [{"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}]
out = {"whole": litellm.completion(messages=said, **base).choices[0].message.content}
stream = litellm.completion(messages=said, stream=True, **base)
out["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
called = litellm.completion(messages=[{"role": "user", "content": "please add"}], tools=tools, **base)
out["calls"] = [[c.function.name, json.loads(c.function.arguments)] for c in called.choices[0].message.tool_calls]
anthropic = litellm.completion(
    model="anthropic/echo", api_base=sys.argv[1].removesuffix("/v1"), api_key="none", messages=said, max_tokens=50)
out["anthropic"] = anthropic.choices[0].message.content
out["dimensions"] = [len(row["embedding"]) for row in litellm.embedding(input=["a", "b"], **base).data]
try:
    litellm.completion(messages=said, temperature=9, **base, max_retries=0)
except litellm.BadRequestError as fault:
    out["bad"] = fault.status_code
print(json.dumps(out))
"""

LLAMAINDEX = """
import asyncio, json, sys
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.schema import Document
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

base = dict(api_base=sys.argv[1], api_key="none")
chat = OpenAILike(model="echo", is_chat_model=True, is_function_calling_model=True, context_window=8192,
                  max_retries=0, **base)
said = [ChatMessage(role=MessageRole.USER, content="hello")]
out = {"whole": chat.chat(said).message.content, "completed": chat.complete("hello").text}
out["streamed"] = "".join(piece.delta for piece in chat.stream_chat(said))

async def later():
    return (await chat.achat(said)).message.content

out["later"] = asyncio.run(later())

def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

answer = chat.chat_with_tools([FunctionTool.from_defaults(add)], user_msg="please add")
out["calls"] = [[call.tool_name, call.tool_kwargs] for call in chat.get_tool_calls_from_response(answer)]
vectors = OpenAILikeEmbedding(model_name="echo", **base)
out["dimensions"] = [len(vector) for vector in vectors.get_text_embedding_batch(["a", "b"])]
documents = [Document(text="Alpacas give soft wool."), Document(text="The bank raised its rate.")]
index = VectorStoreIndex.from_documents(documents, embed_model=vectors)
out["asked"] = str(index.as_query_engine(llm=chat, similarity_top_k=2).query("What gives wool?"))
print(json.dumps(out))
"""

PYDANTIC_AI = """
import asyncio, json, sys
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=sys.argv[1], api_key="none")
called = []

def build(kind):
    agent = Agent(kind("echo", provider=provider))

    @agent.tool_plain
    def add(a: int, b: int) -> str:
        "Add two numbers."
        called.append([a, b])
        return f"the sum is {a + b}"

    return agent

async def main():
    out = {}
    for name, kind in (("chat", OpenAIChatModel), ("responses", OpenAIResponsesModel)):
        agent = build(kind)
        out[name] = (await agent.run("hello")).output
        out[name + "_tool"] = (await agent.run("please add")).output
        async with agent.run_stream("hello") as stream:
            out[name + "_streamed"] = [piece async for piece in stream.stream_text(delta=False, debounce_by=None)][-1]
    out["called"] = called
    print(json.dumps(out))

asyncio.run(main())
"""


def run(module: str, script: str) -> dict:
    """What a script printed that talks to a server of the echo model; skips where the framework is not installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = [[python, "-c", f"import {module}"] for python in PYTHONS]
    tried = [subprocess.run(one, capture_output=True, timeout=120, env=environment).returncode for one in asked]
    if 0 not in tried:
        pytest.skip(f"{module} is installed for none of {PYTHONS}: see the extras clients, litellm and llamaindex")
    python = PYTHONS[tried.index(0)]
    with served() as server:
        done = subprocess.run(
            [python, "-c", script, server.base_url], capture_output=True, text=True, timeout=240, env=environment
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_langchain():
    told = run("langchain_openai", LANGCHAIN)
    assert told["whole"] == told["streamed"] == told["responses"] == "hello"
    assert told["calls"] == [["add", {"a": 0, "b": 0}]] and told["after"] == "0" and told["dimensions"] == [32, 32]


def test_litellm():
    told = run("litellm", LITELLM)
    assert told["whole"] == told["streamed"] == told["anthropic"] == "hello" and told["bad"] == 400
    assert told["calls"] == [["add", {"a": 0}]] and told["dimensions"] == [32, 32]


def test_llamaindex():
    told = run("llama_index.llms.openai_like", LLAMAINDEX)
    assert told["whole"] == told["completed"] == told["streamed"] == told["later"] == "hello"
    assert told["calls"] == [["add", {"a": 0, "b": 0}]] and told["dimensions"] == [32, 32]
    assert "Alpacas give soft wool." in told["asked"] and "What gives wool?" in told["asked"]


def test_pydantic_ai():
    told = run("pydantic_ai", PYDANTIC_AI)
    for kind in ("chat", "responses"):
        assert told[kind] == told[f"{kind}_streamed"] == "hello"
        assert told[f"{kind}_tool"] == "the sum is 0"
    assert told["called"] == [[0, 0], [0, 0]]
