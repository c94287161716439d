"""Who may come in: keys on every route, host names, web pages, and what nobody learns."""

from __future__ import annotations

import logging

import httpx2
import pytest
from tests.serving import chat_body, echo_app, in_process

from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.providers.inline.inference.echo import EchoInference
from llamakit.server.app import operations_of
from llamakit.server.logs import JsonFormatter, PlainFormatter, configure_logging
from llamakit.server.origin import OriginGuard
from llamakit.stack.run_config import ServeConfig

KEY, OTHER = "sk-the-right-key-1", "sk-another-key-22"
KEYS = (Secret(KEY), Secret(OTHER))
PUBLIC = {"/health", "/v1/health", "/v1alpha/admin/health"}


def places(app):
    return [(operation.method, operation.path.replace("{model:path}", "echo")) for operation in operations_of(app)]


def says_no_key(body):
    """In the shape of whichever API the path belongs to."""
    error = body["error"]
    if isinstance(error, str):
        return "API key" in error
    return error.get("code") == "invalid_api_key" or (body.get("type"), error["type"]) == (
        "error",
        "authentication_error",
    )


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer ", "Bearer", KEY])
async def test_every_route_denies_without_a_key(header):
    app = echo_app(api_keys=KEYS)
    headers = {} if header is None else {"authorization": header}
    async with in_process(app) as client:
        for method, path in places(app):
            response = await client.request(method, path, headers=headers)
            if path in PUBLIC:
                assert response.status_code == 200
            else:
                assert response.status_code == 401, path
                assert response.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or says_no_key(response.json()), path
                assert "echo" not in response.text


VARIANTS = [
    "//v1/models",
    "/v1//models",
    "/v1/models/",
    "/V1/models",
    "/v1/%6dodels",
    "/v1/models%2f",
    "/health/../v1/models",
    "/health%2f..%2fv1/models",
    "/v1/health/../models",
    "/v1/models;x",
    "/v1/models?key=x",
    "/v1/models%00",
    "/./v1/models",
    "/metrics/",
    "/openapi.json/",
    "/docs",
    "/redoc",
]


@pytest.mark.parametrize("path", VARIANTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PROPFIND"])
async def test_odd_paths_and_methods_open_nothing(path, method):
    async with in_process(echo_app(api_keys=KEYS)) as client:
        url = httpx2.URL("http://localhost", raw_path=path.encode())
        response = await client.request(method, url, headers={"host": "a/v1?"})
        assert response.status_code in (401, 404, 405)
        assert "meta/echo:1b" not in response.text


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {OTHER}"}, {"x-api-key": KEY}]
)
async def test_known_keys_come_in(headers):
    async with in_process(echo_app(api_keys=KEYS)) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_two_authorization_headers_are_refused():
    async with in_process(echo_app(api_keys=KEYS)) as client:
        headers = [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer wrong")]
        assert (await client.get("/v1/models", headers=headers)).status_code == 400


async def test_each_key_has_prefixes_of_its_own():
    provider = EchoInference()
    async with in_process(echo_app(provider, api_keys=KEYS)) as client:
        cached = []
        for key in (KEY, OTHER, KEY):
            body = chat_body(cache_salt="same")
            response = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
            cached.append(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[:2] == [0, 0] and cached[2] > 0
    salts = [context.salt for context in provider.contexts]
    assert salts[0] == salts[2] != salts[1] and KEY not in "".join(salts)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8321", "127.0.0.1:1", "[::1]:80", "10.1.2.3", "app.localhost"]
)
async def test_own_hosts(host):
    async with in_process(echo_app()) as client:
        assert (await client.get("/v1/models", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "a/v1?", "localhost:x", "", "[::1", "127.0.0.1@evil.com"],
)
async def test_foreign_hosts(host):
    async with in_process(echo_app()) as client:
        for path in ("/v1/models", "/health", "/nowhere"):
            response = await client.get(path, headers={"host": host})
            assert response.status_code == 403 and response.json()["error"]["code"] == "forbidden"


async def test_allowed_hosts():
    async with in_process(echo_app(allowed_hosts=("llama.lan",))) as client:
        assert (await client.get("/v1/models", headers={"host": "llama.lan:8321"})).status_code == 200
        assert (await client.get("/v1/models", headers={"host": "other.lan"})).status_code == 403


@pytest.mark.parametrize("settings", [{"uds": "/tmp/x"}, {"api_keys": KEYS}])
def test_where_no_name_can_do_harm_none_is_checked(settings):
    guard = OriginGuard(lambda *_: None, config=ServeConfig(**settings))
    assert guard._checks_host is False


@pytest.mark.parametrize(
    "origin", ["https://evil.com", "null", "http://localhost:9", "file://", "http://localhost.evil"]
)
async def test_foreign_pages(origin):
    async with in_process(echo_app()) as client:
        response = await client.post("/v1/chat/completions", json=chat_body(), headers={"origin": origin})
        assert response.status_code == 403 and "access-control-allow-origin" not in response.headers
        preflight = {"origin": origin, "access-control-request-method": "POST"}
        response = await client.options("/v1/chat/completions", headers=preflight)
        assert response.status_code == 403 and "access-control-allow-origin" not in response.headers


async def test_own_page():
    async with in_process(echo_app()) as client:
        response = await client.get("/v1/models", headers={"origin": "http://localhost", "host": "localhost"})
        assert response.status_code == 200 and "access-control-allow-origin" not in response.headers


async def test_allowed_pages():
    page = "http://localhost:3000"
    async with in_process(echo_app(cors_origins=(page,))) as client:
        preflight = {
            "origin": page,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,authorization",
        }
        response = await client.options("/v1/chat/completions", headers=preflight)
        assert response.status_code == 200 and response.headers["access-control-allow-origin"] == page
        response = await client.post("/v1/chat/completions", json=chat_body(), headers={"origin": page})
        assert response.headers["access-control-allow-origin"] == page
        assert "x-llamakit-ignored" in response.headers["access-control-expose-headers"]
        assert (await client.get("/v1/models", headers={"origin": "http://localhost:3001"})).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "http://localhost:3000"}, 200),
    ],
)
async def test_pages_cannot_ask_without_saying_so(headers, status):
    async with in_process(echo_app(cors_origins=("http://localhost:3000",))) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == status


async def test_a_page_may_send_what_its_client_sends():
    page = "http://localhost:3000"
    preflight = {
        "origin": page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang,traceparent",
    }
    async with in_process(echo_app(cors_origins=(page,))) as client:
        answer = await client.options("/v1/chat/completions", headers=preflight)
        assert answer.status_code == 200 and "x-stainless-lang" in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers


def test_an_open_address_needs_a_key_or_a_word():
    with pytest.raises(ConfigError, match="other machines"):
        echo_app(host="0.0.0.0")
    echo_app(host="0.0.0.0", api_keys=KEYS)
    echo_app(host="0.0.0.0", allow_anonymous=True)


async def test_logs_name_the_request_and_no_secret(caplog):
    caplog.set_level(logging.DEBUG, "llamakit")
    async with in_process(echo_app(api_keys=KEYS)) as client:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": "req-77"}
        await client.post("/v1/chat/completions", json=chat_body("very private", made_up=1), headers=headers)
        await client.get(f"/v1/models?api_key={OTHER}", headers={"authorization": "Bearer guess-guess"})
    lines = [formatter.format(record) for record in caplog.records for formatter in (JsonFormatter(), PlainFormatter())]
    text = "\n".join(lines)
    assert "req-77" in text and '"ignored": "made_up"' in text and '"completion_tokens": 12' in text
    for secret in (KEY, OTHER, "guess-guess", "very private"):
        assert secret not in text


def test_log_lines_cannot_be_forged():
    record = logging.LogRecord("llamakit.x", logging.INFO, "", 0, "m", (), None)
    record.facts = {"model": "a\nerror fake=1 b"}
    assert len(PlainFormatter().format(record).splitlines()) == 1
    assert len(JsonFormatter().format(record).splitlines()) == 1


def test_logging_can_be_configured(capsys):
    names = ("llamakit", "uvicorn")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    try:
        configure_logging(as_json=True)
        logging.getLogger("llamakit.test").info("hello", extra={"facts": {"a": 1}})
        assert '"message": "hello", "a": 1' in capsys.readouterr().err
        configure_logging(as_json=False)
        logging.getLogger("llamakit.test").info("hello", extra={"facts": {"a": 1}})
        assert "hello  a=1" in capsys.readouterr().err
    finally:
        for name, (handlers, propagate) in before.items():
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagate
