"""What does the server itself cost, when the engine answers at once?

Serves an engine that says the same words without computing, and beside it a bare Starlette application that sends
the same bytes, each in a process of its own under uvicorn. A client of plain sockets in this process asks both for
chats: whole and streamed, kept and not, from 1 to 128 clients. First each client asks as fast as it is answered, which
gives requests a second and CPU per request (user and system, of the server's process); then all of them together ask
at a steady pace that neither server is near its end with, which gives p50, p99, and what ours adds to them.

    python bench/gateway.py                          # every mode at 1, 16, 64 and 128 clients
    python bench/gateway.py --quick                  # fewer requests
    python bench/gateway.py --json gateway.json --profile whole
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

CLIENTS = (1, 16, 64, 128)
MODES = ("whole", "whole, kept", "streamed", "streamed, kept")
TOKENS = 64
WORDS = [f"word{number:02d} " for number in range(TOKENS)]
QUESTION = "Tell me of llamas, please, and of the mountains they live in. " * 8
PACE = 100.0
"""Requests a second of the steady part."""
GOALS = {"cpu_ms_per_chat": 1.0, "cpu_us_per_token": 30.0, "added_p50_ms": 1.5}


@dataclass(kw_only=True)
class Point:
    """One server in one mode at one number of clients."""

    server: str
    mode: str
    clients: int
    requests: int
    errors: int
    requests_per_s: float
    cpu_ms: float
    """Of the server's process, per request."""
    p50_ms: float
    """At a steady pace."""
    p99_ms: float


def main() -> None:
    """Measure, or be one of the servers that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the requests")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--serve", choices=("llamakit", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--profile", metavar="FILE", help="with --serve: write a profile of the server there")
    args = parser.parse_args()
    if args.serve:
        _profiled(args.profile, serve_ours if args.serve == "llamakit" else serve_bare)
        return
    points = asyncio.run(measure(args.modes, args.clients, 300 if args.quick else 1500))
    result = summary(points)
    show(points, result)
    if args.json:
        args.json.write_text(json.dumps({**result, "points": [asdict(point) for point in points]}, indent=2) + "\n")


async def measure(modes: list[str], clients: list[int], number: int) -> list[Point]:
    """Every mode at every number of clients, the two servers in turn."""
    points = []
    with process("llamakit") as ours, process("bare") as bare:
        for mode in modes:
            for at_once in clients:
                for name, (port, running) in (("llamakit", ours), ("bare", bare)):
                    await load(port, mode, at_once, max(at_once, number // 5))  # warm up
                    points.append(await point(name, port, running, mode, at_once, max(2 * at_once, number)))
    return points


async def point(name: str, port: int, running: psutil.Process, mode: str, clients: int, number: int) -> Point:
    """One measurement."""
    before, started = _cpu_s(running), time.perf_counter()
    _, errors = await load(port, mode, clients, number)
    wall, used = time.perf_counter() - started, _cpu_s(running) - before
    times, more_errors = await load(port, mode, clients, number // 2, pace=PACE)
    times.sort()
    return Point(
        server=name,
        mode=mode,
        clients=clients,
        requests=number,
        errors=errors + more_errors,
        requests_per_s=round(number / wall, 1),
        cpu_ms=round(used / number * 1000, 3),
        p50_ms=round(statistics.median(times) * 1000, 3),
        p99_ms=round(times[min(len(times) - 1, int(len(times) * 0.99))] * 1000, 3),
    )


async def load(port: int, mode: str, clients: int, number: int, *, pace: float = 0.0) -> tuple[list[float], int]:
    """Seconds of each of `number` requests from `clients` connections that stay open, and how many failed.

    `pace`: requests a second of all clients together; 0 is as fast as they are answered.
    """
    is_streamed, is_kept = mode.startswith("streamed"), mode.endswith("kept")
    body = {"model": "instant", "messages": [{"role": "user", "content": QUESTION}], "stream": is_streamed}
    text = json.dumps(body | ({"store": True} if is_kept else {})).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(text)}\r\n\r\n".encode() + text
    times: list[float] = []
    left, errors = number, 0

    async def client(position: int) -> None:
        nonlocal left, errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = time.perf_counter() + (position / pace if pace else 0.0)
        try:
            while left > 0:
                left -= 1
                if pace:
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    due += clients / pace
                started = time.perf_counter()
                writer.write(request)
                errors += not await _answered(reader)
                times.append(time.perf_counter() - started)
        finally:
            writer.close()

    await asyncio.gather(*(client(position) for position in range(clients)))
    return times, errors


async def _answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer to its end; whether it was a good one."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    is_good = head.startswith(b"http/1.1 200")
    at = head.find(b"content-length: ")
    if at >= 0:
        await reader.readexactly(int(head[at + 16 : head.index(b"\r\n", at)]))
        return is_good
    has_ended = False
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        data = await reader.readexactly(size + 2)
        has_ended = has_ended or b"data: [DONE]" in data
        if not size:
            return is_good and has_ended


def summary(points: list[Point]) -> dict[str, Any]:
    """What the server adds, beside the goals, with what is needed to repeat it."""
    by_key = {(p.server, p.mode, p.clients): p for p in points}
    pairs = [(p, by_key["bare", p.mode, p.clients]) for p in points if p.server == "llamakit"]
    added = {f"{ours.mode} x {ours.clients}": round(ours.p50_ms - bare.p50_ms, 3) for ours, bare in pairs}
    added_p99 = {f"{ours.mode} x {ours.clients}": round(ours.p99_ms - bare.p99_ms, 3) for ours, bare in pairs}
    chats = [p.cpu_ms for p in points if p.server == "llamakit" and p.mode.startswith("whole")]
    per_token = [
        (p.cpu_ms - by_key["llamakit", p.mode.replace("streamed", "whole"), p.clients].cpu_ms) / TOKENS * 1000
        for p in points
        if p.server == "llamakit" and p.mode.startswith("streamed")
        if ("llamakit", p.mode.replace("streamed", "whole"), p.clients) in by_key
    ]
    return {
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "command": " ".join(sys.argv),
        "tokens": TOKENS,
        "goals": GOALS,
        "cpu_ms_per_chat": {"min": min(chats), "max": max(chats)} if chats else None,
        "cpu_us_per_token": {"min": round(min(per_token), 1), "max": round(max(per_token), 1)} if per_token else None,
        "added_p50_ms": added,
        "added_p99_ms": added_p99,
        "errors": sum(p.errors for p in points),
    }


def show(points: list[Point], result: dict[str, Any]) -> None:
    """The table, and what is added."""
    print(
        f"{'mode':16} {'server':9} {'clients':>7} {'req/s':>9} {'cpu ms':>8} {'p50 ms':>8} {'p99 ms':>8} {'errors':>6}"
    )
    for p in points:
        figures = f"{p.requests_per_s:8.1f} {p.cpu_ms:8.3f} {p.p50_ms:8.2f} {p.p99_ms:8.2f} {p.errors:6}"
        print(f"{p.mode:16} {p.server:9} {p.clients:7} {figures}")
    for name, goal in GOALS.items():
        print(f"{name}, goal {goal:g}: {json.dumps(result[name])}")


@contextmanager
def process(name: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server in a process of its own: its port, and the process."""
    with tempfile.TemporaryDirectory(prefix="gateway-") as home:
        arguments = [sys.executable, __file__, "--serve", name]
        environment = {**os.environ, "LLAMA_HOME": home}
        running = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert running.stdout is not None, "it was asked for"
            yield int(running.stdout.readline()), psutil.Process(running.pid)
        finally:
            running.terminate()
            running.wait(15)


def _cpu_s(running: psutil.Process) -> float:
    times = running.cpu_times()
    return times.user + times.system


def serve_ours() -> None:
    """Our server around an engine that answers at once; rows go to a file under the data home."""
    from llamakit.api.inference import AnswerStream, ChatRequest
    from llamakit.core.messages import Done, Finish, TextDelta, Usage
    from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
    from llamakit.server.serve import serve
    from llamakit.stack.build import Stack
    from llamakit.stack.distribution import Distribution
    from llamakit.stack.run_config import ServeConfig
    from llamakit.stack.schema import STEPS
    from llamakit.stack.storage import LOCAL, Storage

    events = (
        *(TextDelta(text=word) for word in WORDS),
        Finish(reason="stop"),
        Done(usage=Usage(prompt_tokens=128, completion_tokens=TOKENS)),
    )

    class Instant(EchoInference):
        """Says the same to everybody."""

        def chat(self, request: ChatRequest) -> AnswerStream:
            return said()

    async def said() -> AsyncGenerator[Any, None]:
        for event in events:
            yield event

    inference = Instant(EchoConfig(models=("instant",)))
    stack = Stack(inference=inference, default_models=("instant",), storage=Storage(LOCAL, STEPS))
    serve(
        Distribution(server=ServeConfig(port=0)),
        stack=stack,
        on_ready=lambda url: print(url.rpartition(":")[2], flush=True),
    )


def serve_bare() -> None:
    """A Starlette application that reads the same request and sends the same bytes."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    head = {"id": "chatcmpl-0", "created": 1, "model": "instant"}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()

    async def chat(request: Request) -> Response:
        asked = await request.json()
        if asked["stream"]:
            return StreamingResponse(pieces(), media_type="text/event-stream")
        message = {"role": "assistant", "content": "".join(WORDS)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return JSONResponse({**head, "object": "chat.completion", "choices": choices})

    async def pieces() -> AsyncGenerator[bytes, None]:
        for word in WORDS:
            yield chunk({"content": word})
        yield chunk({}, "stop")
        yield b"data: [DONE]\n\n"

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))

    async def run() -> None:
        task = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    asyncio.run(run())


def _profiled(path: str | None, serve: Any) -> None:
    if path is None:
        serve()
        return
    import cProfile

    profile = cProfile.Profile()
    try:
        profile.runcall(serve)
    finally:
        profile.dump_stats(path)


if __name__ == "__main__":
    main()
