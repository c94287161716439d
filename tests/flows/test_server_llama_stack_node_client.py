"""The official Node client of Llama Stack against the real server; needs `node`, and its package where NODE_PATH says.

`npm install llama-stack-client` brings the newer generation, `npm install llama-stack-client@0.2.23` the classic one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.serving import served

from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single

pytestmark = pytest.mark.peer

BEGIN = """
const { default: LlamaStackClient } = require('llama-stack-client');
const client = new LlamaStackClient({ baseURL: process.argv[2], maxRetries: 0 });
const messages = [{ role: 'user', content: 'héllo 🦙' }];
const text = async (stream, of) => {
  let made = '';
  for await (const chunk of stream) made += of(chunk) ?? '';
  return made;
};
const chunk = (one) => one.choices[0]?.delta?.content;
(async () => {
  const out = {};
  out.health = (await client.inspect.health()).status;
  out.models = (await client.models.list()).map((model) => model.identifier ?? model.id);
  out.provider = (await client.providers.retrieve('echo')).provider_type;
  out.chat = (await client.chat.completions.create({ model: 'echo', messages })).choices[0].message.content;
  out.streamed = await text(await client.chat.completions.create({ model: 'echo', messages, stream: true }), chunk);
  const response = await client.responses.create({ model: 'echo', input: 'hi' });
  out.response = response.output[0].content[0].text;
  out.kinds = [];
  for await (const event of await client.responses.create({ model: 'echo', input: 'hi', stream: true }))
    out.kinds.push(event.type);
  out.kinds = [out.kinds[0], out.kinds.at(-1)];
  const embedding = await client.embeddings.create({ model: 'echo', input: 'a' });
  out.dimensions = embedding.data[0].embedding.length;
"""
CLASSIC = """
  const ask = { model_id: 'echo', messages };
  out.native = (await client.inference.chatCompletion(ask)).completion_message.content;
  const events = await client.inference.chatCompletion({ ...ask, stream: true });
  out.events = await text(events, (one) => one.event.delta.text);
  await client.vectorDBs.register({ vector_db_id: 'notes', embedding_model: 'echo', embedding_dimension: 32 });
  const chunks = [{ content: 'llamas spit', metadata: { document_id: 'd' } }];
  await client.vectorIo.insert({ vector_db_id: 'notes', chunks });
  const found = await client.vectorIo.query({ vector_db_id: 'notes', query: 'llamas spit' });
  out.found = found.chunks[0].content;
  out.groups = (await client.toolgroups.list()).map((group) => group.identifier);
"""
NEWER = """
  out.admin = (await client.alpha.admin.health()).status;
  const prompt = await client.prompts.create({ prompt: 'hi {{ name }}', variables: ['name'] });
  out.prompts = (await client.prompts.list()).map((one) => one.prompt_id === prompt.prompt_id);
  const conversation = await client.conversations.create({});
  await client.conversations.delete(conversation.id);
  const ranked = await client.alpha.inference.rerank({ model: 'echo', query: 'x', items: ['a', 'b'] });
  out.ranked = ranked.map((row) => row.index).sort();
"""
END = """
  try { await client.models.retrieve('nope'); } catch (error) { out.error = error.status; }
  console.log(JSON.stringify(out));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def test_node_client(tmp_path):
    node = shutil.which("node")
    homes = [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    packages = [home / "llama-stack-client" for home in homes if (home / "llama-stack-client").is_dir()]
    if node is None or not packages:
        pytest.skip("needs node, and the npm package llama-stack-client under NODE_PATH")
    is_classic = json.loads((packages[0] / "package.json").read_text())["version"].startswith("0.2.")
    script = tmp_path / "smoke.cjs"
    script.write_text(BEGIN + (CLASSIC if is_classic else NEWER) + END)
    stack = build_stack(single("inline::echo", ["echo"], {"models": ["echo"]}, database=":memory:"))
    with served(stack) as server:
        done = subprocess.run([node, str(script), server.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    own = (
        {"native": "héllo 🦙", "events": "héllo 🦙", "found": "llamas spit", "groups": ["builtin::rag"]}
        if is_classic
        else {"admin": "OK", "prompts": [True], "ranked": [0, 1]}
    )
    assert json.loads(done.stdout) == own | {
        "health": "OK",
        "models": ["echo"],
        "provider": "inline::echo",
        "chat": "héllo 🦙",
        "streamed": "héllo 🦙",
        "response": "hi",
        "kinds": ["response.created", "response.completed"],
        "dimensions": 32,
        "error": 404,
    }
