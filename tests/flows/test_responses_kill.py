"""kill -9 while responses run in the background: each comes to its end within 5 s of the next start."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import httpx2
import pytest

READY_S = 20.0
END_S = 5.0
_SERVER = """
import sys
from llamakit.server.serve import serve
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig

distribution = single(
    "inline::echo",
    ("echo",),
    {"delay_s": float(sys.argv[2])},
    database="sqlite:" + sys.argv[1],
    server=ServeConfig(port=0),
)
serve(distribution, on_ready=lambda address: print(address, flush=True))
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, path, delay_s):
        arguments = [sys.executable, "-c", _SERVER, str(path), str(delay_s)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), "the server did not start"

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def post(self, path, **body):
        response = httpx2.post(f"{self.url}/v1/{path}", json=body, timeout=10)
        response.raise_for_status()
        return response.json()

    def get(self, path):
        response = httpx2.get(f"{self.url}/v1/{path}", timeout=10)
        response.raise_for_status()
        return response.json()

    def events(self, id):
        text = httpx2.get(f"{self.url}/v1/responses/{id}?stream=true", timeout=30).text
        blocks = [block for block in text.split("\n\n") if block.startswith("event: ")]
        return [json.loads(block.split("\ndata: ", 1)[1]) for block in blocks]


def seen_of(server, ids):
    """Events that a reader got before the kill, without waiting for the end."""
    seen = {}
    for id in ids:
        seen[id] = []
        with httpx2.stream("GET", f"{server.url}/v1/responses/{id}?stream=true", timeout=10) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    seen[id].append(json.loads(line.removeprefix("data: ")))
                if len(seen[id]) >= 3:
                    break
    return seen


def one_cycle(path, seed):
    draw = random.Random(seed)
    server = Server(path, 0.02)
    conversation = server.post("conversations")["id"]
    texts = {}
    for n in range(4):
        text = f"response {n} of cycle {seed}: " + "words " * draw.randint(1, 20)
        fields = {"conversation": conversation} if n == 0 else {}
        made = server.post("responses", model="echo", input=text, background=True, **fields)
        texts[made["id"]] = text
    whole = server.post("responses", model="echo", input="at once")
    seen = seen_of(server, list(texts)[:2])
    time.sleep(draw.uniform(0, 0.6))
    server.kill()

    again = Server(path, 0.0)
    started = time.monotonic()
    left = set(texts)
    while left and time.monotonic() - started < END_S:
        left = {id for id in left if again.get(f"responses/{id}")["status"] in ("queued", "in_progress")}
        time.sleep(0.05)
    assert not left, f"{len(left)} responses run still {END_S} s after the start"
    for id, text in texts.items():
        kept = again.get(f"responses/{id}")
        assert kept["status"] == "completed", kept["error"]
        assert kept["output"][0]["content"][0]["text"] == text
        events = again.events(id)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == text and events[-1]["response"] == kept
        assert events[: len(seen.get(id, []))] == seen.get(id, [])
    assert again.get(f"responses/{whole['id']}") == whole
    items = again.get(f"conversations/{conversation}/items?order=asc")["data"]
    assert [item["role"] for item in items] == ["user", "assistant"]
    again.kill()


def test_kill_and_start_again(tmp_path):
    for seed in range(2):
        one_cycle(tmp_path / "server.db", seed)


@pytest.mark.slow
def test_kill_and_start_again_many_times(tmp_path):
    for seed in range(100, 140):
        one_cycle(tmp_path / "server.db", seed)
