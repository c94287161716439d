"""kill -9 at random instants under mixed writes: what was acknowledged is there, and no work hangs after the start.

Chats, files, conversations, background responses, batches and vector stores are written side by side; everything
that was answered with success is written down here, with what it must say. The next server must show all of it, and
bring every piece of background work to its end within five seconds, less those that the machine spent on others.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from tests.mixed import WRITES, Acknowledged, unsettled

POINTS = int(os.environ.get("LLAMAKIT_KILL_POINTS", "200"))
END_S = 5.0
WRITERS = 4
_SERVER = """
import sys
from llamakit.server.serve import serve
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig

distribution = single(
    "inline::echo", ("echo",), {"delay_s": 0.0005}, database="sqlite:" + sys.argv[1], server=ServeConfig(port=0)
)
serve(distribution, on_ready=lambda address: print(address, flush=True))
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", _SERVER, str(path)], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), "the server did not start"
        self.client = httpx2.Client(base_url=f"{self.url}/v1/", timeout=20)
        self._started, self._starved = time.monotonic(), self._starved_s()

    def age_s(self):
        """Seconds since it was ready, without those in which it or its client was kept waiting for a processor."""
        return time.monotonic() - self._started - (self._starved_s() - self._starved)

    def _starved_s(self):
        waits = [Path(f"/proc/{pid}/schedstat") for pid in (self.process.pid, os.getpid())]
        return sum(int(wait.read_text().split()[1]) for wait in waits if wait.exists()) / 1e9

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def post(self, path, body=None, **more):
        response = self.client.post(path, json=body, **more)
        assert response.status_code == 200, response.text
        return response.json()

    def get(self, path):
        response = self.client.get(path)
        assert response.status_code == 200, (path, response.text)
        return response


def write(server, draw, acknowledged, name):
    """Write until the server dies under it."""
    for n in range(100_000):
        make = draw.choice(WRITES)
        try:
            acknowledged.append(make(server, f"{name}.{n} " + "words " * draw.randint(1, 30)))
        except httpx2.TransportError:
            return


def check(path, server, objects, end_s):
    """Everything is there and says what it said; what was under way has ended in time."""
    left = list(objects)
    while left:
        left = unsettled(server, left)
        assert not left or server.age_s() < end_s, f"{left[0]} and {len(left) - 1} more hang"
        time.sleep(0.02)
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA quick_check").fetchone() == ("ok",)
    raw.close()


def survive(path, points, seed, end_s=END_S):
    draw = random.Random(seed)
    acknowledged: list[Acknowledged] = []
    fresh: list[Acknowledged] = []
    slowest_s = 0.0
    for point in range(points):
        server = Server(path)
        older = draw.sample(acknowledged, min(20, len(acknowledged)))
        check(path, server, [*fresh, *older], end_s)
        slowest_s = max(slowest_s, server.age_s())
        acknowledged += fresh
        fresh = []
        writers = [
            threading.Thread(target=write, args=(server, random.Random(f"{seed}.{point}.{n}"), fresh, f"{point}.{n}"))
            for n in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        time.sleep(draw.uniform(0.05, 0.6))
        server.kill()
        for writer in writers:
            writer.join()
        server.client.close()
    server = Server(path)
    check(path, server, [*acknowledged, *fresh], end_s + 60)
    server.kill()
    server.client.close()
    assert len(acknowledged) + len(fresh) >= points, "the writers got nowhere"
    kinds = Counter(one.kind for one in (*acknowledged, *fresh))
    print(f"{points} kills; all work had ended {slowest_s:.2f} s after a start at the latest; {dict(kinds)}")


def test_mixed_writes_survive_kills(tmp_path):
    survive(tmp_path / "server.db", 2, seed=1, end_s=6 * END_S)  # whoever runs this may be busy otherwise


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mixed_writes_survive_many_kills(tmp_path):
    """`LLAMAKIT_KILL_POINTS` points, 200 unless it says otherwise."""
    survive(tmp_path / "server.db", POINTS, seed=2)
