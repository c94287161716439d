"""Files at addresses that requests name: fetched by the guarded client, as far as the distribution lets it.

Nothing may be fetched unless a distribution says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from llamakit.core.errors import ConfigError, InvalidRequest, OutboundFailed, OutboundRefused
from llamakit.outbound.client import OutboundClient, OutboundLimits
from llamakit.outbound.policy import OutboundPolicy

MAX_MB = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """What requests may have fetched by their `file_url` and `image_url`; nothing unless hosts are named."""

    hosts: tuple[str, ...] = ()
    """Host names such as `*.example.org`, with a port or not; `*` is every public host."""
    private: tuple[str, ...] = ()
    """Networks and host names among them that may be private."""
    plain_http: bool = False
    """Whether `http://` may be used with public hosts."""
    max_mb: int = 32
    """Mebibytes of one file."""
    timeout_s: float = 20.0
    """Seconds for one file, redirects included."""

    def __post_init__(self) -> None:
        if not 0 < self.max_mb <= MAX_MB or not 0 < self.timeout_s <= 600:
            raise ConfigError(f"fetch.max_mb must be in [1, {MAX_MB}] and fetch.timeout_s in (0, 600]")
        try:
            _ = self.policy
        except ConfigError as fault:
            raise ConfigError(_ours(fault)) from None

    @property
    def policy(self) -> OutboundPolicy:
        """The hosts as the guarded client takes them; raises `ConfigError`."""
        return OutboundPolicy(hosts=self.hosts, private=self.private, plain_http=self.plain_http)


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFile:
    """What was at an address."""

    name: str
    data: bytes
    mime: str | None


class Fetcher:
    """Fetches for one server; opens a connection only when it must."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._client: OutboundClient | None = None

    async def fetch(self, url: str, param: str) -> FetchedFile:
        """The file at a URL; raises `InvalidRequest` naming `param` where it may not be had, or cannot be."""
        config = self._config
        if not config.hosts:
            raise InvalidRequest(
                f"{param}: this server fetches no addresses; send the file itself, or name the host in the "
                "distribution: fetch: {hosts: [...]}",
                param=param,
            )
        if self._client is None:
            limits = OutboundLimits(max_bytes=config.max_mb << 20, total_s=config.timeout_s, redirects=3)
            self._client = OutboundClient(config.policy, limits=limits)
        try:
            reply = await self._client.request("GET", url)
        except OutboundRefused as fault:
            raise InvalidRequest(f"{param}: {_ours(fault)}", param=param) from fault
        except OutboundFailed as fault:
            raise InvalidRequest(f"{param} could not be fetched: {fault}", param=param) from fault
        if not reply.ok:
            raise InvalidRequest(f"{param} could not be fetched: the address answered {reply.status}", param=param)
        mime = reply.headers.get("content-type", "").partition(";")[0].strip() or None
        return FetchedFile(name=_name(reply.url), data=reply.body, mime=mime)

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _ours(fault: Exception) -> str:
    """What the guarded client says, by the names of this section."""
    return str(fault).replace("outbound.", "fetch.")


def _name(url: str) -> str:
    """The last part of the path, for people and for telling kinds apart."""
    path = unquote(url.partition("?")[0].partition("#")[0])
    return PurePosixPath(path.partition("://")[2]).name[:200] or "file"
