"""No way out of this process: once shut, a connection or a name look-up beyond this machine raises, whoever asks.

Holds for every socket of Python, also those of other packages; there is no way to open it again. It keeps honest
code from the network. Hostile code is the sandbox's business.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

from llamakit.core.errors import OutboundRefused

_WAYS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"})
_shut = False


def shut() -> None:
    """Refuse every connection to other machines from now on; a second call does nothing."""
    global _shut
    if not _shut:
        _shut = True
        sys.addaudithook(_refuse)


def is_shut() -> bool:
    """Whether connections are refused."""
    return _shut


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _WAYS:
        return
    place = arguments[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else arguments[1]
    # A path, or nothing, is no address: a local socket, or one that was connected under this very check.
    host = place[0] if isinstance(place, tuple) else place if event.startswith("socket.get") else None
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if isinstance(host, str) and not _is_here(host, asks=event.startswith("socket.get")):
        raise OutboundRefused(f"{host[:80]!r} is on a network, and this server is offline (server.offline)")


def _is_here(host: str, *, asks: bool) -> bool:
    """Whether reaching `host`, or asking what it means, stays on this machine."""
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    # What an address means is known without asking anybody.
    return asks or address.is_loopback or address.is_unspecified
