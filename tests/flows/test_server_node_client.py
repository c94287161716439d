"""The official Node client against the real server; needs `node`, and its package where NODE_PATH says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.serving import served

pytestmark = pytest.mark.peer

SCRIPT = """
const { default: OpenAI } = require('openai');
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'unused', maxRetries: 0 });
const messages = [{ role: 'user', content: 'héllo 🦙' }];
const tools = [{ type: 'function', function: { name: 'look', parameters: { type: 'object', properties: {} } } }];
(async () => {
  const out = {};
  out.whole = (await client.chat.completions.create({ model: 'echo', messages })).choices[0].message.content;
  out.streamed = '';
  const stream_options = { include_usage: true };
  const stream = await client.chat.completions.create({ model: 'echo', messages, stream: true, stream_options });
  for await (const chunk of stream) {
    out.streamed += chunk.choices[0]?.delta?.content ?? '';
    if (chunk.usage) out.tokens = chunk.usage.completion_tokens;
  }
  const asked = [{ role: 'user', content: 'please look' }];
  const runner = client.chat.completions.stream({ model: 'echo', messages: asked, tools });
  const final = await runner.finalChatCompletion();
  out.reason = final.choices[0].finish_reason;
  out.call = final.choices[0].message.tool_calls[0].function;
  out.dimensions = (await client.embeddings.create({ model: 'echo', input: ['a', 'b'] })).data[1].embedding.length;
  out.model = (await client.models.retrieve('meta/echo:1b')).id;
  out.models = [];
  for await (const model of client.models.list()) out.models.push(model.id);
  try { await client.chat.completions.create({ model: 'nope', messages }); }
  catch (error) { out.error = [error.status, error.code]; }
  try { await client.chat.completions.create({ model: 'echo', messages, temperature: 9 }); }
  catch (error) { out.bad = [error.status, error.param]; }
  console.log(JSON.stringify(out));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def test_node_client(tmp_path):
    node = shutil.which("node")
    homes = [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    if node is None or not any((home / "openai").is_dir() for home in homes):
        pytest.skip("needs node, and the npm package openai under NODE_PATH")
    script = tmp_path / "smoke.cjs"
    script.write_text(SCRIPT)
    with served() as server:
        done = subprocess.run([node, str(script), server.base_url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "whole": "héllo 🦙",
        "streamed": "héllo 🦙",
        "tokens": 11,
        "reason": "tool_calls",
        "call": {"name": "look", "arguments": "{}"},
        "dimensions": 32,
        "model": "meta/echo:1b",
        "models": ["echo", "meta/echo:1b"],
        "error": [404, "model_not_found"],
        "bad": [400, "temperature"],
    }
