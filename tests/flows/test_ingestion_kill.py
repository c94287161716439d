"""kill -9 while files are uploaded and ingested: nothing acknowledged is lost, and every document comes to an end."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest

END_S = 20.0
_SERVER = """
import sys
from dataclasses import replace
from llamakit.providers.specs import Api
from llamakit.server.serve import serve
from llamakit.stack.distribution import ProviderEntry, single
from llamakit.stack.run_config import ServeConfig

distribution = single("inline::echo", ("echo",), {}, database="sqlite:" + sys.argv[1], server=ServeConfig(port=0))
if sys.argv[2:]:
    vectors = ProviderEntry(provider_id="v", provider_type="remote::qdrant", config={"url": sys.argv[2]})
    distribution = replace(distribution, providers={**distribution.providers, Api.vector_io: (vectors,)})
serve(distribution, on_ready=lambda address: print(address, flush=True))
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, path, *qdrant):
        arguments = [sys.executable, "-c", _SERVER, str(path), *qdrant]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), "the server did not start"

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def call(self, method, path, **request):
        response = httpx2.request(method, f"{self.url}/v1/{path}", timeout=10, **request)
        response.raise_for_status()
        return response


def write(server, store, acknowledged, n):
    """One document after the other, each noted once the server has acknowledged it, until the server is gone."""
    while True:
        name, text = f"{n}.md", f"# Document {n}\n\nIt speaks of subject{n}.\n"
        kind = "broken.pdf" if n % 5 == 4 else name
        data = b"%PDF-1.4 broken" if n % 5 == 4 else text.encode()
        try:
            file = server.call("POST", "files", files={"file": (kind, data)}, data={"purpose": "assistants"}).json()
            acknowledged[file["id"]] = (data, False)
            server.call("POST", f"vector_stores/{store}/files", json={"file_id": file["id"]})
            acknowledged[file["id"]] = (data, True)
        except httpx2.HTTPError:
            return
        n += 2


class Qdrant:
    """Qdrant's engine in a process of its own, on a port that stays."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = [sys.executable, "-m", "tests.qdrant", str(folder), str(self.port)]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.arguments)
        for _ in range(200):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError("the stand-in for Qdrant did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()


def one_cycle(path, seed, *qdrant):
    draw = random.Random(seed)
    server = Server(path, *(one.url for one in qdrant))
    store = server.call("POST", "vector_stores", json={"name": "kept"}).json()["id"]
    acknowledged: dict[str, tuple[bytes, bool]] = {}
    writers = [threading.Thread(target=write, args=(server, store, acknowledged, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    time.sleep(draw.uniform(0.2, 1.5))
    server.kill()
    for writer in writers:
        writer.join()
    for one in qdrant:
        one.kill()
        one.start()

    again = Server(path, *(one.url for one in qdrant))
    started = time.monotonic()
    while (counts := again.call("GET", f"vector_stores/{store}").json()["file_counts"])["in_progress"]:
        assert time.monotonic() - started < END_S, counts
        time.sleep(0.1)
    attached = {id for id, (_, is_attached) in acknowledged.items() if is_attached}
    assert counts["total"] == counts["completed"] + counts["failed"] >= len(attached) > 0
    for id, (data, _) in acknowledged.items():
        assert again.call("GET", f"files/{id}/content").content == data
    for id in attached:
        file = again.call("GET", f"vector_stores/{store}/files/{id}").json()
        is_broken = acknowledged[id][0].startswith(b"%PDF")
        assert file["status"] == ("failed" if is_broken else "completed"), file
        if not is_broken:
            word = acknowledged[id][0].decode().rpartition(" ")[2].strip(".\n")
            body = {"query": word, "search_mode": "keyword", "max_num_results": 50}
            found = again.call("POST", f"vector_stores/{store}/search", json=body).json()["data"]
            assert [result["file_id"] for result in found].count(id) == 1, (word, found)
    again.kill()


def test_kill_and_start_again(tmp_path):
    one_cycle(tmp_path / "server.db", 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 13))
def test_kill_at_many_instants(tmp_path, seed):
    one_cycle(tmp_path / "server.db", seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_kill_both_this_server_and_qdrant(tmp_path, seed):
    pytest.importorskip("qdrant_edge")
    pytest.importorskip("qdrant_client")
    qdrant = Qdrant(tmp_path / "qdrant")
    try:
        one_cycle(tmp_path / "server.db", seed, qdrant)
    finally:
        qdrant.kill()
