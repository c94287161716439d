"""kill -9 between the answer of a batch's line and its commit, and right behind it: nothing is kept twice, or lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import httpx2
import pytest

LINES = 6
END_S = 30.0
_SERVER = """
import itertools, os, signal, sys
from llamakit.core.faults import injected
from llamakit.server.serve import serve
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig

path, point, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])
passed = itertools.count(1)

def die():
    if next(passed) == nth:
        os.kill(os.getpid(), signal.SIGKILL)

distribution = single("inline::echo", ("echo",), {}, database="sqlite:" + path, server=ServeConfig(port=0))
with injected(point, die):
    serve(distribution, on_ready=lambda address: print(address, flush=True))
"""


class Server:
    """A server that kills itself when it passes a point for the n-th time; 0 is never."""

    def __init__(self, path, point="batches.before_line", nth=0):
        arguments = [sys.executable, "-c", _SERVER, str(path), point, str(nth)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        url = self.process.stdout.readline().strip()
        assert url.startswith("http"), "the server did not start"
        self.client = httpx2.Client(base_url=f"{url}/v1/", timeout=20)

    def ask(self, method, path, **more):
        response = self.client.request(method, path, **more)
        assert response.status_code == 200, response.text
        return response.json()

    def wait(self):
        self.process.wait(20)
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.client.close()


def a_batch(server, endpoint, body):
    rows = [{"custom_id": f"{n}", "method": "POST", "url": endpoint, "body": body(f"line {n}")} for n in range(LINES)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = server.ask("POST", "files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})["id"]
    asked = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"}
    return server.ask("POST", "batches", json=asked)["id"]


def chat(text):
    return {"model": "echo", "messages": [{"role": "user", "content": text}], "store": True}


def response(text):
    return {"model": "echo", "input": text}


@pytest.mark.parametrize(
    ("endpoint", "body", "point", "nth"),
    [
        ("/v1/chat/completions", chat, "batches.before_line", 4),
        ("/v1/responses", response, "batches.before_line", 4),
        ("/v1/responses", response, "batches.after_line", 3),
        pytest.param("/v1/chat/completions", chat, "batches.after_line", 3, marks=pytest.mark.slow),
        pytest.param("/v1/chat/completions", chat, "batches.before_end", 1, marks=pytest.mark.slow),
    ],
)
def test_each_line_is_kept_once(tmp_path, endpoint, body, point, nth):
    path = tmp_path / "server.db"
    dying = Server(path, point, nth)
    batch = a_batch(dying, endpoint, body)
    dying.wait()

    server = Server(path)
    try:
        started = time.monotonic()
        while (shown := server.ask("GET", f"batches/{batch}"))["status"] not in ("completed", "failed"):
            assert time.monotonic() - started < END_S, shown
            time.sleep(0.05)
        assert shown["status"] == "completed" and shown["request_counts"]["completed"] == LINES
        output = server.client.get(f"files/{shown['output_file_id']}/content").text
        lines = [json.loads(line) for line in output.splitlines()]
        assert [line["custom_id"] for line in lines] == [f"{n}" for n in range(LINES)]
        kept = [one["id"] for one in server.ask("GET", endpoint.removeprefix("/v1/") + "?limit=100")["data"]]
        assert sorted(kept) == sorted(line["response"]["body"]["id"] for line in lines)
    finally:
        server.close()
