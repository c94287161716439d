"""Servers under eight clients at once: each client sends one prompt and reads its answer as it streams."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from peers.engine import Files, Times, prompt, served

CLIENTS, PROMPT_TOKENS, NEW_TOKENS = 8, 256, 64
START_S, ANSWER_S = 300.0, 600.0


def our_command(files: Files, port: int) -> list[str]:
    """`llama serve` as anybody would start it."""
    quantize = {"int4": "int4", "int8": "int8", "bf16": "none"}[files.precision]
    command = [sys.executable, "-m", "llamakit", "serve", str(files.hf), "--port", str(port), "--no-speculation"]
    return [*command, "--quantize", quantize, "--threads", str(files.threads), "--context", "2048"]


def llama_server_command(files: Files, port: int) -> list[str]:
    """The native server where one is on the path (or named by `LLAMA_SERVER`), else the bindings' own."""
    binary = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if binary is None:
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(files.gguf), "--port", str(port)]
        return [*command, "--n_ctx", "4096", "--n_threads", str(files.threads)]
    command = [binary, "-m", str(files.gguf), "--port", str(port), "-t", str(files.threads), "--parallel", str(CLIENTS)]
    return [*command, "-c", str(CLIENTS * 512), "--no-webui"]


def server_kind() -> str:
    """Which server of llama.cpp is measured."""
    return "llama-server" if os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") else "llama_cpp.server"


def measure_server(command: list[str], port: int, path_model: str) -> dict[str, float]:
    """Start the server, warm it with one answer, then let the clients at it."""
    with _running(command, port):
        _ask(port, path_model, prompt(PROMPT_TOKENS, 7), 4, time.perf_counter(), [])
        times: Times = [[] for _ in range(CLIENTS)]
        failures: list[Exception] = []
        start = time.perf_counter()

        def client(number: int) -> None:
            try:
                _ask(port, path_model, prompt(PROMPT_TOKENS, 1000 + number), NEW_TOKENS, start, times[number])
            except Exception as error:  # noqa: BLE001 - raised below, in the thread that can act on it
                failures.append(error)

        crew = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for one in crew:
            one.start()
        for one in crew:
            one.join()
        if failures:
            raise failures[0]
        return served(times)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-server-{port}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        end = time.monotonic() + START_S
        while not _is_ready(port):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[:3]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.unlink(missing_ok=True)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _ask(port: int, model: str, ids: list[int], count: int, start: float, times: list[float]) -> None:
    """One streamed completion; appends the second of every token, as the chunks count them."""
    body = {"model": model, "prompt": ids, "max_tokens": count, "temperature": 0, "stream": True}
    # Random weights may end an answer at once; each server has its own word for going on.
    body |= {"ignore_eos": True, "min_tokens": count, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"the server answered {answer.status}: {answer.read()[:500]!r}")
    told = 0
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        chunk = json.loads(line[6:])
        if chunk.get("choices"):
            times.append(time.perf_counter() - start)
        if chunk.get("usage"):
            told = chunk["usage"]["completion_tokens"]
    connection.close()
    if not times:
        times.append(time.perf_counter() - start)
    # Chunks may carry no text or several tokens; what counts is the server's own count, at the times seen.
    wanted = told or count
    while len(times) < wanted:
        times.append(times[-1])
    del times[wanted:]
