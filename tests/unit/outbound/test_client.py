"""The client against real sockets: a small server that can misbehave, and a resolver that lies."""

import asyncio
import gzip
import ipaddress
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from llamakit.core.errors import OutboundFailed, OutboundRefused
from llamakit.outbound.client import OutboundClient, OutboundLimits
from llamakit.outbound.network import GuardedTransport
from llamakit.outbound.policy import OutboundPolicy

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers every request with `handler`, and remembers what it was sent."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.heads: list[str] = []
        self.port = 0
        self.names: list[str | None] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.decode())
                await self.handler(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def headers(self, n: int = -1) -> dict[str, str]:
        lines = self.heads[n].split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(handler)
    if tls is not None:
        tls.sni_callback = lambda _, name, __: server.names.append(name)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
        await asyncio.sleep(0.01)


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> Handler:
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{fields}\r\n".encode() + body)

    return handle


def resolving(**table: list[str] | list[list[str]]):
    """A resolver that knows these names (underscores are dots); a list of lists answers differently each time."""
    asked: dict[str, int] = {}

    async def resolve(host: str):
        entry = table[host.replace(".", "_")]
        if entry and isinstance(entry[0], list):
            n = asked[host] = asked.get(host, -1) + 1
            entry = entry[min(n, len(entry) - 1)]
        return [ipaddress.ip_address(text) for text in entry]

    return resolve


@asynccontextmanager
async def client(policy: OutboundPolicy, **options) -> AsyncIterator[OutboundClient]:
    opened = OutboundClient(policy, **options)
    try:
        yield opened
    finally:
        await opened.aclose()


def inside(server: Server, *more: str) -> OutboundPolicy:
    """A policy under which the test server, on loopback, may be reached."""
    hosts = (f"a.test:{server.port}", f"b.test:{server.port}", f"127.0.0.1:{server.port}", *more)
    return OutboundPolicy(hosts=hosts, private=("127.0.0.0/8",), plain_http=True)


LOOPBACK = resolving(a_test=["127.0.0.1"], b_test=["127.0.0.1"])


async def test_an_answer_comes_back_whole():
    async with serving(answer(b'{"a": 1}', x_one="1")) as server, client(inside(server), resolver=LOOPBACK) as out:
        got = await out.request("POST", f"http://a.test:{server.port}/p?q=1", json={"k": "ü"}, headers={"X-Key": "s"})
        assert (got.status, got.ok, got.json(), got.headers["x-one"]) == (200, True, {"a": 1}, "1")
        assert server.heads[0].startswith("POST /p?q=1 HTTP/1.1")
        sent = server.headers()
        assert sent["host"] == f"a.test:{server.port}" and sent["x-key"] == "s"
        assert sent["content-type"] == "application/json" and sent["accept-encoding"] == "identity"


async def test_a_name_that_leads_inside_is_not_connected_to():
    async with serving(answer()) as server:
        policy = OutboundPolicy(hosts=(f"*:{server.port}",), plain_http=True)
        for addresses in (
            ["127.0.0.1"],
            ["8.8.8.8", "127.0.0.1"],
            ["127.0.0.1", "8.8.8.8"],
            ["::ffff:127.0.0.1"],
            ["::1"],
        ):
            async with client(policy, resolver=resolving(evil_test=addresses)) as out:
                with pytest.raises(OutboundRefused, match="loopback"):
                    await out.request("GET", f"http://evil.test:{server.port}/")
        assert server.heads == []


async def test_a_name_that_changes_its_mind_is_caught_each_time():
    """Rebinding: public when first asked, loopback when asked again."""
    async with serving(answer(b"inside")) as server:
        policy = OutboundPolicy(hosts=(f"*:{server.port}",), plain_http=True)
        lying = resolving(evil_test=[["192.0.3.1"], ["127.0.0.1"]])
        limits = OutboundLimits(connect_s=0.3, total_s=2.0)
        async with client(policy, resolver=lying, limits=limits) as out:
            with pytest.raises(OutboundFailed):
                await out.request("GET", f"http://evil.test:{server.port}/")
            with pytest.raises(OutboundRefused):
                await out.request("GET", f"http://evil.test:{server.port}/")
        assert server.heads == []


async def test_the_name_is_resolved_once_and_that_address_used():
    asked = []

    async def resolve(host: str):
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1" if len(asked) == 1 else "10.255.255.1")]

    async with serving(answer(b"x")) as server, client(inside(server), resolver=resolve) as out:
        assert (await out.request("GET", f"http://a.test:{server.port}/")).body == b"x"
    assert asked == ["a.test"]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:9/", "http://localhost/", "http://169.254.169.254/latest/meta-data/", "//127.0.0.1:9/",
        "http://[::1]/", "http://0/", "http://2130706433/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://evil.test/",
        "\\\\127.0.0.1\\", "http://a.test\\@127.0.0.1/", "http://user@127.0.0.1/", "http:127.0.0.1", "javascript:x",
        "http://[", "http://a.test:1/", "http://metadata.google.internal/",
    ],
)  # fmt: skip
async def test_a_redirect_is_checked_like_the_first_url(location: str):
    async with serving(answer(b"", "302 Found", location=location)) as server:
        policy = OutboundPolicy(hosts=(f"a.test:{server.port}",), private=("a.test",), plain_http=True)
        limits = OutboundLimits(redirects=5)
        async with client(policy, resolver=LOOPBACK, limits=limits) as out:
            with pytest.raises(OutboundRefused):
                await out.request("GET", f"http://a.test:{server.port}/")
        assert len(server.heads) == 1


async def test_redirects_are_followed_so_far_and_no_farther():
    async def chain(head: bytes, writer: asyncio.StreamWriter) -> None:
        n = int(head.split(b" ")[1].removeprefix(b"/"))
        if n == 0:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nend")
        else:
            writer.write(f"HTTP/1.1 302 Found\r\nlocation: /{n - 1}\r\ncontent-length: 0\r\n\r\n".encode())

    async with serving(chain) as server, client(inside(server), resolver=LOOPBACK) as out:
        base = f"http://a.test:{server.port}"
        limits = OutboundLimits(redirects=3)
        got = await out.request("GET", f"{base}/3", limits=limits)
        assert (got.body, got.url) == (b"end", f"{base}/0")
        with pytest.raises(OutboundFailed, match="more than 3"):
            await out.request("GET", f"{base}/4", limits=limits)
        assert (await out.request("GET", f"{base}/1")).status == 302
        assert (await out.request("POST", f"{base}/1", content=b"x", limits=limits)).status == 302


async def test_credentials_stay_with_their_origin_and_cookies_with_nobody():
    async def redirect(head: bytes, writer: asyncio.StreamWriter) -> None:
        to_b = f"http://b.test:{server.port}/there"
        away = b"HTTP/1.1 302 Found\r\nset-cookie: s=1\r\nlocation: " + to_b.encode() + b"\r\ncontent-length: 0\r\n\r\n"
        writer.write(away if b" /here " in head else b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with serving(redirect) as server, client(inside(server), resolver=LOOPBACK) as out:
        secret = {"Authorization": "Bearer k", "X-Api-Key": "k", "Cookie": "c=1", "Accept": "text/html"}
        await out.request(
            "GET", f"http://a.test:{server.port}/here", headers=secret, limits=OutboundLimits(redirects=1)
        )
        await out.request("GET", f"http://a.test:{server.port}/again")
    first, second, third = (server.headers(n) for n in range(3))
    assert first["authorization"] == "Bearer k" and first["x-api-key"] == "k"
    assert not {"authorization", "x-api-key", "cookie"} & set(second) and second["accept"] == "text/html"
    assert "cookie" not in third


async def test_too_many_bytes_are_cut_off():
    async def endless(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            await writer.drain()

    limits = OutboundLimits(max_bytes=50_000)
    async with serving(endless) as server, client(inside(server), resolver=LOOPBACK, limits=limits) as out:
        with pytest.raises(OutboundFailed, match="more than 50000"):
            await out.request("GET", f"http://a.test:{server.port}/")
    async with (
        serving(answer(b"x" * 60_000)) as server,
        client(inside(server), resolver=LOOPBACK, limits=limits) as out,
    ):
        with pytest.raises(OutboundFailed, match="announces 60000"):
            await out.request("GET", f"http://a.test:{server.port}/")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies_are_read_and_bombs_are_not(encoding: str):
    def pack(data: bytes) -> bytes:
        return gzip.compress(data) if encoding == "gzip" else zlib.compress(data)

    async def fetch(body: bytes) -> bytes:
        handler = answer(body, content_encoding=encoding)
        limits = OutboundLimits(max_bytes=1 << 20)
        async with serving(handler) as server, client(inside(server), resolver=LOOPBACK, limits=limits) as out:
            return (await out.request("GET", f"http://a.test:{server.port}/")).body

    assert await fetch(pack(b"hello" * 1000)) == b"hello" * 1000
    with pytest.raises(OutboundFailed, match="more than"):
        await fetch(pack(bytes(64 << 20)))
    with pytest.raises(OutboundFailed, match="middle"):
        await fetch(pack(b"x" * 99)[:-9])


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (answer(b"not gzip", content_encoding="gzip"), "damaged"),
        (answer(b"x", content_encoding="br"), "not asked for"),
        (answer(b"x", content_length="1\r\ncontent-length: 2"), "failed"),
    ],
)
async def test_odd_answers_are_failures(handler: Handler, said: str):
    async with serving(handler) as server, client(inside(server), resolver=LOOPBACK) as out:
        with pytest.raises(OutboundFailed, match=said):
            await out.request("GET", f"http://a.test:{server.port}/")


async def test_time_is_bounded():
    async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    for handler in (drip, silent):
        async with serving(handler) as server, client(inside(server), resolver=LOOPBACK) as out:
            with pytest.raises(OutboundFailed, match=r"within 0.2 s"):
                await out.request("GET", f"http://a.test:{server.port}/", limits=OutboundLimits(total_s=0.2))
            with pytest.raises((OutboundFailed, TimeoutError)):
                async with asyncio.timeout(0.6):
                    limits = OutboundLimits(total_s=None, idle_s=0.2)
                    await out.request("GET", f"http://a.test:{server.port}/", limits=limits)


async def test_a_callers_own_timeout_stays_a_timeout():
    async with serving(answer(b"x")) as server, client(inside(server), resolver=LOOPBACK) as out:
        with pytest.raises(TimeoutError):
            async with out.stream("GET", f"http://a.test:{server.port}/"):
                raise TimeoutError("mine")


async def test_a_stream_is_read_as_it_comes_and_closed_when_left():
    left = asyncio.Event()

    async def events(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"5\r\nhello\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async with serving(events) as server, client(inside(server), resolver=LOOPBACK) as out:
        async with out.stream("GET", f"http://a.test:{server.port}/") as reply:
            async for piece in reply.pieces():
                assert piece == b"hello"
                break
        await asyncio.wait_for(left.wait(), 5)


async def test_the_environments_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(answer(b"direct")) as server, client(inside(server), resolver=LOOPBACK) as out:
        assert (await out.request("GET", f"http://a.test:{server.port}/")).body == b"direct"


async def test_a_library_with_its_own_client_is_held_to_the_policy():
    async with serving(answer(b"x")) as server:
        transport = GuardedTransport(inside(server), resolver=LOOPBACK)
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as library:
            assert (await library.get(f"http://a.test:{server.port}/")).content == b"x"
            with pytest.raises(OutboundRefused):
                await library.get("http://127.0.0.1:1/")
            with pytest.raises(OutboundRefused):
                await library.get("http://a.test:1/")


async def test_a_host_that_does_not_exist_or_answer_is_a_failure():
    async def nowhere(host: str):
        return []

    async with client(OutboundPolicy(hosts=("a.test:1",), plain_http=True), resolver=nowhere) as out:
        with pytest.raises(OutboundFailed, match="no address"):
            await out.request("GET", "http://a.test:1/")
    async with client(OutboundPolicy.to("http://127.0.0.1:1")) as out:
        with pytest.raises(OutboundFailed, match="ConnectError"):
            await out.request("GET", "http://127.0.0.1:1/")
    async with client(OutboundPolicy(hosts=("no-such-host.invalid",))) as out:
        with pytest.raises(OutboundFailed):
            await out.request("GET", "https://no-such-host.invalid/")


async def test_a_secret_in_the_query_is_not_in_the_error():
    async with client(OutboundPolicy.to("http://127.0.0.1:1")) as out:
        with pytest.raises(OutboundFailed) as error:
            await out.request("GET", "http://127.0.0.1:1/search?key=hunter2")
    assert "hunter2" not in str(error.value)


async def test_a_body_that_is_not_json_says_so():
    for body in (b"<html>", b"[" * 200_000):
        async with serving(answer(body)) as server, client(inside(server), resolver=LOOPBACK) as out:
            got = await out.request("GET", f"http://a.test:{server.port}/")
            with pytest.raises(OutboundFailed, match="not JSON"):
                got.json()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=a.test -addext"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), "subjectAltName=DNS:a.test", *files], check=True, capture_output=True)
    return folder


async def test_tls_is_checked_against_the_name_not_the_address(certificate: Path):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    roots = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    async with serving(answer(b"tls"), tls) as server:
        async with client(inside(server), resolver=LOOPBACK, roots=roots) as out:
            assert (await out.request("GET", f"https://a.test:{server.port}/")).body == b"tls"
            assert server.names == ["a.test"]
            assert server.headers()["host"] == f"a.test:{server.port}"
            for wrong in ("b.test", "127.0.0.1"):
                with pytest.raises(OutboundFailed):
                    await out.request("GET", f"https://{wrong}:{server.port}/")
        async with client(inside(server), resolver=LOOPBACK) as out:
            with pytest.raises(OutboundFailed):
                await out.request("GET", f"https://a.test:{server.port}/")
    assert len(server.heads) == 1
