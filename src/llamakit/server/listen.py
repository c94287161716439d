"""The socket a server listens on, taken before anything is loaded, with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from llamakit.core.errors import ConfigError
from llamakit.stack.run_config import ServeConfig

BACKLOG = 2048


def listen(config: ServeConfig) -> socket.socket:
    """A bound socket; raises `ConfigError` when the address is taken or not ours."""
    return _unix_socket(config.uds) if config.uds is not None else _tcp_socket(config.host, config.port)


def address_of(config: ServeConfig, bound: socket.socket) -> str:
    """The address people type: a URL, or `unix:` and a path."""
    if config.uds is not None:
        return f"unix:{config.uds}"
    host, port = bound.getsockname()[:2]
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def release(config: ServeConfig, bound: socket.socket) -> None:
    """Close the socket, and take its file away if it has one."""
    bound.close()
    if config.uds is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(config.uds)


def _tcp_socket(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as fault:
        raise ConfigError(f"cannot listen on host {host!r}: {fault}; use an address of this machine") from None
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as fault:
        bound.close()
        raise ConfigError(_why_not(host, port, fault)) from None
    return bound


def _why_not(host: str, port: int, fault: OSError) -> str:
    match fault.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is taken, perhaps by another llama serve; "
                f"stop that one or choose another with --port {port + 1 if port < 65535 else 0}"
            )
        case errno.EACCES:
            return f"port {port} on {host} needs more rights; choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; use 127.0.0.1, or 0.0.0.0 for all of its addresses"
    return f"cannot listen on {host} port {port}: {fault.strerror}"


def _unix_socket(path: str) -> socket.socket:
    """Only the user who serves may connect. A file left behind by a server that is gone is replaced."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            _remove_stale(path)
        before = os.umask(0o177)
        try:
            bound.bind(path)
        finally:
            os.umask(before)
        bound.listen(BACKLOG)
    except ConfigError:
        bound.close()
        raise
    except OSError as fault:
        bound.close()
        raise ConfigError(f"cannot listen on the Unix socket {path!r}: {fault.strerror or fault}") from None
    return bound


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConfigError(f"{path!r} exists and is no socket; choose another path with --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise ConfigError(f"another server listens on {path!r}; stop it or choose another path with --uds")
