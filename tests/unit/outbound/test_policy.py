import ipaddress

import pytest

from llamakit.core.errors import ConfigError, OutboundRefused
from llamakit.outbound.addresses import is_metadata, parse, unwrapped, why_not_public
from llamakit.outbound.policy import OutboundPolicy, normal_host, parse_url

OPEN = OutboundPolicy(hosts=("*",), plain_http=True)
"""The most that a policy can allow without naming anything private."""

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "172.15.0.1", "172.32.0.1", "100.63.255.255", "11.0.0.1",
          "2606:4700:4700::1111", "2a00:1450:4001:800::200e", "::ffff:8.8.8.8"]  # fmt: skip

NOT_PUBLIC = ["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1",
              "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1",
              "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
              "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1",
              "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1",
              "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
              "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1",
              "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::", "3fff::1", "5f00::1", "fc00::1", "fd00::1",
              "fd00:ec2::254",
              "fd20:ce::254", "fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "ff0e::1", "4000::1",
              "::2"]  # fmt: skip

# Spellings of places inside, and texts that parsers read differently: none may pass the open policy.
VECTORS = [
    *(f"http://{f'[{text}]' if ':' in text else text}/" for text in NOT_PUBLIC),
    "http://127.1/", "http://127.0.1/", "http://0/", "http://0.0.0.0:80/", "http://2130706433/", "http://017700000001/",
    "http://0x7f000001/", "http://0x7f.0x0.0x0.0x1/", "http://0x7f.1/", "http://0177.0.0.1/", "http://0177.1/",
    "http://127.0.0.01/", "http://127.000.000.001/", "http://127.0.0.1./", "http://127.0.0.1../", "http://127.0.0.256/",
    "http://127.0.0.0x1/", "http://00000177.0.0.1/", "http://3232235777/", "http://0xa9fea9fe/", "http://2852039166/",
    "http://169.254.43518/", "http://169.16689662/", "http://0251.0376.0251.0376/", "http://0xa9.0xfe.0xa9.0xfe/",
    "http://4294967296/", "http://1/", "http://0x/", "http://evil.0x7f/", "http://evil.1/",
    "http://１２７.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://127．0．0．1/",
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", "http://ⓛocalhost/?", "http://1２7.0.0.1/",
    "http://[::1]:80/", "http://[0:0:0:0:0:0:0:1]/", "http://[0000::0001]/", "http://[::ffff:7f00:1]/",
    "http://[::ffff:7f00:0001]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/", "http://[::1%25lo]/", "http://[fe80::1%25eth0]/",
    "http://[::1%lo]/", "http://[::1", "http://::1/", "http://[::1]x/", "http://[127.0.0.1]/", "http://[v1.::1]/",
    "http://user@127.0.0.1/", "http://user:pass@example.com/", "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/", "http://example.com:80@127.0.0.1/", "http://example.com#@127.0.0.1/",
    "http://example.com?@127.0.0.1/", "http://@127.0.0.1/", "http://:@127.0.0.1/", "http://a@b@example.com/",
    "http://example.com\\@127.0.0.1/", "http://example.com\\.evil.com/", "http:\\\\127.0.0.1\\", "http:/\\127.0.0.1/",
    "http://127.0.0.1\\@example.com/", "http://example.com%40127.0.0.1/", "http://example.com%2f@127.0.0.1/",
    "http://127.0.0.1%23.example.com/", "http://127.0.0.1%00.example.com/", "http://127.0.0.1%0d%0a.example.com/",
    "http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/", "http://loc%61lhost/", "http://example.com%00/",
    "http:///127.0.0.1/", "http:////127.0.0.1/", "http:127.0.0.1", "http:/127.0.0.1/", "//127.0.0.1/", "127.0.0.1",
    "http://", "http:", "", " http://127.0.0.1/", "http://127.0.0.1 /", "http://127.0.0.1\t/", "http://127.0.0.1\n/",
    "http://example.com\r\nHost: 127.0.0.1/", "http://example.com/\r\nX: y", "http://exam\u200bple.com/",
    "http://example.com\u2025/", "http://example.com:80\uff03@x/", "\thttp://127.0.0.1/", "http://\x00127.0.0.1/",
    "http://example.com:0/", "http://example.com:-1/", "http://example.com:65536/", "http://example.com:99999/",
    "http://example.com:80:80/", "http://example.com:8o/", "http://example.com:22/", "http://example.com:25/",
    "http://example.com:6379/", "http://example.com:11211/", "http://example.com:2375/", "http://example.com:8080/",
    "file:///etc/passwd", "file://localhost/etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/stat", "ftp://127.0.0.1/", "sftp://127.0.0.1/", "tftp://127.0.0.1/", "ldap://127.0.0.1/",
    "jar:http://127.0.0.1!/", "netdoc:///etc/passwd", "data:text/plain,hello", "javascript:alert(1)", "unix:///run/x",
    "http+unix://%2Frun%2Fdocker.sock/", "ws://127.0.0.1/", "blob:http://127.0.0.1/", "about:blank", "view-source:http://a/",
    "http://a..b/", "http://.example.com/", "http://-example.com/", "http://example-.com/", "http://exa mple.com/",
    "http://exa_mple-.com/", "http://" + "a" * 64 + ".com/", "http://" + "a." * 200 + "com/", "http://ex*mple.com/",
    "http://example.com|evil/", "http://<example>/", "http://{example}/", "http://`id`/", "http://$(id)/",
    "http://xn--/", "http://example.com/" + "a" * 9000,
]  # fmt: skip


def test_there_are_at_least_150_vectors():
    assert len(set(VECTORS)) >= 150


@pytest.mark.parametrize("url", VECTORS)
def test_no_spelling_of_an_inside_place_passes(url: str):
    with pytest.raises(OutboundRefused):
        OPEN.check_url(url)


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_special_addresses_are_refused(text: str):
    address = ipaddress.ip_address(text)
    assert why_not_public(address)
    with pytest.raises(OutboundRefused, match="leads to"):
        OPEN.check_address("example.com", address)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str):
    OPEN.check_address("example.com", ipaddress.ip_address(text))
    host = f"[{text}]" if ":" in text else text
    assert OPEN.check_url(f"https://{host}/").host == str(unwrapped(ipaddress.ip_address(text)))


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://Example.COM/a?b=c#d", "example.com", 443),
        ("http://example.com./", "example.com", 80),
        ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("https://a_b.example.com:443/", "a_b.example.com", 443),
        ("https://example.com/path@with/at", "example.com", 443),
        ("https://example.com/?q=a%20b", "example.com", 443),
    ],
)
def test_ordinary_urls_pass(url: str, host: str, port: int):
    target = OPEN.check_url(url)
    assert (target.host, target.port) == (host, port)
    assert target.url.fragment == ""


def test_nothing_is_allowed_by_default():
    with pytest.raises(OutboundRefused, match=r"example.com:443.*outbound.hosts"):
        OutboundPolicy().check_url("https://example.com/")


def test_patterns_name_hosts_and_ports():
    policy = OutboundPolicy(hosts=("api.example.org", "*.cdn.example.org", "other.net:8443", "8.8.8.8"))
    for url in (
        "https://api.example.org/",
        "https://x.y.cdn.example.org/",
        "https://other.net:8443/",
        "https://8.8.8.8/",
    ):
        policy.check_url(url)
    for url in (
        "https://example.org/",
        "https://cdn.example.org/",
        "https://evilcdn.example.org/",
        "https://api.example.org.evil.com/",
        "https://other.net/",
        "https://api.example.org:8443/",
        "https://8.8.4.4/",
    ):
        with pytest.raises(OutboundRefused, match="not an allowed host"):
            policy.check_url(url)


def test_plain_text_needs_leave():
    with pytest.raises(OutboundRefused, match="plain text"):
        OutboundPolicy(hosts=("*",)).check_url("http://example.com/")


def test_private_networks_need_leave_and_metadata_a_name_of_its_own():
    policy = OutboundPolicy(hosts=("*",), private=("10.0.0.0/8", "169.254.0.0/16", "intern.lan"))
    policy.check_url("http://10.1.2.3/")
    policy.check_url("http://[::ffff:10.1.2.3]/")
    policy.check_address("intern.lan", ipaddress.ip_address("192.168.1.1"))
    for host, address in (
        ("example.com", "192.168.1.1"),
        ("example.com", "169.254.169.254"),
        ("intern.lan", "169.254.169.254"),
        ("intern.lan", "fd00:ec2::254"),
        ("intern.lan", "100.100.100.200"),
        ("intern.lan", "168.63.129.16"),
    ):
        with pytest.raises(OutboundRefused):
            policy.check_address(host, ipaddress.ip_address(address))
    OutboundPolicy(hosts=("*",), private=("169.254.169.254",)).check_url("http://169.254.169.254/latest/")
    assert is_metadata(ipaddress.ip_address("::ffff:169.254.169.254"))


def test_a_service_the_operator_names_is_reached_and_nothing_else():
    policy = OutboundPolicy.to("http://localhost:11434/v1")
    policy.check_url("http://localhost:11434/api/tags")
    policy.check_address("localhost", ipaddress.ip_address("127.0.0.1"))
    for url in ("http://localhost/", "http://localhost:22/", "http://127.0.0.1:11434/", "https://example.com/"):
        with pytest.raises(OutboundRefused):
            policy.check_url(url)
    OutboundPolicy.to("http://[::1]:8000").check_url("http://[::1]:8000/v1")
    OutboundPolicy.to("https://api.example.com/v1").check_url("https://api.example.com/v1/chat")


@pytest.mark.parametrize("entry", ["", "https://example.org", "a b", "*.*.org", "exa*mple.org", "h:99999999", "::1]"])
def test_a_pattern_that_means_nothing_is_refused(entry: str):
    with pytest.raises(ConfigError, match="outbound"):
        OutboundPolicy(hosts=(entry,))


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "LAN", "a b", "1.2.3"])
def test_a_private_entry_that_means_nothing_is_refused(entry: str):
    with pytest.raises(ConfigError, match=r"outbound.private"):
        OutboundPolicy(private=(entry,))


@pytest.mark.parametrize("url", ["", "localhost", "ftp://x", "http://", "http://a b/"])
def test_a_base_url_is_a_url(url: str):
    with pytest.raises(ConfigError, match="base URL"):
        OutboundPolicy.to(url)


def test_one_spelling_of_a_host():
    assert normal_host("EXAMPLE.com.") == "example.com"
    assert normal_host("::FFFF:8.8.8.8") == "8.8.8.8"
    assert parse("127.0.0.01") is None and parse("fe80::1%eth0") is None
    assert parse_url("https://example.com/").origin == ("https", "example.com", 443)
