"""Containers of the code interpreter with OpenAI's own client: over a kill, on two servers at once, and expired."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import pytest
from tests.flows.test_ingestion_kill import Server

openai = pytest.importorskip("openai")

# The model calls the interpreter with what it is told, and then says what that printed.
_SERVER = """
import json, sys
from llamakit.core.messages import Done, Finish, TextDelta, ToolCallDelta, Usage
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.providers.specs import Api
from llamakit.server.serve import serve
from llamakit.stack.build import Stack
from llamakit.stack.distribution import Distribution, ProviderEntry, StorageConfig
from llamakit.stack.providers import build_providers
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

class Obedient(EchoInference):
    async def chat(self, request):
        last = request.messages[-1]
        text = "".join(part.text for part in last.content if hasattr(part, "text"))
        if last.role == "user":
            yield ToolCallDelta(index=0, id="c0", name="code_interpreter")
            yield ToolCallDelta(index=0, arguments=json.dumps({"code": text}))
        else:
            yield TextDelta(text=text)
        yield Finish(reason="stop")
        yield Done(usage=Usage(prompt_tokens=1, completion_tokens=2))

target = "sqlite:" + sys.argv[1]
python = ProviderEntry(provider_id="python", provider_type="inline::code-interpreter", config={"wall_s": 20})
made = Distribution(
    providers={Api.tools: (python,)}, storage=StorageConfig(database=target), server=ServeConfig(port=0)
)
stack = Stack(
    inference=Obedient(EchoConfig(models=("echo",))),
    default_models=("echo",),
    distribution=made,
    providers=build_providers(made, {})[0],
    storage=Storage(target, STEPS),
)
serve(made, stack=stack, on_ready=lambda address: print(address, flush=True))
"""


class Interpreting(Server):
    """A server with an interpreter, in a process of its own."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http"):
            told = self.process.communicate()[1]
            if "SandboxUnavailable" in told:
                pytest.skip(f"no namespaces here: {told.strip().splitlines()[-1]}")
            raise AssertionError(told)
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def kill(self):
        self.client.close()
        super().kill()
        self.process.stderr.close()

    def run(self, code, container):
        tools = [{"type": "code_interpreter", "container": container}]
        return self.client.responses.create(model="echo", input=code, tools=tools)


@pytest.fixture
def start(tmp_path):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    started = []

    def one():
        started.append(Interpreting(tmp_path / "server.db"))
        return started[-1]

    yield one
    for server in started:
        if server.process.poll() is None:
            server.kill()


def test_files_outlive_a_kill(start):
    server = start()
    answer = server.run("open('kept.txt', 'w').write('forty-two'); print('done')", {"type": "auto"})
    call = next(item for item in answer.output if item.type == "code_interpreter_call")
    (file,) = server.client.containers.files.list(call.container_id).data
    assert (file.path, file.source, file.bytes) == ("/work/kept.txt", "assistant", 9)
    server.kill()
    again = start()
    assert "forty-two" in again.run("print(open('kept.txt').read())", call.container_id).output_text
    assert again.client.containers.files.content.retrieve(file.id, container_id=call.container_id).read() == (
        b"forty-two"
    )
    assert again.client.containers.retrieve(call.container_id).status == "running"


@pytest.mark.slow
def test_a_kill_in_the_middle_of_code_leaves_the_container_usable(start):
    server = start()
    container = server.client.containers.create(name="work").id
    server.client.containers.files.create(container, file=("a.txt", b"before"))
    slow = "import time; open('a.txt', 'w').write('half'); print('on', flush=True); time.sleep(15)"

    def ask():
        with pytest.raises(openai.OpenAIError):
            server.run(slow, container)

    asking = threading.Thread(target=ask)
    asking.start()
    other = start()
    asking.join(1.5)
    server.kill()
    asking.join()
    # Its lease ends by itself; what the killed code wrote was never kept.
    assert "before" in other.run("print(open('a.txt').read())", container).output_text


@pytest.mark.slow
def test_two_servers_share_containers(start):
    servers = [start(), start()]
    container = servers[0].client.containers.create(name="shared").id
    code = "import os; n = int(open('n').read()) if os.path.exists('n') else 0; open('n', 'w').write(str(n + 1))"
    threads = [
        threading.Thread(target=lambda server=server: [server.run(code, container) for _ in range(4)])
        for server in servers
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers:
        assert "16" in server.run("print(open('n').read())", container).output_text
        assert [one.id for one in server.client.containers.list().data] == [container]
    servers[0].client.containers.delete(container)
    with pytest.raises(openai.NotFoundError):
        servers[1].client.containers.retrieve(container)
    with pytest.raises(openai.NotFoundError):
        servers[1].run("print(1)", container)
