"""The real server and its clients' worst manners: leaving, not reading, dripping; and its own end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from tests.serving import chat_body, echo_stack, events_of, served

from llamakit.api.limits import Limits
from llamakit.core.errors import ConfigError
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server import certificates
from llamakit.server.serve import serve
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig

ENDLESS = {"ignore_eos": True, "max_tokens": 30_000}


def until(condition, seconds: float = 3.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def request_bytes(body: dict, path: str = "/v1/chat/completions") -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    return head.encode() + b"\r\n\r\n" + content


@contextlib.contextmanager
def connected(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        yield wire


def slow_echo() -> EchoInference:
    return EchoInference(EchoConfig(delay_s=0.002))


@pytest.mark.parametrize("manner", ["close", "reset"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat_body("hello", stream=True, **ENDLESS)),
        ("/v1/chat/completions", chat_body("hello", **ENDLESS)),
        ("/v1/chat/completions", chat_body("hello", stream=True, n=4, **ENDLESS)),
        ("/v1/completions", {"model": "echo", "prompt": ["a", "b", "c"], "stream": True, **ENDLESS}),
        ("/v1/completions", {"model": "echo", "prompt": ["a", "b", "c"], **ENDLESS}),
    ],
    ids=["stream", "whole", "choices", "prompts stream", "prompts whole"],
)
def test_a_client_that_leaves_stops_the_work(path, body, manner):
    provider = slow_echo()
    with served(echo_stack(provider)) as server:
        with connected(server.port) as wire:
            wire.sendall(request_bytes(body, path))
            until(lambda: provider.running)
            time.sleep(0.02)
            if manner == "reset":
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        until(lambda: not provider.running)
        assert provider.cancelled and not provider.finished
        assert httpx2.get(f"{server.url}/health").status_code == 200


def test_others_go_on_unharmed_when_clients_leave():
    provider = slow_echo()
    text = "steady words " * 8
    with served(echo_stack(provider)) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        leavers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        with client.stream("POST", "/v1/chat/completions", json=chat_body(text, stream=True)) as response:
            for wire in leavers:
                wire.sendall(request_bytes(chat_body("bye", stream=True, **ENDLESS)))
            until(lambda: len(provider.running) == 11)
            for wire in leavers:
                wire.close()
            body = response.read().decode()
        chunks = [event for event in events_of(body) if event != "[DONE]"]
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == text
        assert body.endswith("data: [DONE]\n\n")
        until(lambda: not provider.running)
        assert len(provider.cancelled) == 10 and len(provider.finished) == 1


def test_a_reader_that_stops_reading_is_dropped_and_fills_no_memory():
    provider = EchoInference()
    limits = Limits(stalled_write_s=0.3)
    with served(echo_stack(provider), limits=limits) as server, connected(server.port) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.sendall(request_bytes(chat_body("hello " * 100, stream=True, **ENDLESS)))
        until(lambda: provider.running)
        until(lambda: provider.cancelled, 10)
        assert not provider.running


@pytest.mark.parametrize("drip", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "], ids=["nothing", "half a head"])
def test_headers_that_do_not_come_end_the_connection(drip):
    with served(limits=Limits(header_s=0.2)) as server, connected(server.port) as wire:
        wire.sendall(drip)
        started = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while wire.recv(100):
                pass
        assert 0.1 < time.monotonic() - started < 2


def test_a_dripping_head_does_not_move_the_deadline():
    with served(limits=Limits(header_s=0.3)) as server, connected(server.port) as wire:
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 5:
                wire.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() - started < 2


def test_the_deadline_holds_for_later_requests_of_a_connection():
    with served(limits=Limits(header_s=0.3)) as server, connected(server.port) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"}"):
            received += wire.recv(4096)
        wire.sendall(b"GET /health HTT")
        started = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert wire.recv(100) == b""
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "raw",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000],
)
def test_what_is_no_http_gets_the_error_object(raw):
    with served() as server, connected(server.port) as wire:
        wire.sendall(raw)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := wire.recv(65536):
                received += piece
        assert received.startswith(b"HTTP/1.1 400") and b'"error"' in received


def test_pings_keep_a_slow_start_open():
    with (
        served(echo_stack(EchoInference(EchoConfig(delay_s=0.2))), ping_s=0.05) as server,
        httpx2.Client(timeout=20) as client,
    ):
        response = client.post(f"{server.base_url}/chat/completions", json=chat_body("ab", stream=True))
        assert ": ping\n\n" in response.text and response.text.endswith("data: [DONE]\n\n")


SERVE = """
import sys
from llamakit.server.logs import configure_logging
from llamakit.server import certificates
from llamakit.server.serve import serve
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig
configure_logging(as_json=True)
settings = {"delay_s": 0.005}
drain_s = float(sys.argv[1])
server = ServeConfig(port=0, drain_s=drain_s)
serve(single("inline::echo", ("echo",), settings, server=server), on_ready=lambda address: print(address, flush=True))
"""


@contextlib.contextmanager
def process(drain_s: float):
    """`serve` in a process of its own, with its address."""
    code = [sys.executable, "-c", SERVE, str(drain_s)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_well(number):
    with process(5.0) as (running, url), httpx2.Client(timeout=20) as client:
        text = "x" * 60
        with client.stream("POST", f"{url}/v1/chat/completions", json=chat_body(text, stream=True)) as response:
            lines = response.iter_lines()
            next(lines)
            running.send_signal(number)
            rest = "\n".join(lines)
        assert rest.rstrip().endswith("data: [DONE]")
        assert running.wait(10) == 0
        with pytest.raises(httpx2.TransportError):
            client.get(f"{url}/health")


def test_what_outlasts_the_drain_is_told_so():
    with process(0.3) as (running, url), httpx2.Client(timeout=20) as client:
        body = chat_body("x", stream=True, **ENDLESS)
        with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            running.send_signal(signal.SIGTERM)
            rest = "\n".join(lines)
        assert "the server is stopping" in rest and "[DONE]" not in rest
        assert running.wait(10) == 0
        assert "Traceback" not in running.stderr.read()


def test_a_unix_socket_serves(tmp_path):
    with served(uds=str(tmp_path / "s")):
        transport = httpx2.HTTPTransport(uds=str(tmp_path / "s"))
        with httpx2.Client(transport=transport, base_url="http://anything") as client:
            assert client.post("/v1/chat/completions", json=chat_body()).status_code == 200
    assert not (tmp_path / "s").exists()


def test_models_are_loaded_before_requests_are_taken():
    provider = EchoInference()
    loads = []

    async def load(model, keep_alive=None):
        loads.append(model)
        return await EchoInference.load(provider, model, keep_alive)

    provider.load = load
    with served(echo_stack(provider)):
        assert loads == ["echo"]
    with served(echo_stack(EchoInference()), preload=False):
        assert loads == ["echo"]


def test_tls(tmp_path):
    cert, key = certificate(tmp_path)
    with served(tls_cert=str(cert), tls_key=str(key)) as server:
        assert server.url.startswith("https://")
        with httpx2.Client(verify=ssl.create_default_context(cafile=str(cert))) as client:
            response = client.get(f"https://localhost:{server.port}/health")
            assert response.status_code == 200


def test_a_certificate_that_cannot_be_used(tmp_path):
    (tmp_path / "bad.pem").write_text("nonsense")
    for path in (tmp_path / "bad.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="cannot use the certificate"):
            server = ServeConfig(port=0, tls_cert=str(path), tls_key=str(path))
            serve(single("inline::echo", server=server))


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is not here")
    return cert, key


def test_a_renewed_certificate_is_taken_and_old_tls_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "CHECK_S", 0.05)
    cert, key = certificate(tmp_path)
    (tmp_path / "new").mkdir()
    new_cert, new_key = certificate(tmp_path / "new")
    with served(tls_cert=str(cert), tls_key=str(key)) as server:

        def seen() -> str:
            return ssl.get_server_certificate(("127.0.0.1", server.port)).strip()

        first = seen()
        old = ssl.create_default_context(cafile=str(cert))
        with httpx2.Client(verify=old) as client:
            assert client.get(f"https://localhost:{server.port}/health").status_code == 200
            cert.write_bytes(new_cert.read_bytes())  # half a pair is not taken
            time.sleep(0.3)
            assert seen() == first
            key.write_bytes(new_key.read_bytes())
            until(lambda: seen() != first)
            # The connection from before goes on.
            assert client.get(f"https://localhost:{server.port}/health").status_code == 200
        assert seen() == new_cert.read_text().strip()
        weak = ssl.create_default_context(cafile=str(cert))
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-SHA:AES256-SHA:ECDHE-RSA-AES128-SHA")
        with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", server.port)) as plain:
            weak.wrap_socket(plain, server_hostname="localhost")


def test_clients_show_a_certificate_where_one_is_wanted(tmp_path):
    cert, key = certificate(tmp_path)
    (tmp_path / "client").mkdir()
    client_cert, client_key = certificate(tmp_path / "client")
    with served(tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(client_cert)) as server:
        place = f"https://localhost:{server.port}/health"
        known, unknown = (ssl.create_default_context(cafile=str(cert)) for _ in range(2))
        known.load_cert_chain(client_cert, client_key)
        unknown.load_cert_chain(cert, key)
        with httpx2.Client(verify=known) as client:
            assert client.get(place).status_code == 200
        for context in (ssl.create_default_context(cafile=str(cert)), unknown):
            with httpx2.Client(verify=context) as client, pytest.raises(httpx2.TransportError):
                client.get(place)
