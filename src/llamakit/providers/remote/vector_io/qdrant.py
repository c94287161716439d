"""Chunks in Qdrant, over its REST API and the guarded client.

Only the configured address is spoken to, and one inside a private network only where the URL says so or `private`
is set. What chunks look like there is `rag.vector.qdrant_points`; here are addresses, keys, deadlines and errors.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.core.config import Secret
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
from llamakit.outbound.addresses import parse
from llamakit.outbound.client import Fetched, OutboundClient, OutboundLimits
from llamakit.outbound.policy import OutboundPolicy, normal_host, parse_url
from llamakit.providers.shared.tool_settings import check_config, config_number
from llamakit.rag.vector.qdrant import QdrantChunks
from llamakit.storage.sql import Database

NAME = "remote::qdrant"
URL_ENV, KEY_ENV = "QDRANT_URL", "QDRANT_API_KEY"
PORT = 6333
_CONFIG = ("url", "api_key", "api_key_env", "private", "ca_file", "prefix", "exact", "timeout_s")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]+")
_MAX_BYTES = 256 << 20
_SAID_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class QdrantSettings:
    """Where a Qdrant is and how it is used."""

    url: str
    api_key: Secret | None = None
    private: bool = False
    """Whether the host may lie in a private network."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    prefix: str = "llamakit"
    """Collections are called this and a digest of owner and store."""
    exact: bool = False
    """Whether to compare with all vectors instead of asking the graph."""
    timeout_s: float = 60.0
    """Seconds for one request."""


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> QdrantProvider:
    """The provider; raises `ConfigError`. Nothing is connected to yet."""
    return QdrantProvider(read_settings(config, os.environ))


def read_settings(config: Mapping[str, Any], environ: Mapping[str, str]) -> QdrantSettings:
    """The settings of a run config and of Qdrant's own variables; raises `ConfigError` naming the setting."""
    check_config(NAME, config, _CONFIG)
    url = _url(config.get("url") or environ.get(URL_ENV))
    host = parse_url(url).host
    for name in ("private", "exact"):
        if not isinstance(config.get(name, False), bool):
            raise ConfigError(f"{NAME}: {name} must be true or false, got {config[name]!r}")
    prefix = config.get("prefix", "llamakit")
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"{NAME}: prefix is 1 to 64 letters, digits, _ and -, got {prefix!r}")
    return QdrantSettings(
        url=url,
        api_key=_api_key(config, environ),
        # Who writes an address or the machine itself has said that it may be private.
        private=config.get("private", host == "localhost" or parse(host) is not None),
        ca_file=_ca_file(config.get("ca_file")),
        prefix=prefix,
        exact=config.get("exact", False),
        timeout_s=config_number(config, "timeout_s", 60.0, 3600.0),
    )


class QdrantProvider:
    """Opens the store; fulfils `ChunkStoreProvider`."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._settings = settings
        self._wire = QdrantWire(settings)

    async def open(self, database: Database, folder: Callable[[str], Path]) -> QdrantChunks:
        """The store; whether Qdrant is there shows with the first request, so that a server starts without it."""
        return QdrantChunks(self._wire.call, prefix=self._settings.prefix, exact=self._settings.exact)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()


class QdrantWire:
    """Requests to one Qdrant."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._base = settings.url
        self._headers = {} if settings.api_key is None else {"api-key": settings.api_key.reveal()}
        limits = OutboundLimits(max_bytes=_MAX_BYTES, total_s=settings.timeout_s, idle_s=settings.timeout_s)
        roots = None if settings.ca_file is None else _trust(settings.ca_file)
        self._client = OutboundClient(_policy(settings), limits=limits, roots=roots)

    async def call(self, method: str, path: str, body: Any) -> Any:
        """The `result` of an answer; `NotFound`, `Conflict`, or what keeps Qdrant from answering and what to do."""
        try:
            answer = await self._client.request(method, self._base + path, headers=self._headers, json=body)
        except OutboundRefused as error:
            raise OutboundRefused(
                f"Qdrant is not reached: {error}. For a Qdrant in your own network set `private: true` in the "
                f"configuration of {NAME}"
            ) from error
        except OutboundFailed as error:
            raise OutboundFailed(f"Qdrant: {error}; is it running, and is `url` of {NAME} its address?") from error
        if not answer.ok:
            raise _refusal(answer)
        found = answer.json()
        if not isinstance(found, dict) or "result" not in found:
            raise RemoteFailed(f"what answers at {self._base} is not Qdrant; check `url` of {NAME}")
        return found["result"]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _policy(settings: QdrantSettings) -> OutboundPolicy:
    """That host and port; in plain text only where it may be private."""
    target = parse_url(settings.url)
    entry = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
    return OutboundPolicy(hosts=(entry,), private=(target.host,) if settings.private else ())


def _refusal(answer: Fetched) -> LlamakitError:
    """The error for an answer that is not a success; what Qdrant says of a key is not repeated."""
    status = answer.status
    if status in (401, 403):
        return RemoteFailed(f"Qdrant refused our key ({status}); set `api_key` of {NAME}, or {KEY_ENV}", status=status)
    shown = f"Qdrant answered {status}: {_said(answer)}"
    match status:
        case 404:
            return NotFound(shown)
        case 409:
            return Conflict(shown)
        case 429 | 503:
            return Overloaded(shown)
        case 507:
            return StorageFull(shown)
    return RemoteFailed(shown, status=status)


def _said(answer: Fetched) -> str:
    try:
        status = json.loads(answer.body)["status"]
        return str(status["error"] if isinstance(status, dict) else status)[:_SAID_CHARS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{len(answer.body)} bytes that are no answer of Qdrant's; check `url` of {NAME}"


def _url(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ConfigError(f"{NAME} needs url, or the variable {URL_ENV}: https://qdrant.example.org:{PORT}")
    given = given.strip().rstrip("/")
    try:
        target = parse_url(given)
    except OutboundRefused as error:
        raise ConfigError(f"{NAME}: url is http:// or https:// and a host; {error}") from error
    # Qdrant's own clients take its port where none is written; a path is a proxy's, which has a port of its own.
    if target.url.port is None and target.url.path in ("", "/"):
        host = f"[{target.host}]" if ":" in target.host else normal_host(target.host)
        return f"{target.scheme}://{host}:{PORT}"
    return given


def _api_key(config: Mapping[str, Any], environ: Mapping[str, str]) -> Secret | None:
    variable = config.get("api_key_env", KEY_ENV)
    given = config.get("api_key") or environ.get(str(variable))
    if not given:
        return None
    key = given if isinstance(given, Secret) else Secret(str(given).strip())
    if _KEY.fullmatch(key.reveal()) is None:
        raise ConfigError(f"{NAME}: the key holds characters that no key has; check api_key or {variable}")
    return key


def _ca_file(given: Any) -> Path | None:
    if given is None:
        return None
    path = Path(str(given)).expanduser()
    if not path.is_file():
        raise ConfigError(f"{NAME}: ca_file must be a file of certificates, got {str(given)!r}")
    return path


def _trust(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise ConfigError(f"{NAME}: ca_file {str(path)!r} holds no certificates: {error}") from error
