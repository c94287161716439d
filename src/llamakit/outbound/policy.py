"""What may be reached: a policy from configuration, and the checks of a URL, a host and an address against it.

Nothing is allowed by default. A URL is parsed once, by the same parser that sends the request, and
what two parsers could read differently is refused. Does no I/O.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import cached_property

import httpx2

from llamakit.core.errors import ConfigError, OutboundRefused
from llamakit.outbound.addresses import Address, Network, is_metadata, parse, why_not_public

MAX_URL_CHARS = 8192

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_ODD_CHARACTERS = re.compile(
    r"[\x00-\x20\x7f-\xa0\\^`{|}<>\"\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"
)
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was checked."""

    url: httpx2.URL
    scheme: str
    host: str
    """Lower-case ASCII name without a final dot, or a canonical address."""
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials are bound to."""
        return (self.scheme, self.host, self.port)


@dataclass(frozen=True)
class OutboundPolicy:
    """Which hosts, ports and private addresses may be reached. The empty policy reaches nothing."""

    hosts: tuple[str, ...] = ()
    """`api.example.org`, `*.example.org` (names below it), an address, or `*` for every public host; a port may
    follow: `vllm.lan:8000`. Without one, 443 and 80 are meant."""
    private: tuple[str, ...] = ()
    """Networks (`10.0.0.0/8`, `127.0.0.1`) and host names that may be private. They must also be in `hosts`."""
    plain_http: bool = False
    """Whether `http://` may be used with public hosts; with private ones it always may."""

    def __post_init__(self) -> None:
        _ = self._rules, self._networks

    @classmethod
    def to(cls, base_url: str) -> OutboundPolicy:
        """The policy for one service an operator named: that host and port only, private or not."""
        try:
            url = httpx2.URL(base_url)
            host, port = _host(url), url.port or _DEFAULT_PORTS[url.scheme]
        except (httpx2.InvalidURL, KeyError, OutboundRefused) as error:
            raise ConfigError(f"a base URL is http:// or https:// and a host, got {base_url!r}") from error
        entry = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(hosts=(entry,), private=(host,), plain_http=True)

    def check_url(self, text: str) -> Target:
        """The target of a URL, or `OutboundRefused` with the reason; no name is resolved."""
        target = parse_url(text)
        if not self._is_listed(target.host, target.port):
            shown = f"{target.host}:{target.port}"
            raise OutboundRefused(f"{shown} is not an allowed host; allow it by listing {shown!r} in outbound.hosts")
        address = parse(target.host)
        if address is not None:
            self.check_address(target.host, address)
        if target.scheme == "http" and not self.plain_http and not self._may_be_private(target.host, address):
            raise OutboundRefused(f"{target.host} would be spoken to in plain text; use https or allow plain_http")
        return target

    def check_address(self, host: str, address: Address) -> None:
        """Raise `OutboundRefused` where `host` may not be reached at `address`."""
        reason = why_not_public(address)
        if reason is None:
            return
        if is_metadata(address):
            if not any(network.prefixlen == network.max_prefixlen for network in self._containing(address)):
                raise OutboundRefused(
                    f"{host} leads to {address} ({reason}); only naming this one address in outbound.private allows it"
                )
            return
        if not self._may_be_private(host, address):
            raise OutboundRefused(
                f"{host} leads to {address} ({reason}); allow it by listing the host or network in outbound.private"
            )

    def check_host(self, host: str, port: int) -> str:
        """The normal form of a host about to be connected to, if it is allowed."""
        normal = normal_host(host)
        if not self._is_listed(normal, port):
            raise OutboundRefused(f"{normal}:{port} is not an allowed host")
        return normal

    def _may_be_private(self, host: str, address: Address | None) -> bool:
        return host in self.private or (address is not None and bool(self._containing(address)))

    def _containing(self, address: Address) -> list[Network]:
        return [network for network in self._networks if network.version == address.version and address in network]

    def _is_listed(self, host: str, port: int) -> bool:
        return any(
            port in ports and (name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:])))
            for name, ports in self._rules
        )

    @cached_property
    def _rules(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple(_rule(entry) for entry in self.hosts)

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        networks = []
        for entry in self.private:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not _is_normal(entry):
                    raise ConfigError(
                        f"outbound.private holds networks and lower-case host names, got {entry!r}"
                    ) from None
        return tuple(networks)


def parse_url(text: str) -> Target:
    """A URL's parts, where every parser would read the same ones."""
    if len(text) > MAX_URL_CHARS:
        raise OutboundRefused(f"the URL has {len(text)} characters; at most {MAX_URL_CHARS} are sent")
    if _ODD_CHARACTERS.search(text):
        raise OutboundRefused("the URL holds spaces, controls, backslashes or other characters that belong escaped")
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise OutboundRefused(f"this is not a URL: {error}") from error
    if url.scheme not in _DEFAULT_PORTS:
        raise OutboundRefused(f"only http:// and https:// are fetched, got {url.scheme[:20]!r}")
    if url.userinfo or "@" in text.split("://", 1)[-1].split("/", 1)[0]:
        raise OutboundRefused("the URL holds a user name or an @ before its path; send credentials in a header")
    host = _host(url)
    port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 65536:
        raise OutboundRefused(f"no port {port} exists")
    return Target(url.copy_with(host=host, fragment=None), url.scheme, host, port)


def _host(url: httpx2.URL) -> str:
    return normal_host(url.raw_host.decode("ascii", "replace"))


def normal_host(host: str) -> str:
    """A host's one spelling; refuses what is neither a plain name nor a canonical address."""
    host = host.lower().removesuffix(".")
    address = parse(host)
    if address is not None:
        return str(address)
    # 0x7f.1, 2130706433, 0177.0.0.1: some resolvers take them for addresses, so nobody may spell a name like it.
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]) or len(host) > 253 or not _NAME.fullmatch(host):
        raise OutboundRefused(f"{host[:80]!r} is neither a host name nor an address in its usual spelling")
    return host


def _is_normal(host: str) -> bool:
    try:
        return normal_host(host) == host
    except OutboundRefused:
        return False


def _rule(entry: str) -> tuple[str, tuple[int, ...]]:
    """A host pattern and its ports."""
    found = re.fullmatch(r"(?P<host>\*|(?:\*\.)?[^\[\]:*]+|\[[^\[\]]+\])(?::(?P<port>[0-9]{1,5}))?", entry)
    bare = parse(entry)
    if bare is not None:
        return str(bare), (443, 80)
    if found is None:
        raise ConfigError(f"outbound.hosts holds names, addresses, `*.name` or `*`, with a port or not; got {entry!r}")
    name = found["host"].strip("[]")
    ports = (int(found["port"]),) if found["port"] else (443, 80)
    if name == "*":
        return name, ports
    wildcard = "*." if name.startswith("*.") else ""
    try:
        return wildcard + normal_host(name.removeprefix("*.")), ports
    except OutboundRefused as error:
        raise ConfigError(f"outbound.hosts: {error}") from error
