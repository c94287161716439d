"""The provider of Qdrant: settings, addresses, keys, TLS, and errors that say what to do."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest
from tests.qdrant import port_of, qdrant_at

from llamakit.core.errors import (
    ConfigError,
    Conflict,
    LlamakitError,
    NotFound,
    OutboundFailed,
    OutboundRefused,
    Overloaded,
    RemoteFailed,
    StorageFull,
)
from llamakit.outbound.client import Fetched
from llamakit.providers.remote.vector_io.qdrant import QdrantSettings, QdrantWire, _refusal, build, read_settings
from llamakit.rag.vector.qdrant import QdrantChunks

BODY = {"vectors": {"meaning": {"size": 4, "distance": "Dot"}}, "sparse_vectors": {"words": {"modifier": "idf"}}}


async def asked(settings: QdrantSettings, method: str = "DELETE", path: str = "/collections/x", body=None):
    wire = QdrantWire(settings)
    try:
        return await wire.call(method, path, body)
    finally:
        await wire.aclose()


def test_settings_come_from_the_run_config_then_from_qdrants_own_variables():
    environ = {"QDRANT_URL": "https://q.example.org", "QDRANT_API_KEY": "from-env", "OTHER": "from-other"}
    plain = read_settings({}, environ)
    assert plain.url == "https://q.example.org:6333" and plain.api_key.reveal() == "from-env" and not plain.private
    given = read_settings({"url": "http://localhost:7000/", "api_key": "k", "prefix": "team-a", "exact": True}, environ)
    assert (given.url, given.private, given.prefix, given.exact) == ("http://localhost:7000", True, "team-a", True)
    assert read_settings({"url": "http://10.1.2.3"}, {}).private
    assert not read_settings({"url": "http://10.1.2.3", "private": False}, {}).private
    assert read_settings({"url": "https://[::1]"}, {}).url == "https://[::1]:6333"
    assert read_settings({"url": "https://gate.example.org/qdrant"}, {}).url == "https://gate.example.org/qdrant"
    assert read_settings({"url": "https://q.org", "api_key_env": "OTHER"}, environ).api_key.reveal() == "from-other"
    assert "from-env" not in repr(plain)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "needs url, or the variable QDRANT_URL"),
        ({"url": "qdrant:6333"}, "url is http"),
        ({"url": "https://me:pw@q.org"}, "credentials in a header"),
        ({"url": "https://q.org", "apikey": "x"}, "no setting 'apikey'.*api_key"),
        ({"url": "https://q.org", "api_key": "a\nb"}, "characters that no key has"),
        ({"url": "https://q.org", "private": "yes"}, "private must be true or false"),
        ({"url": "https://q.org", "prefix": "a/b"}, "prefix is 1 to 64"),
        ({"url": "https://q.org", "ca_file": "/nowhere.pem"}, "ca_file must be a file"),
        ({"url": "https://q.org", "timeout_s": 0}, "timeout_s must be a number"),
    ],
)
def test_settings_that_cannot_be_are_refused(config, said, monkeypatch):
    monkeypatch.delenv("QDRANT_URL", raising=False)
    with pytest.raises(ConfigError, match=said):
        build(config, {})


async def test_a_private_network_is_entered_only_where_it_is_configured(tmp_path):
    with qdrant_at(tmp_path / "q") as (url, engine):
        named = f"http://localhost:{port_of(url)}"
        with pytest.raises(OutboundRefused, match="private: true"):
            await asked(QdrantSettings(url=named))
        with pytest.raises(OutboundRefused, match="private: true"):
            await asked(QdrantSettings(url=url))
        assert engine.seen == []
        assert await asked(QdrantSettings(url=named, private=True)) is False


async def test_a_key_goes_along_and_a_refused_one_is_told_without_showing_it(tmp_path):
    with qdrant_at(tmp_path / "q", api_key="right-key") as (url, _):
        settings = read_settings({"url": url, "api_key": "right-key"}, {})
        assert await asked(settings, "PUT", "/collections/x", BODY) is True
        for key in ({}, {"api_key": "wrong-key"}):
            with pytest.raises(RemoteFailed, match=r"refused our key \(401\); set `api_key`") as refused:
                await asked(read_settings({"url": url, **key}, {}))
            assert "wrong-key" not in str(refused.value)


async def test_tls_is_spoken_and_checked(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=q.test -addext"
    names = ["subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    with qdrant_at(tmp_path / "q", ssl_keyfile=str(key), ssl_certfile=str(certificate)) as (url, _):
        assert url.startswith("https://")
        trusting = read_settings({"url": url, "ca_file": str(certificate)}, {})
        assert await asked(trusting) is False
        with pytest.raises(OutboundFailed, match="certificate"):
            await asked(read_settings({"url": url}, {}))


async def test_who_does_not_answer_is_told_with_the_next_step(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = QdrantSettings(url=f"http://127.0.0.1:{taken.getsockname()[1]}", private=True)
        with pytest.raises(OutboundFailed, match="is it running, and is `url`"):
            await asked(settings)


async def test_bad_requests_and_missing_collections(tmp_path):
    with qdrant_at(tmp_path / "q") as (url, _):
        settings = QdrantSettings(url=url, private=True)
        with pytest.raises(NotFound, match="doesn't exist"):
            await asked(settings, "POST", "/collections/x/points/count", {"exact": True})
        with pytest.raises(RemoteFailed, match="answered 400: Format error"):
            await asked(settings, "PUT", "/collections/x", {"vectors": {}, "speed": 9})
        await asked(settings, "PUT", "/collections/x", BODY)
        with pytest.raises(Conflict, match="already exists"):
            await asked(settings, "PUT", "/collections/x", BODY)
        wire = QdrantWire(settings)
        with pytest.raises(Conflict, match="choose another id"):
            store = QdrantChunks(wire.call)
            await store.create("ann", "c", 4)
            await store.create("ann", "c", 4)
        await wire.aclose()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (409, Conflict), (429, Overloaded), (503, Overloaded), (507, StorageFull), (500, RemoteFailed)],
)
def test_statuses_have_their_errors(status: int, kind: type[LlamakitError]):
    told = _refusal(Fetched(status, {}, "http://q", b'{"status": {"error": "the reason"}, "time": 0}'))
    assert type(told) is kind and "the reason" in str(told)
    assert "no answer of Qdrant's; check `url`" in str(_refusal(Fetched(status, {}, "http://q", b"<html>")))
