"""Canaries: no key, token, password or word of a prompt is found in logs, answers of errors, figures, spans or rows."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.serving import MODELS, chat_body, in_process

from llamakit.core.config import Secret
from llamakit.core.errors import LlamakitError
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import build_app
from llamakit.server.logs import JsonFormatter, PlainFormatter
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import Distribution, TelemetryConfig, single
from llamakit.stack.keys import new_key
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

PROMPT = "canary-of-the-prompt"
STATIC = Secret("canary-static-key-0001")
GUESS = "canary-wrong-key-0002"
QUERY = "canary-in-the-query-0003"
COOKIE = "canary-cookie-0004"
PASSWORD = "canary-db-password-0005"
PROVIDER = "canary-provider-key-0007"
COLLECTOR = "canary-collector-0006"


@contextmanager
def everything_logged():
    """Every line at every level of every logger, in both forms."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record) -> None:
            if record.name.startswith(("httpx2", "httpcore2")):
                return  # the test's own client, and what `configure_logging` never opens
            lines.extend((PlainFormatter().format(record), JsonFormatter().format(record), str(record.__dict__)))

    root, handler = logging.getLogger(), Keep()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for name in ("llamakit", "uvicorn"):
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        for name in ("llamakit", "uvicorn"):
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(logging.NOTSET)


async def test_no_secret_is_found_anywhere(tmp_path):
    file = tmp_path / "server.db"
    stack = Stack(
        inference=EchoInference(EchoConfig(models=MODELS)),
        default_models=("echo",),
        storage=Storage(f"sqlite:{file}", STEPS),
        distribution=Distribution(telemetry=TelemetryConfig(keep_spans=1000)),
    )
    told: list[str] = []
    with everything_logged() as lines:
        async with in_process(build_app(stack, ServeConfig(api_keys=(STATIC,)))) as client:
            key, made = await stack.keys.create("canary")
            unknown = new_key()
            secrets = [STATIC.reveal(), key.reveal(), unknown.reveal(), GUESS, QUERY, COOKIE]
            for text in (*secrets[:4], "a.b." + GUESS):
                for headers in ({"authorization": f"Bearer {text}"}, {"x-api-key": text}):
                    headers |= {"cookie": COOKIE, "traceparent": GUESS}
                    for method, path, body in (
                        ("GET", f"/v1/models?api_key={QUERY}", None),
                        ("POST", "/v1/chat/completions", chat_body(PROMPT)),
                        ("POST", "/v1/chat/completions", chat_body(PROMPT, stream=True)),
                        ("POST", "/v1/chat/completions", chat_body(PROMPT, temperature=99)),
                        ("POST", "/v1/chat/completions", chat_body(PROMPT, model="nobody")),
                        ("POST", "/v1/messages", {"model": "echo", "max_tokens": 3, "messages": []}),
                        ("GET", f"/v1/responses/{QUERY}", None),
                        ("DELETE", "/metrics", None),
                        ("GET", f"/nowhere/{QUERY}", None),
                    ):
                        answer = await client.request(method, path, json=body, headers=headers)
                        if answer.status_code >= 400 and QUERY not in path:
                            told.append(answer.text + str(answer.headers))
            headers = {"authorization": f"Bearer {key.reveal()}"}
            root = {"authorization": f"Bearer {STATIC.reveal()}"}
            await client.post("/v1/chat/completions", content=b'{"a": "' + GUESS.encode(), headers=headers)
            await stack.keys.revoke(made.id)
            await client.get("/v1/models", headers=headers)
            told.append((await client.get("/metrics", headers=root)).text)
            told.append((await client.get("/openapi.json", headers=root)).text)
            told.append(json.dumps(await stack.traces.spans("local")))
            told.append(repr(stack) + repr(ServeConfig(api_keys=(STATIC,))))
        await stack.aclose()
    with sqlite3.connect(file) as database:
        rows = "\n".join(database.iterdump())
    database.close()
    found = "\n".join((*lines, *told, rows))
    assert lines and "canary" in rows
    for secret in secrets:
        assert secret not in found, secret
    assert PROMPT not in found


@pytest.mark.parametrize("url", [f"postgresql://user:{PASSWORD}@127.0.0.1:1/db", f"postgresql://{PASSWORD}@[bad/"])
async def test_a_database_url_is_never_repeated(url):
    storage = Storage(url, STEPS)
    with everything_logged() as lines, pytest.raises(LlamakitError) as caught:
        await storage.database()
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown + "\n".join(lines) + repr(storage)


class Upstream:
    """A service that says the key it was given in its refusals, and in what it answers."""

    def __init__(self, status: int) -> None:
        self.status = status

    def __enter__(self) -> str:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                given = self.headers["authorization"]
                body = json.dumps({"error": {"message": f"Incorrect API key provided: {given}", "code": given}})
                self.send_response(upstream.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("x-told", given)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
async def test_a_provider_that_tells_its_key_tells_it_to_nobody(status):
    with Upstream(status) as url, everything_logged() as lines:
        settings = {"base_url": url, "api_key": Secret(PROVIDER), "retries": 0, "models": ("m",)}
        stack = build_stack(single("remote::openai", ("m",), settings, database=":memory:"))
        async with in_process(build_app(stack, ServeConfig())) as client:
            answers = [
                await client.post("/v1/chat/completions", json=chat_body(model="m", stream=stream))
                for stream in (False, True)
            ]
        await stack.aclose()
    assert all(answer.status_code >= 400 or "error" in answer.text for answer in answers)
    for answer in answers:
        assert PROVIDER not in answer.text + str(answer.headers)
    assert PROVIDER not in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "secret", "left"),
    [
        (f"got llk_{'A1b2C3d' * 7} from", "llk_[0-9A-Za-z]", "got llk_*** from"),
        ("{'Authorization': 'Bearer abcdefgh12345'}", "abcdefgh", "'Bearer ***'"),
        ("basic YWxhZGRpbjpvcGVu at", "YWxh", "basic *** at"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln!", "eyJ", "token ***!"),
        ("postgresql://anna:hunter2@db/x", "hunter2", "postgresql://anna:***@db/x"),
        ("basic authentication of a bearer", "nothing", "basic authentication of a bearer"),
        ("http://localhost:8321/v1 and user@host: fine", "nothing", "http://localhost:8321/v1 and user@host: fine"),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_lines(text, secret, left):
    try:
        raise RuntimeError(text)
    except RuntimeError as fault:
        record = logging.LogRecord(
            "llamakit.x", logging.ERROR, "", 0, text, (), (type(fault), fault, fault.__traceback__)
        )
    record.facts = {"told": text}
    for formatter in (PlainFormatter(), JsonFormatter()):
        line = formatter.format(record)
        assert not re.search(secret, line) and left in line
    assert json.loads(JsonFormatter().format(record))["told"] == left or "'" in text


def test_settings_do_not_show_their_secrets():
    told = TelemetryConfig(otlp_endpoint="http://localhost:1", otlp_headers={"x-api-key": Secret(COLLECTOR)})
    server = ServeConfig(api_keys=(STATIC,), tls_cert="a", tls_key="b", tls_key_password=Secret(PASSWORD))
    shown = f"{told!r} {server!r} {server}"
    assert COLLECTOR not in shown and PASSWORD not in shown and STATIC.reveal() not in shown
