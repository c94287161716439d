"""Readers that misbehave, for the tests of the child process."""

import ctypes
import os
import socket
import subprocess
import time
from pathlib import Path

from llamakit.core.errors import DocumentError


def echo(document: bytes, **options: object) -> object:
    return {"size": len(document), "options": options, "environment": dict(os.environ)}


def refuse(document: bytes) -> object:
    raise DocumentError("page 3 is damaged")


def break_down(document: bytes) -> object:
    raise KeyError("xref")


def hang(document: bytes) -> object:
    time.sleep(3600)
    return None


def spin(document: bytes) -> object:
    while True:
        pass


def swell(document: bytes) -> object:
    return len(b"x" * (4 << 30))


def flood(document: bytes) -> object:
    return "x" * (8 << 20)


def shout(document: bytes) -> object:
    while True:
        os.write(1, b"x" * 65536)


def die(document: bytes) -> object:
    return ctypes.string_at(0)


def nest(document: bytes) -> object:
    return nest(document)


def escape(document: bytes, *, way: str) -> object:
    """Tell how an attempt to get out ended."""
    library = ctypes.CDLL(None, use_errno=True)
    ways = {
        "network": lambda: socket.socket().connect(("127.0.0.1", int(document))),
        "socket": lambda: socket.socket(),
        "unix socket": lambda: socket.socket(socket.AF_UNIX),
        "process": lambda: subprocess.run(["true"], check=True),
        "fork": os.fork,
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "write": lambda: Path(document.decode()).write_text("x"),
        "remove": lambda: os.unlink(document.decode()),
        "read": lambda: Path(document.decode()).read_text(),
        "list": lambda: os.listdir("/etc"),
        "kill": lambda: os.kill(os.getppid(), 0),
        "limit": lambda: __import__("resource").prlimit(os.getppid(), 7, (10, 10)),
        "trace": lambda: _called(library.ptrace(16, os.getppid(), 0, 0)),
        "memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
        "environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "raise limits": lambda: __import__("resource").setrlimit(9, (8 << 30, 8 << 30)),
    }
    try:
        ways[way]()
    except BaseException as error:
        return f"refused: {type(error).__name__}"
    return "out"


def _called(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")
