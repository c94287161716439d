"""Which host names and which web pages may talk to this server.

A page in a browser can reach a loopback address, and a name of its own can be made to point there. Without
a key nothing else would stop it, so names are checked: `Host` must be this machine or an allowed name, and
`Origin`, which browsers send, must be this server itself or an allowed page.
"""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llamakit.server.errors import Forbidden, error_response
from llamakit.server.exchange import Exchange
from llamakit.stack.run_config import ServeConfig, is_loopback


class OriginGuard:
    """Wraps the application; refuses before any route is looked up."""

    def __init__(self, app: ASGIApp, *, config: ServeConfig) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in config.allowed_hosts)
        self._origins = frozenset(config.cors_origins)
        # Behind keys a foreign name gains nothing; and on a Unix socket there is no name at all.
        self._checks_host = bool(config.allowed_hosts) or not (config.wants_key or config.uds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            fault = self._fault(Headers(scope=scope))
            if fault is not None:
                exchange: Exchange = scope["state"]["exchange"]
                await error_response(fault, exchange.id, exchange.dialect)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _fault(self, headers: Headers) -> Forbidden | None:
        hosts = headers.getlist("host")
        if self._checks_host and (len(hosts) != 1 or not self._is_own(hosts[0])):
            return Forbidden(
                f"host {', '.join(hosts)[:80]!r} is not one this server answers to; "
                "use localhost or an address, or allow the name with --allowed-host"
            )
        for origin in headers.getlist("origin"):
            if origin not in self._origins and not _is_same(origin, hosts):
                return Forbidden(
                    f"web pages of {origin[:80]!r} may not call this server; allow them with --cors-origin"
                )
        # A page can ask without an Origin, for a picture or a script; only following a link to here is a person's wish.
        is_foreign = headers.get("sec-fetch-site") == "cross-site" and "origin" not in headers
        if is_foreign and headers.get("sec-fetch-mode") != "navigate":
            return Forbidden("web pages of other origins may not use this server as a source; see --cors-origin")
        return None

    def _is_own(self, host: str) -> bool:
        name = _name(host)
        return name is not None and (name in self._hosts or is_loopback(name) or _is_address(name))


def _name(host: str) -> str | None:
    """The name in a `Host` header without its port; None for what is none."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if bracket else "?"
    else:
        name, _, port = host.partition(":")
    if not name or (port and not (port.isascii() and port.isdigit())):
        return None
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    """An address names a machine and cannot be made to point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(origin: str, hosts: list[str]) -> bool:
    """Whether the page came from this very server."""
    scheme, separator, place = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and len(hosts) == 1 and place.lower() == hosts[0].lower()
