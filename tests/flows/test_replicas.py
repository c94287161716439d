"""Several server processes on one PostgreSQL, as a rack or a cluster runs them, and one of them dies.

A client goes round the servers under mixed writes. What was acknowledged by one is there at every other, whatever the
dead one had in work is done by those that live, and limits and revocations hold over all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from tests.mixed import WRITES, unsettled
from tests.postgres import empty_database, postgres_server

from llamakit.stack.access import KeyLimits
from llamakit.stack.keys import KeyBook
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

__all__ = ["postgres_server"]
SERVERS, WRITERS = 3, 4
LOAD_S = float(os.environ.get("LLAMAKIT_REPLICAS_S", "3"))
END_S = 30.0
"""Whoever runs this may be busy otherwise; on an idle machine it takes the lease of three seconds and little more."""
LONG = "word " * 600
_SERVER = """
import sys
from llamakit.server.serve import serve
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig

distribution = single(
    "inline::echo", ("echo",), {"delay_s": 0.002}, database=sys.argv[1], server=ServeConfig(port=0, drain_s=5.0)
)
serve(distribution, on_ready=lambda address: print(address, flush=True))
"""


class Replicas:
    """Servers on one database and a client that takes them in turn; one that does not answer is left out."""

    def __init__(self, url, number):
        self._url = url
        # All at once: they find an empty database and make its tables side by side.
        self.processes = [self._started() for _ in range(number)]
        self.clients = [_client_of(process) for process in self.processes]
        self._turn, self._dead, self._old = itertools.count(), set(), []

    def _started(self):
        return subprocess.Popen([sys.executable, "-c", _SERVER, self._url], stdout=subprocess.PIPE, text=True)

    def next(self):
        while True:
            place = next(self._turn) % len(self.clients)
            if place not in self._dead:
                return place

    def request(self, method, path, **more):
        """The answer of the next server; raises `TransportError` of one that died under the request."""
        place = self.next()
        try:
            return self.clients[place].request(method, path, **more)
        except httpx2.TransportError:
            self._dead.add(place)
            raise

    def post(self, path, body=None, **more):
        response = self.request("POST", path, json=body, **more)
        assert response.status_code == 200, response.text
        return response.json()

    def get(self, path):
        response = self.request("GET", path)
        assert response.status_code == 200, (path, response.text)
        return response

    def kill(self, place):
        self._dead.add(place)
        os.kill(self.processes[place].pid, signal.SIGKILL)
        self.processes[place].wait()

    def replace(self, place):
        """A new server where one was killed."""
        self.processes[place].stdout.close()
        self._old.append(self.clients[place])  # a writer may still hold it
        self.processes[place] = self._started()
        self.clients[place] = _client_of(self.processes[place])
        self._dead.discard(place)

    def close(self):
        for process in self.processes:
            process.terminate()
        for client in (*self.clients, *self._old):
            client.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _client_of(process):
    url = process.stdout.readline().strip()
    assert url.startswith("http"), "the server did not start"
    return httpx2.Client(base_url=f"{url}/v1/", timeout=30)


@pytest.fixture
async def replicas(postgres_server):
    async with empty_database(postgres_server) as url:
        made = await asyncio.to_thread(Replicas, url, SERVERS)
        try:
            yield url, made
        finally:
            await asyncio.to_thread(made.close)


def write(servers, seed, acknowledged, stop):
    """Write until told to stop; a request that a dying server did not answer is nobody's word."""
    draw = random.Random(seed)
    for n in itertools.count():
        if stop.is_set():
            return
        try:
            acknowledged.append(draw.choice(WRITES)(servers, f"{seed}.{n} " + "words " * draw.randint(1, 30)))
        except httpx2.TransportError:
            continue


def settled(servers, objects):
    """Everything is there and at its end, wherever it is asked for; seconds until it was."""
    started, left = time.monotonic(), list(objects)
    while left := unsettled(servers, left):
        assert time.monotonic() - started < END_S, f"{left[0]} and {len(left) - 1} more hang"
        time.sleep(0.05)
    return time.monotonic() - started


def followed(servers, place, id, after=None):
    """The events of a response from a server that did not begin it."""
    path = f"responses/{id}?stream=true" + ("" if after is None else f"&starting_after={after}")
    with servers.clients[place].stream("GET", path) as response:
        assert response.status_code == 200
        return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]


def under_load(servers):
    """Mixed writes everywhere, and the death of one server in the middle of its work."""
    acknowledged, stop = [], threading.Event()
    writers = [threading.Thread(target=write, args=(servers, f"w{n}", acknowledged, stop)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    time.sleep(LOAD_S / 2)
    body = {"model": "echo", "input": LONG, "background": True}
    long = [servers.clients[0].post("responses", json=body).json()["id"] for _ in range(3)]
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(followed, servers, 1, long[0])
        time.sleep(0.3)
        servers.kill(0)
        killed = time.monotonic()
        time.sleep(LOAD_S / 2)
        stop.set()
        for writer in writers:
            writer.join()
        events = reader.result()
    took_s = settled(servers, acknowledged)
    for place, id in zip((1, 2, 1), long, strict=True):
        kept = servers.clients[place].get(f"responses/{id}").json()
        while kept["status"] in ("queued", "in_progress"):
            assert time.monotonic() - killed < END_S, kept
            time.sleep(0.05)
            kept = servers.clients[place].get(f"responses/{id}").json()
        assert kept["status"] == "completed" and kept["output"][0]["content"][0]["text"] == LONG
    # The reader at another server saw the work change hands without a gap or a repetition.
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event["delta"] for event in events if event["type"].endswith("output_text.delta")) == LONG
    again = followed(servers, 2, long[0], events[10]["sequence_number"])
    assert again == events[11:]
    kinds = dict(Counter(one.kind for one in acknowledged))
    print(f"{len(acknowledged)} objects, one of {SERVERS} servers killed, settled {took_s:.2f} s later: {kinds}")


async def test_servers_on_one_database_act_as_one_and_survive_the_death_of_one(replicas):
    url, servers = replicas
    storage = Storage(url, STEPS)
    try:
        await limits_hold_over_all(servers, storage)
        await asyncio.to_thread(cancelled_elsewhere, servers)
        await asyncio.to_thread(under_load, servers)
        database = await storage.database()
        states = await database.fetch("SELECT state, count(*) AS n, max(attempts) AS most FROM jobs GROUP BY state")
        assert {row["state"] for row in states} <= {"done", "cancelled"}
        assert max(row["most"] for row in states) >= 2, "the dead server had nothing in work"
    finally:
        await storage.aclose()


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_deaths_in_turn(replicas):
    """`LLAMAKIT_REPLICA_DEATHS` servers are killed under load and replaced, one after the other."""
    _, servers = replicas
    await asyncio.to_thread(die_in_turn, servers, int(os.environ.get("LLAMAKIT_REPLICA_DEATHS", "20")))


def die_in_turn(servers, deaths):
    acknowledged, stop, draw = [], threading.Event(), random.Random(3)
    writers = [threading.Thread(target=write, args=(servers, f"w{n}", acknowledged, stop)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(deaths):
        time.sleep(draw.uniform(0.1, 1.5))
        place = draw.randrange(SERVERS)
        servers.kill(place)
        servers.replace(place)
    stop.set()
    for writer in writers:
        writer.join()
    took_s = settled(servers, acknowledged)
    kinds = dict(Counter(one.kind for one in acknowledged))
    print(f"{deaths} deaths, {len(acknowledged)} objects, settled {took_s:.2f} s after the last: {kinds}")


async def limits_hold_over_all(servers, storage):
    """The limit of a key is counted over all servers, and its end is known to each within a second."""
    book = KeyBook(storage)
    key, kept = await book.create("limited", limits=KeyLimits(requests_per_minute=25))
    headers = {"authorization": f"Bearer {key.reveal()}"}

    def codes(number):
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(servers.request, "GET", "models", headers=headers) for _ in range(number)]
            return Counter(one.result().status_code for one in asked)

    assert await asyncio.to_thread(codes, 60) == {200: 25, 429: 35}
    await book.revoke(kept.id)
    await asyncio.sleep(1.0)
    assert await asyncio.to_thread(codes, SERVERS) == {401: SERVERS}
    await book.aclose()


def cancelled_elsewhere(servers):
    """What one server has in work another cancels, and a third says so."""
    body = {"model": "echo", "input": LONG * 4, "background": True}
    id = servers.clients[0].post("responses", json=body).json()["id"]
    assert servers.clients[1].post(f"responses/{id}/cancel").json()["status"] == "cancelled"
    time.sleep(0.7)
    assert servers.clients[2].get(f"responses/{id}").json()["status"] == "cancelled"
