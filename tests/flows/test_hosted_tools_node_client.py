"""Responses with an MCP server through the official Node client; needs `node`, and its package where NODE_PATH says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import served

from llamakit.stack.distribution import ToolGroupEntry

pytestmark = pytest.mark.peer
SERVERS = str(Path(__file__).parents[1] / "unit" / "agents" / "mcp_servers.py")

SCRIPT = """
const { default: OpenAI } = require('openai');
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'unused', maxRetries: 0 });
(async () => {
  const out = { events: [] };
  const tools = [{ type: 'mcp', server_label: 'sums', connector_id: 'mcp::sums', require_approval: 'never' }];
  const stream = client.responses.stream({ model: 'echo', input: '2 + 3?', tools });
  for await (const event of stream) if (event.type.includes('mcp')) out.events.push(event.type);
  const final = await stream.finalResponse();
  out.text = final.output_text;
  out.call = final.output.find((item) => item.type === 'mcp_call').output;
  console.log(JSON.stringify(out));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def test_node_client_reads_the_events_of_an_mcp_call(tmp_path):
    node = shutil.which("node")
    homes = [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    if node is None or not any((home / "openai").is_dir() for home in homes):
        pytest.skip("needs node, and the npm package openai under NODE_PATH")
    script = tmp_path / "tools.cjs"
    script.write_text(SCRIPT)
    program = ToolGroupEntry(toolgroup_id="mcp::sums", args={"command": [sys.executable, SERVERS, "stdio"]})
    model = Scripted([("add", {"a": 2, "b": 3})], "Five.")
    with served(stack_with_tools(model, groups=[program])) as server:
        done = subprocess.run([node, str(script), server.base_url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["text"] == "Five." and told["call"] == "5"
    assert told["events"] == [
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ]
