"""Where a server listens, who may come in, and its manners. Numbers and names; touches no disk and no device."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.stack.access import KeyLimits
from llamakit.stack.oidc_config import OidcConfig

MIN_KEY_CHARS = 8
AUTH = {"section": "auth"}
"""Metadata of the fields that stand in the section `auth` of a distribution's file; the others are in `server`."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """The address of a server, and who may use it: sections `server` and `auth` of a distribution."""

    preload: bool = True
    """Load the models of the distribution before the first request is taken."""
    strict: bool = False
    """Refuse unknown request fields instead of setting them aside."""

    offline: bool = False
    """Open no connection to any other machine, whatever asks for one; providers that would are refused."""
    memory_mib: int | None = None
    """Memory the process may take, in MiB: more at the start is an error, and containers are held to it."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8321
    """Port to listen on; 0 takes a free one."""
    uds: str | None = None
    """Path of a Unix socket to listen on, instead of host and port."""
    tls_cert: str | None = None
    """PEM file of the certificate chain; TLS is on when it is set."""
    tls_key: str | None = None
    """PEM file of its private key."""
    tls_key_password: Secret | None = None
    tls_client_ca: str | None = None
    """PEM file of authorities; clients must show a certificate that one of them signed."""

    api_keys: tuple[Secret, ...] = field(default=(), metadata=AUTH)
    """Keys, one of which every request must carry; none needed on a loopback address."""
    allow_anonymous: bool = field(default=False, metadata=AUTH)
    """Serve everybody who can reach a non-loopback address without a key."""
    require_key: bool = field(default=False, metadata=AUTH)
    """Demand a key of everybody, also on a loopback address; `llama key create` makes keys."""
    limits: KeyLimits = field(default_factory=KeyLimits, metadata=AUTH)
    """Limits of every caller who has none of its own: only keys of the database may."""
    oidc: OidcConfig | None = field(default=None, metadata=AUTH)
    """An OpenID Connect issuer whose bearer tokens let in, beside keys."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the `Host` header that are accepted beside loopback names and addresses."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call this server, such as http://localhost:3000."""

    drain_s: float = 30.0
    """Seconds that running answers get when the server is asked to stop."""
    ping_s: float = 15.0
    """Seconds of silence after which a stream carries a comment, so that proxies keep it open."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must be in [0, 65535], got {self.port!r}")
        if self.memory_mib is not None and self.memory_mib < 64:
            raise ConfigError(f"memory_mib must be at least 64, got {self.memory_mib}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key go together; give both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ConfigError("tls_client_ca needs tls_cert and tls_key")
        for name, value in (("drain_s", self.drain_s), ("ping_s", self.ping_s)):
            if not 0 < value < 86_400:
                raise ConfigError(f"{name} must be in (0, 86400) seconds, got {value!r}")
        for key in self.api_keys:
            if len(key.reveal()) < MIN_KEY_CHARS or not key.reveal().isascii() or not key.reveal().isprintable():
                raise ConfigError(f"an API key has at least {MIN_KEY_CHARS} printable ASCII characters")
        for origin in self.cors_origins:
            if _ORIGIN.fullmatch(origin) is None:
                raise ConfigError(f"a CORS origin looks like http://localhost:3000, got {origin!r}; '*' is not one")
        for host in self.allowed_hosts:
            if _HOST.fullmatch(host) is None:
                raise ConfigError(f"an allowed host is a name without port, got {host!r}")
        if self.is_exposed and not self.wants_key and not self.allow_anonymous:
            raise ConfigError(
                f"{self.host} can be reached from other machines: give an API key, or require_key to take the keys "
                "that `llama key create` makes, or allow_anonymous if everybody there may use this server"
            )

    @property
    def wants_key(self) -> bool:
        """Whether nobody comes in without a key or a token."""
        return bool(self.api_keys) or self.require_key or self.oidc is not None

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach the address."""
        return self.uds is None and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine only."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
