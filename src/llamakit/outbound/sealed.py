"""A stretch of work with the network shut, and the count that proves it.

The interpreter tells of each socket that is connected and each host name that is looked up (PEP 578), whichever
library does it. While the seal is on, each such attempt is refused and noted. What native code did behind the
interpreter's back would still show in the kernel's list of this process's sockets, which is read at the end.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llamakit.core.errors import OutboundRefused

_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"})
_SENDS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"})
_NETWORK = frozenset({socket.AF_INET, socket.AF_INET6})

_active: list[Seal] = []
_lock = threading.Lock()
_is_hooked = False


class Seal:
    """What was attempted while the network was shut."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        """What each refused attempt wanted, in order."""
        self._before = len(_sockets() or ())

    @property
    def connections_opened(self) -> int:
        """Network sockets that this process has now and had not when the seal was put on, by the kernel's list."""
        return max(0, len(_sockets() or ()) - self._before)

    @property
    def is_known_to_the_kernel(self) -> bool:
        """Whether the kernel's list could be read here."""
        return _sockets() is not None


@contextmanager
def sealed() -> Iterator[Seal]:
    """Refuse every use of the network inside of the block, in all threads, with `OutboundRefused`."""
    global _is_hooked
    seal = Seal()
    with _lock:
        if not _is_hooked:
            # A hook stays for the life of the process; without a seal it does nothing.
            sys.addaudithook(_hear)
            _is_hooked = True
        _active.append(seal)
    try:
        yield seal
    finally:
        with _lock:
            _active.remove(seal)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _active or not event.startswith("socket."):
        return
    if event in _LOOKUPS:
        wanted = f"look up {args[0]!r}"
    elif event in _SENDS and args[0].family in _NETWORK:
        wanted = f"{event.partition('.')[2]} {args[1]!r}"
    else:
        return
    for seal in list(_active):
        seal.attempts.append(wanted)
    raise OutboundRefused(f"the network is shut here; refused to {wanted}")


def _sockets() -> list[Any] | None:
    """The network sockets of this process as the kernel lists them; None where it does not tell."""
    import psutil

    try:
        return psutil.Process().net_connections(kind="inet")
    except psutil.Error:
        return None
